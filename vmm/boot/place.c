#include "vmm/boot/place.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vmm/boot/layout.h"

#define MIB(bytes) (((bytes) + ((uint64_t)1 << 20) - 1) >> 20)

/* Intel SDM volume 3, 3.4.5. Base 0, limit 4 GiB, present, ring 0, accessed (so that the CPU never
 * writes here). The selectors 0x10 and 0x18 are those that the Linux boot protocol asks for. */
#define GDT_CODE32 0x00cf9b000000ffffull
#define GDT_CODE64 0x00af9b000000ffffull
#define GDT_DATA   0x00cf93000000ffffull

int place_gdt(struct guest_mem *mem, struct boot_entry *entry, struct err *e)
{
	const uint64_t gdt[] = {0, 0, entry->mode == BOOT_LONG ? GDT_CODE64 : GDT_CODE32, GDT_DATA};

	entry->gdt_gpa = LAYOUT_GDT;
	entry->gdt_limit = sizeof(gdt) - 1;
	return guest_mem_write(mem, LAYOUT_GDT, gdt, sizeof(gdt), e);
}

/* SDM volume 3, 4.5. Accessed and dirty are set beforehand, for the same reason as above. */
#define PT_TABLE      0x23ull /* present, writable, accessed */
#define PT_PAGE_2M    0xe3ull /* and dirty, page size */
#define PT_ENTRIES    512
#define NR_PD         4 /* a directory maps 1 GiB */
#define BYTES_PER_PDE (2ull << 20)

int place_page_tables(struct guest_mem *mem, struct boot_entry *entry, struct err *e)
{
	const uint64_t pml4 = LAYOUT_PAGE_TABLES, pdpt = pml4 + PAGE_BYTES, pd = pdpt + PAGE_BYTES;
	uint64_t table[PT_ENTRIES] = {pdpt | PT_TABLE};
	int rc = guest_mem_write(mem, pml4, table, sizeof(table), e);

	for (uint64_t i = 0; i < NR_PD; i++)
		table[i] = (pd + i * PAGE_BYTES) | PT_TABLE;
	if (rc == 0)
		rc = guest_mem_write(mem, pdpt, table, sizeof(table), e);
	for (uint64_t i = 0; rc == 0 && i < NR_PD; i++) {
		for (uint64_t j = 0; j < PT_ENTRIES; j++)
			table[j] = (i * PT_ENTRIES + j) * BYTES_PER_PDE | PT_PAGE_2M;
		rc = guest_mem_write(mem, pd + i * PAGE_BYTES, table, sizeof(table), e);
	}
	entry->cr3 = pml4;
	return rc;
}

int place_cmdline(struct guest_mem *mem, const char *text, uint64_t max_chars, struct err *e)
{
	uint64_t chars = strlen(text);

	if (max_chars > LAYOUT_CMDLINE_BYTES - 1)
		max_chars = LAYOUT_CMDLINE_BYTES - 1;
	if (chars > max_chars)
		return err_set(e, ERR_USAGE, E2BIG,
			       "the kernel command line has %" PRIu64
			       " characters, this kernel takes at most %" PRIu64,
			       chars, max_chars);
	return guest_mem_write(mem, LAYOUT_CMDLINE, text, chars + 1, e);
}

int place_initrd(struct guest_mem *mem, const struct memmap *map, const struct boot_file *initrd,
		 uint64_t floor, uint64_t ceiling, uint64_t *gpa, struct err *e)
{
	uint64_t end = memmap_low_end(map);

	if (end > ceiling)
		end = ceiling;
	*gpa = end > initrd->bytes ? (end - initrd->bytes) & ~(PAGE_BYTES - 1) : 0;
	if (*gpa < floor || !memmap_is_ram(map, *gpa, initrd->bytes))
		return err_set(e, ERR_USAGE, ENOMEM,
			       "%s: the initrd of %" PRIu64 " MiB does not fit between the kernel "
			       "(which ends at %" PRIu64 " MiB) and %" PRIu64
			       " MiB; give the guest more memory",
			       initrd->name, MIB(initrd->bytes), MIB(floor), MIB(end));
	return guest_mem_write(mem, *gpa, initrd->data, initrd->bytes, e);
}

static int zero_range(struct guest_mem *mem, uint64_t from, uint64_t to, struct err *e)
{
	static const uint8_t zeroes[1 << 16];
	int rc = 0;

	while (rc == 0 && from < to) {
		uint64_t n = to - from < sizeof(zeroes) ? to - from : sizeof(zeroes);

		rc = guest_mem_write(mem, from, zeroes, n, e);
		from += n;
	}
	return rc;
}

/* At the first boot nothing was touched and nothing is done; a reboot finds the old guest's data.
 */
int place_zeroes(struct guest_mem *mem, uint64_t gpa, uint64_t bytes, struct err *e)
{
	uint64_t from = gpa, end = gpa + bytes, start, stop;
	int rc = 0;

	while (rc == 0 && from < end && guest_mem_next_data(mem, NULL, from, end, &start, &stop)) {
		rc = zero_range(mem, start, stop, e);
		from = stop;
	}
	return rc;
}
