#include "vmm/acpi/tables.h"

#include <string.h>

struct acpi_header acpi_header(const char *signature, uint8_t revision)
{
	struct acpi_header h = {.revision = revision, .oem_revision = 1, .creator_revision = 1};

	memcpy(h.signature, signature, sizeof(h.signature));
	memcpy(h.oem_id, ACPI_OEM_ID, sizeof(h.oem_id));
	memcpy(h.oem_table_id, "GODWITVM", sizeof(h.oem_table_id));
	memcpy(h.creator_id, "GDWT", sizeof(h.creator_id));
	return h;
}

uint8_t acpi_checksum(const uint8_t *data, size_t bytes)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < bytes; i++)
		sum += data[i];
	return (uint8_t)(0x100u - (sum & 0xff));
}

void acpi_finish_table(struct buf *out, size_t start)
{
	struct acpi_header h;
	uint8_t *at = out->data + start;

	memcpy(&h, at, sizeof(h));
	h.bytes = (uint32_t)(out->len - start);
	h.checksum = 0;
	memcpy(at, &h, sizeof(h));
	at[offsetof(struct acpi_header, checksum)] = acpi_checksum(at, h.bytes);
}

/* 5.2.10: memory shared by firmware and OS. It has no standard header and no checksum. */
struct facs {
	char signature[4];
	uint32_t bytes;
	uint32_t hardware_signature;
	uint32_t waking_vector;
	uint32_t global_lock;
	uint32_t flags;
	uint64_t x_waking_vector;
	uint8_t version;
	uint8_t reserved[31];
} __attribute__((packed));
_Static_assert(sizeof(struct facs) == 64, "ACPI 6.4, 5.2.10");

int acpi_append_facs(struct buf *out, struct err *e)
{
	const struct facs facs = {
		.signature = {'F', 'A', 'C', 'S'}, .bytes = sizeof(facs), .version = 2};

	return buf_append(out, &facs, sizeof(facs), e);
}

int acpi_append_sdt(const char *signature, size_t entry_bytes, const uint64_t *gpas, uint32_t nr,
		    struct buf *out, struct err *e)
{
	const struct acpi_header h = acpi_header(signature, 1);
	size_t start = out->len;
	int rc = buf_append(out, &h, sizeof(h), e);

	for (uint32_t i = 0; rc == 0 && i < nr; i++)
		rc = buf_append(out, &gpas[i], entry_bytes, e); /* little endian: the low bytes */
	if (rc == 0)
		acpi_finish_table(out, start);
	return rc;
}

/* 5.2.5.3 */
struct rsdp {
	char signature[8];
	uint8_t checksum; /* of the first 20 bytes, which is all ACPI 1.0 knew */
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt_gpa;
	uint32_t bytes;
	uint64_t xsdt_gpa;
	uint8_t extended_checksum;
	uint8_t reserved[3];
} __attribute__((packed));
_Static_assert(sizeof(struct rsdp) == ACPI_RSDP_BYTES, "ACPI 6.4, 5.2.5.3");

void acpi_fill_rsdp(uint8_t *at, uint64_t rsdt_gpa, uint64_t xsdt_gpa)
{
	struct rsdp r = {.revision = 2,
			 .rsdt_gpa = (uint32_t)rsdt_gpa,
			 .bytes = sizeof(r),
			 .xsdt_gpa = xsdt_gpa};

	memcpy(r.signature, "RSD PTR ", sizeof(r.signature));
	memcpy(r.oem_id, ACPI_OEM_ID, sizeof(r.oem_id));
	memcpy(at, &r, sizeof(r));
	at[offsetof(struct rsdp, checksum)] = acpi_checksum(at, offsetof(struct rsdp, bytes));
	at[offsetof(struct rsdp, extended_checksum)] = acpi_checksum(at, sizeof(r));
}
