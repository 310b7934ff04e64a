#include "vmm/boot/elf.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vmm/boot/layout.h"
#include "vmm/boot/place.h"

/* A kernel has a handful; the limit keeps a hostile file from costing time. */
#define MAX_SEGMENTS 128

static bool in_file(const struct elf_file *elf, uint64_t offset, uint64_t bytes)
{
	return offset <= elf->bytes && bytes <= elf->bytes - offset;
}

bool elf_has_magic(const uint8_t *data, uint64_t bytes)
{
	return bytes >= SELFMAG && memcmp(data, ELFMAG, SELFMAG) == 0;
}

static int bad(struct err *e, const char *what)
{
	return err_set(e, ERR_STREAM, ENOEXEC, "is an ELF file %s", what);
}

static int read_header64(struct elf_file *elf, uint16_t *entry_bytes, struct err *e)
{
	Elf64_Ehdr h;

	if (elf->bytes < sizeof(h))
		return bad(e, "that ends within its header");
	memcpy(&h, elf->data, sizeof(h));
	elf->machine = h.e_machine;
	elf->entry = h.e_entry;
	elf->table = h.e_phoff;
	elf->nr_segments = h.e_phnum;
	*entry_bytes = h.e_phentsize;
	return 0;
}

static int read_header32(struct elf_file *elf, uint16_t *entry_bytes, struct err *e)
{
	Elf32_Ehdr h;

	if (elf->bytes < sizeof(h))
		return bad(e, "that ends within its header");
	memcpy(&h, elf->data, sizeof(h));
	elf->machine = h.e_machine;
	elf->entry = h.e_entry;
	elf->table = h.e_phoff;
	elf->nr_segments = h.e_phnum;
	*entry_bytes = h.e_phentsize;
	return 0;
}

static uint16_t segment_entry_bytes(const struct elf_file *elf)
{
	return elf->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
}

struct elf_segment elf_segment(const struct elf_file *elf, uint32_t i)
{
	const uint8_t *at = elf->data + elf->table + (uint64_t)i * segment_entry_bytes(elf);
	Elf64_Phdr p;
	Elf32_Phdr q;

	if (elf->is64) {
		memcpy(&p, at, sizeof(p));
		return (struct elf_segment){p.p_type,  p.p_offset, p.p_filesz, p.p_vaddr,
					    p.p_paddr, p.p_memsz,  p.p_align};
	}
	memcpy(&q, at, sizeof(q));
	return (struct elf_segment){q.p_type,  q.p_offset, q.p_filesz, q.p_vaddr,
				    q.p_paddr, q.p_memsz,  q.p_align};
}

static bool segment_is_sound(const struct elf_file *elf, const struct elf_segment *s)
{
	if (s->type != PT_LOAD && s->type != PT_NOTE)
		return true; /* never read */
	return in_file(elf, s->offset, s->file_bytes) &&
	       (s->type == PT_NOTE || s->file_bytes <= s->mem_bytes);
}

static int check_segments(const struct elf_file *elf, uint16_t entry_bytes, struct err *e)
{
	uint64_t table_bytes = (uint64_t)elf->nr_segments * entry_bytes;

	if (elf->nr_segments == 0)
		return bad(e, "without program headers (an object file?)");
	if (elf->nr_segments > MAX_SEGMENTS || entry_bytes != segment_entry_bytes(elf))
		return bad(e, "with impossible program headers");
	if (!in_file(elf, elf->table, table_bytes))
		return bad(e, "whose program headers lie beyond its end (truncated?)");
	for (uint32_t i = 0; i < elf->nr_segments; i++) {
		struct elf_segment s = elf_segment(elf, i);

		if (!segment_is_sound(elf, &s))
			return bad(e, "with a segment that lies beyond its end (truncated?)");
	}
	return 0;
}

int elf_open(struct elf_file *elf, const uint8_t *data, uint64_t bytes, struct err *e)
{
	uint16_t entry_bytes = 0;
	int rc;

	*elf = (struct elf_file){.data = data, .bytes = bytes};
	if (!elf_has_magic(data, bytes) || bytes < EI_NIDENT)
		return bad(e, "that ends within its header");
	if (data[EI_DATA] != ELFDATA2LSB)
		return bad(e, "with big-endian data");
	if (data[EI_CLASS] != ELFCLASS64 && data[EI_CLASS] != ELFCLASS32)
		return bad(e, "of an unknown class");
	elf->is64 = data[EI_CLASS] == ELFCLASS64;
	rc = elf->is64 ? read_header64(elf, &entry_bytes, e) : read_header32(elf, &entry_bytes, e);
	return rc ? rc : check_segments(elf, entry_bytes, e);
}

static const char *machine_name(uint16_t machine)
{
	switch (machine) {
	case EM_X86_64:
		return "x86-64";
	case EM_386:
		return "i386";
	case EM_AARCH64:
		return "ARM (AArch64)";
	case EM_ARM:
		return "ARM";
	case EM_RISCV:
		return "RISC-V";
	case EM_PPC64:
		return "PowerPC 64";
	case EM_S390:
		return "S/390";
	default:
		return NULL;
	}
}

char *elf_describe(const struct elf_file *elf, char *out, size_t cap)
{
	const char *bits = elf->is64 ? "ELF64" : "ELF32", *name = machine_name(elf->machine);

	if (name)
		snprintf(out, cap, "%s for %s", bits, name);
	else
		snprintf(out, cap, "%s for machine type %u", bits, elf->machine);
	return out;
}

/* Round up to the note's alignment; at most 2^32 + 8, so it cannot overflow. */
static uint64_t note_align(uint64_t n, uint64_t align)
{
	return (n + align - 1) & ~(align - 1);
}

/* System V ABI, "Note Section": name size, descriptor size, type, then name and descriptor, each
 * padded to 4 bytes, or to 8 in a segment aligned to 8. */
static const uint8_t *find_in_segment(const struct elf_file *elf, const struct elf_segment *s,
				      const char *name, uint32_t type, uint64_t *bytes)
{
	const uint64_t align = s->align == 8 ? 8 : 4, name_bytes = strlen(name) + 1;
	const uint8_t *at = elf->data + s->offset;
	uint64_t left = s->file_bytes;
	Elf32_Nhdr n; /* the same in both classes */

	while (left >= sizeof(n)) {
		memcpy(&n, at, sizeof(n));

		uint64_t desc = note_align(sizeof(n) + n.n_namesz, align);
		uint64_t next = note_align(desc + n.n_descsz, align);

		if (desc > left || n.n_descsz > left - desc)
			return NULL;
		if (n.n_type == type && n.n_namesz == name_bytes &&
		    memcmp(at + sizeof(n), name, name_bytes) == 0) {
			*bytes = n.n_descsz;
			return at + desc;
		}
		if (next >= left)
			return NULL;
		at += next;
		left -= next;
	}
	return NULL;
}

const uint8_t *elf_find_note(const struct elf_file *elf, const char *name, uint32_t type,
			     uint64_t *bytes)
{
	const uint8_t *found = NULL;

	for (uint32_t i = 0; !found && i < elf->nr_segments; i++) {
		struct elf_segment s = elf_segment(elf, i);

		if (s.type == PT_NOTE)
			found = find_in_segment(elf, &s, name, type, bytes);
	}
	return found;
}

static int load_segment(const struct elf_file *elf, const struct elf_segment *s,
			struct guest_mem *mem, const struct memmap *map, uint64_t floor,
			struct err *e)
{
	int rc;

	if (!memmap_is_ram(map, s->paddr, s->mem_bytes))
		return err_set(e, ERR_STREAM, ENOEXEC,
			       "has a segment of %" PRIu64 " bytes at 0x%" PRIx64
			       ", where the guest has no RAM for it; give the guest more memory",
			       s->mem_bytes, s->paddr);
	if (s->paddr < floor)
		return err_set(e, ERR_STREAM, ENOEXEC,
			       "has a segment at 0x%" PRIx64 ", but memory below 0x%" PRIx64
			       " is for boot structures",
			       s->paddr, floor);
	rc = guest_mem_write(mem, s->paddr, elf->data + s->offset, s->file_bytes, e);
	if (rc)
		return rc;
	return place_zeroes(mem, s->paddr + s->file_bytes, s->mem_bytes - s->file_bytes, e);
}

int elf_load(const struct elf_file *elf, struct guest_mem *mem, const struct memmap *map,
	     uint64_t floor, uint64_t *low_end, struct err *e)
{
	bool any = false;

	*low_end = floor;
	for (uint32_t i = 0; i < elf->nr_segments; i++) {
		struct elf_segment s = elf_segment(elf, i);
		uint64_t end;
		int rc;

		if (s.type != PT_LOAD || s.mem_bytes == 0)
			continue;
		rc = load_segment(elf, &s, mem, map, floor, e);
		if (rc)
			return rc;
		any = true;
		end = s.paddr + s.mem_bytes;
		if (end <= MEM_HOLE_START && end > *low_end)
			*low_end = end;
	}
	return any ? 0 : bad(e, "with nothing to load");
}

uint64_t elf_entry_gpa(const struct elf_file *elf)
{
	for (uint32_t i = 0; i < elf->nr_segments; i++) {
		struct elf_segment s = elf_segment(elf, i);

		if (s.type == PT_LOAD && elf->entry >= s.vaddr &&
		    elf->entry - s.vaddr < s.mem_bytes)
			return elf->entry - s.vaddr + s.paddr;
	}
	return elf->entry;
}
