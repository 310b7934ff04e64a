/*
 * PVH: an ELF file whose Xen note names a 32-bit physical entry point. The CPU starts there in flat
 * protected mode with EBX = hvm_start_info (Xen, docs/misc/pvh.pandoc; the structures are those of
 * xen/include/public/arch-x86/hvm/start_info.h, version 1).
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vmm/boot/elf.h"
#include "vmm/boot/formats.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/memmap.h"
#include "vmm/boot/place.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18 /* xen/include/public/elfnote.h */
#define START_INFO_MAGIC         0x336ec578u
#define START_INFO_VERSION       1

struct start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modlist_gpa;
	uint64_t cmdline_gpa;
	uint64_t rsdp_gpa;
	uint64_t memmap_gpa;
	uint32_t memmap_entries;
	uint32_t reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "hvm_start_info, version 1");

struct module {
	uint64_t gpa;
	uint64_t bytes;
	uint64_t cmdline_gpa;
	uint64_t reserved;
};
_Static_assert(sizeof(struct module) == 32, "hvm_modlist_entry");

struct map_entry {
	uint64_t gpa;
	uint64_t bytes;
	uint32_t type;
	uint32_t reserved;
};
_Static_assert(sizeof(struct map_entry) == 24, "hvm_memmap_table_entry");

/* The three of them as they lie at LAYOUT_PVH. */
struct pvh_block {
	struct start_info info;
	struct module initrd;
	struct map_entry map[MEMMAP_MAX_ENTRIES];
};
_Static_assert(sizeof(struct pvh_block) <= PAGE_BYTES, "the layout gives it one page");

/* The note's descriptor is an address, in as many bytes as the linker script made it. */
static bool read_entry(const struct elf_file *elf, uint64_t *entry)
{
	uint64_t bytes;
	const uint8_t *desc = elf_find_note(elf, "Xen", XEN_ELFNOTE_PHYS32_ENTRY, &bytes);

	if (!desc || (bytes != 4 && bytes != 8))
		return false;
	*entry = 0;
	memcpy(entry, desc, bytes);
	return true;
}

static bool pvh_detect(const struct boot_file *kernel)
{
	struct err ignored = ERR_INIT;
	struct elf_file elf;
	uint64_t entry;

	return elf_has_magic(kernel->data, kernel->bytes) &&
	       elf_open(&elf, kernel->data, kernel->bytes, &ignored) == 0 &&
	       (elf.machine == EM_X86_64 || elf.machine == EM_386) && read_entry(&elf, &entry);
}

static void fill_map(struct pvh_block *b, const struct memmap *map)
{
	b->info.memmap_gpa = LAYOUT_PVH + offsetof(struct pvh_block, map);
	b->info.memmap_entries = map->nr;
	for (uint32_t i = 0; i < map->nr; i++)
		b->map[i] = (struct map_entry){.gpa = map->entries[i].base,
					       .bytes = map->entries[i].bytes,
					       .type = map->entries[i].type};
}

static int place_block(struct guest_mem *mem, const struct boot_input *in, const struct memmap *map,
		       uint64_t kernel_end, struct err *e)
{
	struct pvh_block b = {.info = {.magic = START_INFO_MAGIC,
				       .version = START_INFO_VERSION,
				       .cmdline_gpa = LAYOUT_CMDLINE,
				       .rsdp_gpa = in->rsdp_gpa}};
	int rc = 0;

	fill_map(&b, map);
	if (in->initrd.data) {
		b.info.nr_modules = 1;
		b.info.modlist_gpa = LAYOUT_PVH + offsetof(struct pvh_block, initrd);
		b.initrd.bytes = in->initrd.bytes;
		rc = place_initrd(mem, map, &in->initrd, kernel_end, MEM_HOLE_START, &b.initrd.gpa,
				  e);
	}
	return rc ? rc : guest_mem_write(mem, LAYOUT_PVH, &b, sizeof(b), e);
}

static int load_kernel(struct guest_mem *mem, const struct boot_file *kernel,
		       const struct memmap *map, struct boot_entry *entry, uint64_t *end,
		       struct err *e)
{
	struct elf_file elf;

	if (elf_open(&elf, kernel->data, kernel->bytes, e) ||
	    elf_load(&elf, mem, map, LAYOUT_END, end, e))
		return err_prefix(e, "%s", kernel->name);
	if (!read_entry(&elf, &entry->rip) || entry->rip >= MEM_HOLE_START ||
	    !memmap_is_ram(map, entry->rip, 1))
		return boot_refuse(kernel, e,
				   "is a PVH ELF whose entry point 0x%" PRIx64
				   " is not in 32-bit RAM",
				   entry->rip);
	return 0;
}

static int pvh_load(struct guest_mem *mem, const struct boot_input *in, struct boot_entry *entry,
		    struct err *e)
{
	struct memmap map;
	uint64_t end = 0;
	int rc;

	memmap_init(&map, mem);
	rc = load_kernel(mem, &in->kernel, &map, entry, &end, e);
	if (rc == 0)
		rc = place_cmdline(mem, in->append, LAYOUT_CMDLINE_BYTES - 1, e);
	if (rc == 0)
		rc = place_block(mem, in, &map, end, e);
	entry->mode = BOOT_PROTECTED;
	entry->rbx = LAYOUT_PVH;
	return rc ? rc : place_gdt(mem, entry, e);
}

const struct boot_format pvh_format = {
	.name = "PVH ELF",
	.detect = pvh_detect,
	.load = pvh_load,
};
