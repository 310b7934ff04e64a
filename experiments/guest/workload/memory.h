/*
 * Guest-physical memory as the boot vCPU finds it: the RAM ranges of hvm_start_info, an arena for
 * what the guest needs itself, and the extents of the fill. Used before the other vCPUs start.
 */
#ifndef GODWIT_EXPERIMENTS_GUEST_WORKLOAD_MEMORY_H
#define GODWIT_EXPERIMENTS_GUEST_WORKLOAD_MEMORY_H

#include <stdint.h>

#include "vmm/guest_report.h"

#define MEMORY_MAX_RANGES  GUEST_REPORT_MAX_EXTENTS
#define MEMORY_MAX_CMDLINE 1024

struct memory_range {
	uint64_t start, end; /* page aligned, above the image */
};

struct memory {
	struct memory_range range[MEMORY_MAX_RANGES];
	unsigned int nr_ranges;
	char cmdline[MEMORY_MAX_CMDLINE];
};

/* Copies what start_info at `gpa` says; NULL, or what is wrong with it. Nothing points there after.
 */
const char *memory_read_start_info(struct memory *m, uint64_t gpa);

/* Takes `bytes` from the lowest range that has them, page aligned, not cleared; 0 when none has. */
uint64_t memory_take(struct memory *m, uint64_t bytes);

/* Identity maps RAM above 4 GiB for ring 3; NULL, or what is wrong. */
const char *memory_map_high(struct memory *m);

/* Lays the fill over the ranges from the lowest up. Returns how many pages there was room for. */
uint64_t memory_lay_extents(const struct memory *m, uint64_t nr_pages, struct guest_extent *extent,
			    uint32_t *nr_extents);

#endif
