/*
 * Reading an ELF file that nobody has checked: every offset and size is compared with the file
 * before it is used. 32 and 64 bit, little endian (System V ABI, chapters 4 and 5). Borrowed bytes;
 * plain data; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"
#include "vmm/boot/memmap.h"
#include "vmm/mem.h"

struct elf_file {
	const uint8_t *data;
	uint64_t bytes;
	bool is64;
	uint16_t machine; /* EM_* */
	uint64_t entry;
	uint64_t table; /* program headers */
	uint32_t nr_segments;
};

struct elf_segment {
	uint32_t type; /* PT_* */
	uint64_t offset, file_bytes;
	uint64_t vaddr, paddr, mem_bytes;
	uint64_t align;
};

bool elf_has_magic(const uint8_t *data, uint64_t bytes);

/* Checks the header and that every program header and every segment's bytes lie in the file. The
 * message continues a sentence: "is an ELF file whose program headers lie beyond its end". */
int elf_open(struct elf_file *elf, const uint8_t *data, uint64_t bytes, struct err *e);

/* "ELF64 for ARM (AArch64)", into @out, which is returned. */
char *elf_describe(const struct elf_file *elf, char *out, size_t cap);

struct elf_segment elf_segment(const struct elf_file *elf, uint32_t i);

/* The descriptor of the first note called @name (with its NUL) of @type in a PT_NOTE segment, or
 * NULL. */
const uint8_t *elf_find_note(const struct elf_file *elf, const char *name, uint32_t type,
			     uint64_t *bytes);

/* Write the PT_LOAD segments to their physical addresses. Each must be in RAM, at or above
 * @floor, where the boot structures end. *low_end: one past the last byte used below the PCI hole.
 */
int elf_load(const struct elf_file *elf, struct guest_mem *mem, const struct memmap *map,
	     uint64_t floor, uint64_t *low_end, struct err *e);

/* The physical address of the entry point, which ELF gives as a virtual one. */
uint64_t elf_entry_gpa(const struct elf_file *elf);
