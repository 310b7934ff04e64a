#include "vmm/acpi/acpi.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "vmm/acpi/tables.h"

/* The FACS must be so aligned (5.2.10); the others like it. */
#define TABLE_ALIGN 64
#define NR_TABLES   7

struct placed {
	const char *signature;
	size_t offset, bytes;
};

struct image {
	struct buf bytes; /* guest memory from ACPI_BASE on */
	struct placed tables[NR_TABLES];
	uint32_t nr;
};

static int begin(struct image *im, const char *signature, struct err *e)
{
	size_t over = im->bytes.len % TABLE_ALIGN;
	int rc = over ? buf_append(&im->bytes, NULL, TABLE_ALIGN - over, e) : 0;

	im->tables[im->nr] = (struct placed){.signature = signature, .offset = im->bytes.len};
	return rc;
}

/* @rc is how building the table begun last went; hand it on. */
static int end(struct image *im, int rc)
{
	struct placed *p = &im->tables[im->nr];

	p->bytes = im->bytes.len - p->offset;
	im->nr++;
	return rc;
}

static uint64_t gpa_of(const struct image *im, const char *signature)
{
	for (uint32_t i = 0; i < im->nr; i++)
		if (strcmp(im->tables[i].signature, signature) == 0)
			return ACPI_BASE + im->tables[i].offset;
	return 0;
}

/* In the order of their pointers: the FADT names the FACS and the DSDT. */
static int build_hardware(struct image *im, const struct acpi_config *config, struct err *e)
{
	int rc = begin(im, "FACS", e);

	rc = rc ? rc : end(im, acpi_append_facs(&im->bytes, e));
	rc = rc ? rc : begin(im, "DSDT", e);
	rc = rc ? rc : end(im, acpi_append_dsdt(config, &im->bytes, e));
	rc = rc ? rc : begin(im, "FACP", e);
	rc = rc ? rc
		: end(im, acpi_append_fadt(config, gpa_of(im, "FACS"), gpa_of(im, "DSDT"),
					   &im->bytes, e));
	rc = rc ? rc : begin(im, "APIC", e);
	return rc ? rc : end(im, acpi_append_madt(config, &im->bytes, e));
}

/* The RSDT says the same as the XSDT, for guests that know ACPI 1.0 only. */
static int build_roots(struct image *im, struct err *e)
{
	const uint64_t listed[] = {gpa_of(im, "FACP"), gpa_of(im, "APIC")};
	const uint32_t nr = sizeof(listed) / sizeof(listed[0]);
	int rc = begin(im, "XSDT", e);

	rc = rc ? rc : end(im, acpi_append_sdt("XSDT", 8, listed, nr, &im->bytes, e));
	rc = rc ? rc : begin(im, "RSDT", e);
	rc = rc ? rc : end(im, acpi_append_sdt("RSDT", 4, listed, nr, &im->bytes, e));
	if (rc == 0)
		acpi_fill_rsdp(im->bytes.data, gpa_of(im, "RSDT"), gpa_of(im, "XSDT"));
	return rc;
}

static int build(struct image *im, const struct acpi_config *config, struct err *e)
{
	int rc;

	if (config->nr_cpus == 0)
		return err_set(e, ERR_USAGE, EINVAL, "ACPI tables for a machine without CPUs");
	rc = begin(im, "RSD PTR ", e); /* the room for it; it is filled in when all is known */
	rc = rc ? rc : end(im, buf_append(&im->bytes, NULL, ACPI_RSDP_BYTES, e));
	rc = rc ? rc : build_hardware(im, config, e);
	rc = rc ? rc : build_roots(im, e);
	if (rc == 0 && im->bytes.len > ACPI_MAX_BYTES)
		return err_set(e, ERR_USAGE, E2BIG,
			       "the ACPI tables of %" PRIu32 " CPUs and %" PRIu32
			       " devices take more than the %llu bytes there are for them",
			       config->nr_cpus, config->nr_devices, ACPI_MAX_BYTES);
	return rc;
}

int acpi_install(struct guest_mem *mem, const struct acpi_config *config, uint64_t *rsdp_gpa,
		 struct err *e)
{
	struct image im = {.bytes = BUF_INIT};
	int rc = build(&im, config, e);

	if (rc == 0)
		rc = guest_mem_write(mem, ACPI_BASE, im.bytes.data, im.bytes.len, e);
	*rsdp_gpa = ACPI_BASE;
	buf_fini(&im.bytes);
	return rc;
}

/* The FACS is the first table after the RSDP, see build(). */
int acpi_waking_vector(const struct guest_mem *mem, uint32_t *gpa, struct err *e)
{
	const uint64_t facs = ACPI_BASE + TABLE_ALIGN;
	uint32_t head[4]; /* signature, length, hardware signature, waking vector (5.2.10) */
	int rc = guest_mem_read(mem, facs, head, sizeof(head), e);

	if (rc)
		return rc;
	*gpa = head[3];
	if (memcmp(head, "FACS", 4) != 0 || *gpa == 0)
		return err_set(e, ERR_STATE, EINVAL,
			       "the guest sleeps, but its FACS at 0x%" PRIx64
			       " does not say where to wake it",
			       facs);
	return 0;
}

static int copy_out(const struct image *im, const char *signature, struct buf *out, struct err *e)
{
	for (uint32_t i = 0; i < im->nr; i++)
		if (strcmp(im->tables[i].signature, signature) == 0)
			return buf_append(out, im->bytes.data + im->tables[i].offset,
					  im->tables[i].bytes, e);
	return err_set(e, ERR_USAGE, ENOENT, "there is no ACPI table %s", signature);
}

int acpi_build_table(const struct acpi_config *config, const char *signature, struct buf *out,
		     struct err *e)
{
	struct image im = {.bytes = BUF_INIT};
	int rc = build(&im, config, e);

	if (rc == 0)
		rc = copy_out(&im, signature, out, e);
	buf_fini(&im.bytes);
	return rc;
}
