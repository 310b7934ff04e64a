/* The checks of this image: each looks at one interface that kvm-unit-tests use. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BOOT_MAGIC 0x2badb002u

/* Multiboot Specification 0.6.96, 3.3. */
struct boot_info {
	uint32_t flags;
	uint32_t mem_lower_kib, mem_upper_kib;
	uint32_t boot_device;
	uint32_t cmdline;
	uint32_t mods_count, mods_addr;
	uint32_t syms[4];
	uint32_t mmap_bytes, mmap_addr;
};

struct boot_module {
	uint32_t start, end, string;
};

struct check {
	const char *name;
	bool (*passes)(const struct boot_info *info);
};

extern const struct check checks[];
extern const uint32_t nr_checks;
