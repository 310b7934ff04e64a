/*
 * Dirty tracking: which guest pages were written since we last asked.
 *
 * One tracker serves one VM and one migration (or measurement). start / collect / stop run on one
 * thread; claim runs on page-channel workers, at the same time for different chunks.
 *
 * The contract every tracker keeps, and tests/integration checks against an oracle:
 *   a page written after the moment it was claimed is in the set of a later collect,
 *   whichever of KVM's address spaces the CPU was in (vmm/mem_slots.h).
 * So whoever claims a page and then reads it has either the newest bytes or will be told again.
 *
 * Adding one: a file that fills in dirty_ops, and a line in the table of dirty.c.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"
#include "vmm/vm.h"

struct dirty_tracker;

struct dirty_ops {
	const char *name;
	const char *summary; /* one line, for --help */

	/* From here on writes are recorded. */
	int (*start)(struct dirty_tracker *t, struct err *e);

	/* OR into @set (guest_mem_nr_gfns bits) what was written. Trackers without claim also
	 * forget it here, that is, they claim everything they report. */
	int (*collect)(struct dirty_tracker *t, struct bitmap *set, struct err *e);

	/* Forget (and watch again) the pages of [first, first + nr) that are in @set; nr and first
	 * are multiples of 64 or end at the end of memory. NULL: collect has done it. */
	int (*claim)(struct dirty_tracker *t, const struct bitmap *set, uint64_t first, uint64_t nr,
		     struct err *e);

	/* Tracking ends; a failure here is only logged. Safe after a failed start. */
	void (*stop)(struct dirty_tracker *t);
	void (*free)(struct dirty_tracker *t);
};

/* Embedded first in a tracker's own struct. */
struct dirty_tracker {
	const struct dirty_ops *ops;
	struct vm *vm;
};

int dirty_new(const char *name, struct vm *vm, struct dirty_tracker **out, struct err *e);
void dirty_free(struct dirty_tracker *t);

/* Writes from before are forgotten: whoever starts looks at everything once. */
int dirty_start(struct dirty_tracker *t, struct err *e);
void dirty_stop(struct dirty_tracker *t);

/* ORs in the VMM's own writes (guest_mem_take_marks) too. */
int dirty_collect(struct dirty_tracker *t, struct bitmap *set, struct err *e);
int dirty_claim(struct dirty_tracker *t, const struct bitmap *set, uint64_t first, uint64_t nr,
		struct err *e);

/* The table, for --help and checks: NULL past the end. */
const struct dirty_ops *dirty_kind(uint32_t i);
