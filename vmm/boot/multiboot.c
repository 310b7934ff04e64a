/*
 * Multiboot 1 (Multiboot Specification 0.6.96): a header in the first 8 KiB; the image is placed
 * either by addresses in that header (the "a.out kludge", flag 16) or as an ELF file. The CPU
 * starts in flat protected mode with EAX = magic and EBX = the Multiboot information.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vmm/boot/elf.h"
#include "vmm/boot/formats.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/memmap.h"
#include "vmm/boot/place.h"

#define HEADER_MAGIC 0x1badb002u
#define LOADER_MAGIC 0x2badb002u
#define SEARCH_BYTES 8192u /* 3.1: the header lies completely within these */
#define LOADER_NAME  "Godwit"

enum header_flag { /* 3.1.2 */
	WANTS_PAGE_ALIGNED_MODULES = 1u << 0,
	WANTS_MEMORY_INFO = 1u << 1,
	WANTS_VIDEO_MODE = 1u << 2,
	MUST_UNDERSTAND = 0xffffu,
	HAS_ADDRESSES = 1u << 16,
};

enum info_flag { /* 3.3 */
	INFO_MEMORY = 1u << 0,
	INFO_CMDLINE = 1u << 2,
	INFO_MODULES = 1u << 3,
	INFO_MMAP = 1u << 6,
	INFO_LOADER_NAME = 1u << 9,
};

struct mb_header {
	uint32_t magic;
	uint32_t flags;
	uint32_t checksum;
	/* With HAS_ADDRESSES only. */
	uint32_t header_gpa;
	uint32_t load_gpa;
	uint32_t load_end_gpa;
	uint32_t bss_end_gpa;
	uint32_t entry_gpa;
};
_Static_assert(sizeof(struct mb_header) == 32, "Multiboot 3.1.1, without the graphics fields");
#define SHORT_HEADER_BYTES offsetof(struct mb_header, header_gpa)

struct mb_info {
	uint32_t flags;
	uint32_t mem_lower_kib, mem_upper_kib;
	uint32_t boot_device;
	uint32_t cmdline;
	uint32_t mods_count, mods_addr;
	uint32_t syms[4];
	uint32_t mmap_bytes, mmap_addr;
	uint32_t drives_bytes, drives_addr;
	uint32_t config_table;
	uint32_t boot_loader_name;
	uint32_t apm_table;
};
_Static_assert(sizeof(struct mb_info) == 72, "Multiboot 3.3, up to the graphics fields");

struct mb_module {
	uint32_t start, end;
	uint32_t string;
	uint32_t reserved;
};
_Static_assert(sizeof(struct mb_module) == 16, "Multiboot 3.3, mods_addr");

struct mb_mmap {
	uint32_t size; /* of what follows */
	uint64_t base;
	uint64_t bytes;
	uint32_t type;
} __attribute__((packed));
_Static_assert(sizeof(struct mb_mmap) == 24, "Multiboot 3.3, mmap_addr");

/* All of it as it lies at LAYOUT_MULTIBOOT. */
struct mb_block {
	struct mb_info info;
	struct mb_module module;
	struct mb_mmap mmap[MEMMAP_MAX_ENTRIES];
	char loader_name[sizeof(LOADER_NAME)];
	char module_string[1024];
};
_Static_assert(sizeof(struct mb_block) <= PAGE_BYTES, "the layout gives it one page");
#define BLOCK_GPA(field) ((uint32_t)(LAYOUT_MULTIBOOT + offsetof(struct mb_block, field)))

/* Find the header: 4-byte aligned, the three words adding up to zero. False if there is none. */
static bool find_header(const struct boot_file *f, struct mb_header *h, uint64_t *at)
{
	uint64_t end = f->bytes < SEARCH_BYTES ? f->bytes : SEARCH_BYTES;

	for (uint64_t i = 0; i + SHORT_HEADER_BYTES <= end; i += 4) {
		uint64_t room = end - i < sizeof(*h) ? end - i : sizeof(*h);

		*h = (struct mb_header){0};
		memcpy(h, f->data + i, room);
		if (h->magic != HEADER_MAGIC || h->magic + h->flags + h->checksum != 0)
			continue;
		if ((h->flags & HAS_ADDRESSES) && room < sizeof(*h))
			continue;
		*at = i;
		return true;
	}
	return false;
}

static bool multiboot_detect(const struct boot_file *kernel)
{
	struct mb_header h;
	uint64_t at;

	return find_header(kernel, &h, &at);
}

static int check_flags(const struct boot_file *kernel, const struct mb_header *h, struct err *e)
{
	uint32_t unknown = h->flags & MUST_UNDERSTAND &
			   ~(uint32_t)(WANTS_PAGE_ALIGNED_MODULES | WANTS_MEMORY_INFO);

	if (unknown & WANTS_VIDEO_MODE)
		return boot_refuse(kernel, e,
				   "is a Multiboot image that asks for a video mode, and this "
				   "machine has no display");
	if (unknown)
		return boot_refuse(kernel, e,
				   "is a Multiboot image that asks for features not known here "
				   "(flags 0x%" PRIx32 ")",
				   unknown);
	return 0;
}

/* The part of the file that the address fields select, and where it goes. */
struct flat_image {
	const uint8_t *data;
	uint64_t bytes;
	uint64_t gpa;
	uint64_t end; /* with its bss */
};

static int flat_image(const struct boot_file *kernel, const struct mb_header *h, uint64_t header_at,
		      struct flat_image *flat, struct err *e)
{
	uint64_t before = (uint64_t)h->header_gpa - h->load_gpa; /* of the header, in the image */
	uint64_t from = header_at - before;

	if (h->header_gpa < h->load_gpa || before > header_at)
		return boot_refuse(kernel, e,
				   "is a Multiboot image whose load address does not fit its "
				   "header's");
	flat->data = kernel->data + from;
	flat->gpa = h->load_gpa;
	flat->bytes = h->load_end_gpa ? (uint64_t)h->load_end_gpa - h->load_gpa /* 0: all of it */
				      : kernel->bytes - from;
	if ((h->load_end_gpa && h->load_end_gpa < h->load_gpa) ||
	    flat->bytes > kernel->bytes - from)
		return boot_refuse(kernel, e,
				   "is a Multiboot image that ends before its load_end_addr "
				   "(truncated?)");
	flat->end = flat->gpa + flat->bytes;
	if (h->bss_end_gpa > flat->end)
		flat->end = h->bss_end_gpa;
	return 0;
}

static int load_flat(struct guest_mem *mem, const struct boot_file *kernel,
		     const struct memmap *map, const struct flat_image *flat, struct err *e)
{
	uint64_t file_end = flat->gpa + flat->bytes;
	int rc;

	if (flat->gpa < LAYOUT_MULTIBOOT_END ||
	    !memmap_is_ram(map, flat->gpa, flat->end - flat->gpa))
		return err_set(e, ERR_STREAM, ENOEXEC,
			       "%s: is a Multiboot image for 0x%" PRIx64 " to 0x%" PRIx64
			       ", where the guest has no free RAM; give the guest more memory",
			       kernel->name, flat->gpa, flat->end);
	rc = guest_mem_write(mem, flat->gpa, flat->data, flat->bytes, e);
	return rc ? rc : place_zeroes(mem, file_end, flat->end - file_end, e);
}

static int load_elf(struct guest_mem *mem, const struct boot_file *kernel, const struct memmap *map,
		    struct boot_entry *entry, uint64_t *end, struct err *e)
{
	struct elf_file elf;

	if (!elf_has_magic(kernel->data, kernel->bytes))
		return boot_refuse(kernel, e,
				   "has a Multiboot header without addresses (flag 16) but is not "
				   "an ELF file");
	if (elf_open(&elf, kernel->data, kernel->bytes, e) ||
	    elf_load(&elf, mem, map, LAYOUT_MULTIBOOT_END, end, e))
		return err_prefix(e, "%s", kernel->name);
	entry->rip = elf_entry_gpa(&elf);
	return 0;
}

static int load_kernel(struct guest_mem *mem, const struct boot_file *kernel,
		       const struct memmap *map, struct boot_entry *entry, uint64_t *end,
		       struct err *e)
{
	struct flat_image flat = {0};
	struct mb_header h;
	uint64_t at = 0;
	int rc;

	if (!find_header(kernel, &h, &at))
		return boot_refuse(kernel, e, "is not a Multiboot image");
	rc = check_flags(kernel, &h, e);
	if (rc)
		return rc;
	if (!(h.flags & HAS_ADDRESSES)) {
		rc = load_elf(mem, kernel, map, entry, end, e);
	} else {
		rc = flat_image(kernel, &h, at, &flat, e);
		if (rc == 0)
			rc = load_flat(mem, kernel, map, &flat, e);
		entry->rip = h.entry_gpa;
		*end = flat.end;
	}
	if (rc == 0 && (entry->rip >= MEM_HOLE_START || !memmap_is_ram(map, entry->rip, 1)))
		rc = boot_refuse(kernel, e,
				 "is a Multiboot image whose entry point 0x%" PRIx64
				 " is not in 32-bit RAM",
				 entry->rip);
	return rc;
}

static void fill_memory(struct mb_block *b, const struct memmap *map)
{
	b->info.mem_lower_kib = (uint32_t)(LAYOUT_EBDA >> 10);
	b->info.mem_upper_kib = (uint32_t)((memmap_low_end(map) - LAYOUT_ONE_MIB) >> 10);
	b->info.mmap_bytes = (uint32_t)(map->nr * sizeof(struct mb_mmap));
	b->info.mmap_addr = BLOCK_GPA(mmap);
	for (uint32_t i = 0; i < map->nr; i++)
		b->mmap[i] =
			(struct mb_mmap){.size = sizeof(struct mb_mmap) - sizeof(b->mmap[i].size),
					 .base = map->entries[i].base,
					 .bytes = map->entries[i].bytes,
					 .type = map->entries[i].type};
}

static int add_module(struct guest_mem *mem, const struct boot_input *in, const struct memmap *map,
		      uint64_t kernel_end, struct mb_block *b, struct err *e)
{
	uint64_t gpa;
	int rc;

	if (!in->initrd.data)
		return 0;
	rc = place_initrd(mem, map, &in->initrd, kernel_end, MEM_HOLE_START, &gpa, e);
	if (rc)
		return rc;
	b->info.flags |= INFO_MODULES;
	b->info.mods_count = 1;
	b->info.mods_addr = BLOCK_GPA(module);
	b->module = (struct mb_module){.start = (uint32_t)gpa,
				       .end = (uint32_t)(gpa + in->initrd.bytes),
				       .string = BLOCK_GPA(module_string)};
	snprintf(b->module_string, sizeof(b->module_string), "%s", in->initrd.name);
	return 0;
}

static int place_info(struct guest_mem *mem, const struct boot_input *in, const struct memmap *map,
		      uint64_t kernel_end, struct err *e)
{
	struct mb_block b = {
		.info = {.flags = INFO_MEMORY | INFO_CMDLINE | INFO_MMAP | INFO_LOADER_NAME,
			 .cmdline = (uint32_t)LAYOUT_MULTIBOOT_CMDLINE,
			 .boot_loader_name = BLOCK_GPA(loader_name)},
		.loader_name = LOADER_NAME};
	int rc;

	fill_memory(&b, map);
	rc = add_module(mem, in, map, kernel_end, &b, e);
	return rc ? rc : guest_mem_write(mem, LAYOUT_MULTIBOOT, &b, sizeof(b), e);
}

/* The first word is the program's name, as GRUB and QEMU have it; kvm-unit-tests skip it. */
static int place_program_line(struct guest_mem *mem, const struct boot_input *in, struct err *e)
{
	uint64_t name = strlen(in->kernel.name), rest = strlen(in->append);
	uint64_t at = LAYOUT_MULTIBOOT_CMDLINE;
	int rc;

	if (name + 1 + rest + 1 > LAYOUT_MULTIBOOT_CMDLINE_BYTES)
		return err_set(e, ERR_USAGE, E2BIG,
			       "the command line has %" PRIu64
			       " characters with the image's name before it, a Multiboot image "
			       "takes at most %llu",
			       name + 1 + rest, LAYOUT_MULTIBOOT_CMDLINE_BYTES - 1);
	rc = guest_mem_write(mem, at, in->kernel.name, name + 1, e);
	if (rc || rest == 0)
		return rc;
	rc = guest_mem_write(mem, at + name, " ", 1, e);
	return rc ? rc : guest_mem_write(mem, at + name + 1, in->append, rest + 1, e);
}

static int multiboot_load(struct guest_mem *mem, const struct boot_input *in,
			  struct boot_entry *entry, struct err *e)
{
	struct memmap map;
	uint64_t end = 0;
	int rc;

	memmap_init(&map, mem);
	rc = load_kernel(mem, &in->kernel, &map, entry, &end, e);
	if (rc == 0)
		rc = place_program_line(mem, in, e);
	if (rc == 0)
		rc = place_info(mem, in, &map, end, e);
	entry->mode = BOOT_PROTECTED;
	entry->rax = LOADER_MAGIC;
	entry->rbx = LAYOUT_MULTIBOOT;
	return rc ? rc : place_gdt(mem, entry, e);
}

const struct boot_format multiboot_format = {
	.name = "Multiboot 1",
	.detect = multiboot_detect,
	.load = multiboot_load,
};
