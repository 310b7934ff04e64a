/*
 * The memory map that a guest is told, whatever the boot format: plain data derived from the
 * guest's RAM and the layout. The type numbers are those of the BIOS E820 call, which PVH
 * (XEN_HVM_MEMMAP_TYPE_*), Linux and Multiboot all use.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/mem.h"

enum memmap_type {
	MEMMAP_RAM = 1,
	MEMMAP_RESERVED = 2
};

struct memmap_entry {
	uint64_t base;
	uint64_t bytes;
	enum memmap_type type;
};

/* Conventional memory, the BIOS hole, and what is left of each slot. */
#define MEMMAP_MAX_ENTRIES (2 + MEM_MAX_SLOTS)

struct memmap {
	uint32_t nr;
	struct memmap_entry entries[MEMMAP_MAX_ENTRIES];
};

void memmap_init(struct memmap *map, const struct guest_mem *mem);

/* Is all of [base, base + bytes) RAM that belongs to the guest? Safe against overflow. */
bool memmap_is_ram(const struct memmap *map, uint64_t base, uint64_t bytes);

/* One past the highest byte of RAM below the PCI hole: what 32-bit code can reach. */
uint64_t memmap_low_end(const struct memmap *map);
