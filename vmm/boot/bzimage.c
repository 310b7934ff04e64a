/*
 * Linux bzImage by the 64-bit boot protocol (Linux, Documentation/arch/x86/boot.rst, section
 * "64-bit Boot Protocol"): the kernel's protected-mode part is entered 0x200 bytes after its start,
 * in long mode with an identity map, RSI = boot_params. Nothing of the real-mode part runs.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "vmm/boot/formats.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/memmap.h"
#include "vmm/boot/place.h"

#define HEADER_OFFSET   0x1f1u
#define HEADER_MAGIC    0x53726448u /* "HdrS" */
#define BOOT_FLAG       0xaa55
#define MIN_PROTOCOL    0x020c /* 2.12: the first with xloadflags */
#define RSDP_PROTOCOL   0x020e /* 2.14: acpi_rsdp_addr */
#define SECTOR_BYTES    512u
#define ENTRY_64_OFFSET 0x200u
#define OLD_LOAD_GPA    0x100000ull /* where a kernel that cannot be moved is loaded */
#define LOADER_UNKNOWN  0xff        /* type_of_loader without an assigned number */
#define VIDEO_NORMAL    0xffff
#define MIB             ((uint64_t)1 << 20)

_Static_assert(sizeof(struct boot_params) == PAGE_BYTES, "the zero page is one page");
_Static_assert(offsetof(struct boot_params, hdr) == HEADER_OFFSET, "boot protocol, 1f1");
_Static_assert(MEMMAP_MAX_ENTRIES <= E820_MAX_ENTRIES_ZEROPAGE, "the map fits the zero page");

/* What of the file goes where. */
struct kernel_image {
	struct setup_header hdr;
	const uint8_t *code; /* the protected-mode part */
	uint64_t code_bytes;
	uint64_t load_gpa;
	uint64_t end_gpa; /* of what the kernel needs while it unpacks itself */
};

/* The header is as long as the jump over it says (offset 0x201 is the jump's operand); fields past
 * its end stay zero, as the protocol asks. */
static bool read_header(const struct boot_file *kernel, struct setup_header *hdr)
{
	const uint64_t magic_at = HEADER_OFFSET + offsetof(struct setup_header, header);
	uint64_t bytes;

	*hdr = (struct setup_header){0};
	if (kernel->bytes < magic_at + sizeof(hdr->header))
		return false;
	bytes = 0x202u + kernel->data[0x201] - HEADER_OFFSET;
	if (bytes > sizeof(*hdr))
		bytes = sizeof(*hdr);
	if (bytes > kernel->bytes - HEADER_OFFSET)
		bytes = kernel->bytes - HEADER_OFFSET;
	memcpy(hdr, kernel->data + HEADER_OFFSET, bytes);
	return hdr->header == HEADER_MAGIC && hdr->boot_flag == BOOT_FLAG;
}

static bool bzimage_detect(const struct boot_file *kernel)
{
	struct setup_header hdr;

	return read_header(kernel, &hdr);
}

static int check_header(const struct boot_file *kernel, const struct setup_header *h, struct err *e)
{
	if (h->version < MIN_PROTOCOL)
		return boot_refuse(kernel, e, "is a bzImage of protocol %u.%02u, too old",
				   h->version >> 8, h->version & 0xffu);
	if (!(h->xloadflags & XLF_KERNEL_64))
		return boot_refuse(kernel, e, "is a bzImage of a 32-bit kernel");
	if (!(h->loadflags & LOADED_HIGH))
		return boot_refuse(kernel, e, "is a zImage, to be loaded below 1 MiB");
	return 0;
}

/* The boot sector and setup_sects sectors come first (0 means 4, for history's sake); syssize is
 * the rest in 16-byte units. A signature may follow, which is loaded along with it. */
static int find_code(const struct boot_file *kernel, struct kernel_image *k, struct err *e)
{
	uint64_t sectors = k->hdr.setup_sects ? k->hdr.setup_sects : 4;
	uint64_t setup = (sectors + 1) * SECTOR_BYTES, code = (uint64_t)k->hdr.syssize * 16;

	if (kernel->bytes <= setup + ENTRY_64_OFFSET || kernel->bytes - setup < code)
		return boot_refuse(kernel, e,
				   "is a truncated bzImage: its header announces %" PRIu64
				   " bytes, the file has %" PRIu64,
				   setup + code, kernel->bytes);
	k->code = kernel->data + setup;
	k->code_bytes = kernel->bytes - setup;
	return 0;
}

/* boot.rst, init_size: the memory that must be there is init_size bytes from the run-time start
 * address, which for a kernel loaded at pref_address is pref_address. */
static int choose_address(const struct boot_file *kernel, const struct memmap *map,
			  struct kernel_image *k, struct err *e)
{
	uint64_t pref = k->hdr.pref_address, need = k->hdr.init_size;

	k->load_gpa = k->hdr.relocatable_kernel ? pref : OLD_LOAD_GPA;
	if (pref < k->load_gpa || pref >= MEM_HOLE_START || pref % PAGE_BYTES != 0)
		return boot_refuse(kernel, e,
				   "is a bzImage that wants to be at the impossible address "
				   "0x%" PRIx64,
				   pref);
	k->end_gpa = k->load_gpa + k->code_bytes;
	if (k->end_gpa < pref + need)
		k->end_gpa = pref + need;
	if (k->load_gpa < LAYOUT_ONE_MIB ||
	    !memmap_is_ram(map, k->load_gpa, k->end_gpa - k->load_gpa))
		return err_set(e, ERR_USAGE, ENOMEM,
			       "%s: this kernel needs the memory from %" PRIu64 " to %" PRIu64
			       " MiB to start; give the guest more memory",
			       kernel->name, k->load_gpa / MIB, (k->end_gpa + MIB - 1) / MIB);
	return 0;
}

static void fill_e820(struct boot_params *bp, const struct memmap *map)
{
	bp->e820_entries = (uint8_t)map->nr;
	for (uint32_t i = 0; i < map->nr; i++)
		bp->e820_table[i] = (struct boot_e820_entry){.addr = map->entries[i].base,
							     .size = map->entries[i].bytes,
							     .type = map->entries[i].type};
}

static int place_kernel_initrd(struct guest_mem *mem, const struct boot_input *in,
			       const struct memmap *map, const struct kernel_image *k,
			       struct boot_params *bp, struct err *e)
{
	uint64_t gpa;
	int rc;

	if (!in->initrd.data)
		return 0;
	rc = place_initrd(mem, map, &in->initrd, k->end_gpa, k->hdr.initrd_addr_max + 1ull, &gpa,
			  e);
	if (rc)
		return rc;
	bp->hdr.ramdisk_image = (uint32_t)gpa; /* below 3 GiB: the ext_ fields stay zero */
	bp->hdr.ramdisk_size = (uint32_t)in->initrd.bytes;
	return 0;
}

/* Only the header is taken over from the file ("The rest must be zeroed"): screen_info zero means
 * no VGA, which is true. */
static int place_zero_page(struct guest_mem *mem, const struct boot_input *in,
			   const struct memmap *map, const struct kernel_image *k, struct err *e)
{
	struct boot_params bp = {.hdr = k->hdr};
	int rc;

	bp.hdr.type_of_loader = LOADER_UNKNOWN;
	bp.hdr.vid_mode = VIDEO_NORMAL;
	bp.hdr.code32_start = (uint32_t)k->load_gpa;
	bp.hdr.cmd_line_ptr = (uint32_t)LAYOUT_CMDLINE;
	if (k->hdr.version >= RSDP_PROTOCOL)
		bp.acpi_rsdp_addr = in->rsdp_gpa;
	fill_e820(&bp, map);
	rc = place_kernel_initrd(mem, in, map, k, &bp, e);
	return rc ? rc : guest_mem_write(mem, LAYOUT_ZERO_PAGE, &bp, sizeof(bp), e);
}

static int place_all(struct guest_mem *mem, const struct boot_input *in, const struct memmap *map,
		     const struct kernel_image *k, struct boot_entry *entry, struct err *e)
{
	int rc = guest_mem_write(mem, k->load_gpa, k->code, k->code_bytes, e);

	if (rc == 0)
		rc = place_cmdline(mem, in->append, k->hdr.cmdline_size, e);
	if (rc == 0)
		rc = place_zero_page(mem, in, map, k, e);
	if (rc == 0)
		rc = place_page_tables(mem, entry, e);
	return rc ? rc : place_gdt(mem, entry, e);
}

static int bzimage_load(struct guest_mem *mem, const struct boot_input *in,
			struct boot_entry *entry, struct err *e)
{
	struct kernel_image k = {0};
	struct memmap map;
	int rc;

	memmap_init(&map, mem);
	if (!read_header(&in->kernel, &k.hdr))
		return boot_refuse(&in->kernel, e, "is not a bzImage");
	rc = check_header(&in->kernel, &k.hdr, e);
	if (rc == 0)
		rc = find_code(&in->kernel, &k, e);
	if (rc == 0)
		rc = choose_address(&in->kernel, &map, &k, e);
	entry->mode = BOOT_LONG;
	entry->rip = k.load_gpa + ENTRY_64_OFFSET;
	entry->rsi = LAYOUT_ZERO_PAGE;
	return rc ? rc : place_all(mem, in, &map, &k, entry, e);
}

const struct boot_format bzimage_format = {
	.name = "Linux bzImage",
	.detect = bzimage_detect,
	.load = bzimage_load,
};
