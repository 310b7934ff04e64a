/*
 * Putting things into guest memory that several formats need: at the addresses of layout.h, or (the
 * initrd) wherever there is room. Everything goes through guest_mem_write(), so that it counts as
 * dirty. Controller's thread.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"
#include "vmm/boot/boot.h"
#include "vmm/boot/formats.h"
#include "vmm/boot/memmap.h"
#include "vmm/mem.h"

/* A GDT with flat code (0x10) and data (0x18) segments for entry->mode; fills in where it is. */
int place_gdt(struct guest_mem *mem, struct boot_entry *entry, struct err *e);

/* The first 4 GiB mapped to themselves with 2 MiB pages; entry->cr3 is set. */
int place_page_tables(struct guest_mem *mem, struct boot_entry *entry, struct err *e);

/* @text and its NUL at LAYOUT_CMDLINE. @max_chars does not count the NUL. */
int place_cmdline(struct guest_mem *mem, const char *text, uint64_t max_chars, struct err *e);

/* The initrd as high as possible in low RAM: page aligned, ending at or below @ceiling and starting
 * at or above @floor (the end of the kernel). */
int place_initrd(struct guest_mem *mem, const struct memmap *map, const struct boot_file *initrd,
		 uint64_t floor, uint64_t ceiling, uint64_t *gpa, struct err *e);

/* Make [gpa, gpa + bytes) read as zeroes without touching what was never touched. */
int place_zeroes(struct guest_mem *mem, uint64_t gpa, uint64_t bytes, struct err *e);
