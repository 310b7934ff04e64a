#include "experiments/guest/workload/memory.h"

#include "experiments/guest/workload/machine.h"

#define START_INFO_MAGIC 0x336ec578u
#define MEMMAP_RAM       1u
#define GIB              (1ull << 30)
#define STATIC_MAP_END   (4 * GIB)
#define MAP_END          (512 * GIB) /* one page-directory-pointer table */
#define TABLE_FLAGS      0x67ull
#define LARGE_FLAGS      0xe7ull

/* xen/include/public/arch-x86/hvm/start_info.h, version 1 */
struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_gpa, cmdline_gpa, rsdp_gpa, memmap_gpa;
	uint32_t memmap_entries, reserved;
};

struct memmap_entry {
	uint64_t addr, size;
	uint32_t type, reserved;
};

extern char image_end[];
extern volatile uint64_t boot_pdpt[512];

/* Keeps the part above the image: below are the image, firmware data and the AP trampoline. */
static void add_range(struct memory *m, const struct memmap_entry *e)
{
	uint64_t start = (e->addr + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	uint64_t end = (e->addr + e->size) & ~(PAGE_SIZE - 1);
	unsigned int i;

	if (start < pointer_gpa(image_end))
		start = pointer_gpa(image_end);
	if (end > MAP_END)
		end = MAP_END;
	if (start >= end || m->nr_ranges == MEMORY_MAX_RANGES)
		return;
	for (i = m->nr_ranges++; i > 0 && m->range[i - 1].start > start; i--)
		m->range[i] = m->range[i - 1];
	m->range[i] = (struct memory_range){start, end};
}

static const char *copy_cmdline(struct memory *m, uint64_t gpa)
{
	const char *from = gpa_pointer(gpa);

	m->cmdline[0] = '\0';
	if (gpa == 0)
		return NULL;
	for (unsigned int i = 0; i < MEMORY_MAX_CMDLINE; i++) {
		m->cmdline[i] = from[i];
		if (from[i] == '\0')
			return NULL;
	}
	return "the command line is longer than 1023 bytes";
}

const char *memory_read_start_info(struct memory *m, uint64_t gpa)
{
	const struct start_info *info = gpa_pointer(gpa);
	const struct memmap_entry *map;

	if (info->magic != START_INFO_MAGIC)
		return "no hvm_start_info at boot: the loader must speak PVH";
	if (info->version < 1 || info->memmap_entries == 0)
		return "hvm_start_info has no memory map: the loader must fill in version 1";
	map = gpa_pointer(info->memmap_gpa);
	for (uint32_t i = 0; i < info->memmap_entries; i++)
		if (map[i].type == MEMMAP_RAM)
			add_range(m, &map[i]);
	if (m->nr_ranges == 0 || m->range[0].start >= STATIC_MAP_END)
		return "no RAM above the image and below 4 GiB";
	return copy_cmdline(m, info->cmdline_gpa);
}

uint64_t memory_take(struct memory *m, uint64_t bytes)
{
	bytes = (bytes + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	for (unsigned int i = 0; i < m->nr_ranges; i++) {
		struct memory_range *r = &m->range[i];

		if (r->end - r->start >= bytes) {
			r->start += bytes;
			return r->start - bytes;
		}
	}
	return 0;
}

/*
 * A directory is filled in before it is linked: under shadow paging, writing a live table traps.
 * The flags have accessed and dirty set, so the CPU never writes the tables either.
 */
const char *memory_map_high(struct memory *m)
{
	uint64_t top = m->range[m->nr_ranges - 1].end;

	for (uint64_t gpa = STATIC_MAP_END; gpa < top; gpa += GIB) {
		uint64_t table = memory_take(m, PAGE_SIZE);
		uint64_t *directory = gpa_pointer(table);

		if (table == 0 || table >= STATIC_MAP_END)
			return "no room for page tables below 4 GiB";
		for (unsigned int i = 0; i < 512; i++)
			directory[i] = (gpa + ((uint64_t)i << 21)) | LARGE_FLAGS;
		barrier();
		boot_pdpt[gpa / GIB] = table | TABLE_FLAGS;
	}
	return NULL;
}

uint64_t memory_lay_extents(const struct memory *m, uint64_t nr_pages, struct guest_extent *extent,
			    uint32_t *nr_extents)
{
	uint64_t laid = 0;

	*nr_extents = 0;
	for (unsigned int i = 0; i < m->nr_ranges && laid < nr_pages; i++) {
		const struct memory_range *r = &m->range[i];
		uint64_t room = (r->end - r->start) / PAGE_SIZE;
		uint64_t take = room < nr_pages - laid ? room : nr_pages - laid;

		if (take == 0)
			continue;
		extent[(*nr_extents)++] = (struct guest_extent){r->start, take, laid};
		laid += take;
	}
	return laid;
}
