/*
 * Which regions of guest memory are pinned, within a budget: the bookkeeping only, no verbs. Both
 * ends of a channel have one; the source's decides, the destination's checks.
 *
 * A region is some pages of one 2 MiB chunk. A region in use is never given up; of the others the
 * one that was used longest ago goes first. Regions may overlap (each counts by itself, as it does
 * for the kernel). One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"

struct pin_window;

struct pin_region {
	uint64_t gfn;
	uint32_t nr_pages;
	uint32_t nr_users; /* change with pin_window_use() and _unuse() */
	/* The owner's: */
	void *pin;
	uint32_t local_key;
	uint32_t remote_key;
	uint32_t awaits;       /* answers that are still to come */
	uint64_t beside_bytes; /* what was in the window when it was asked for */
	uint32_t beside_regions;
	int refused_here;
	int refused_there;
	/* The window's: */
	struct pin_region *next_in_bucket;
	struct pin_region *older;
	struct pin_region *newer;
};

int pin_window_new(uint64_t budget_bytes, uint32_t max_regions, struct pin_window **out,
		   struct err *e);
/* Its regions go with it. */
void pin_window_free(struct pin_window *w);

uint64_t pin_window_bytes(const struct pin_window *w); /* pinned, or about to be */
uint64_t pin_window_budget(const struct pin_window *w);
/* Lower the budget for good. What is pinned already may be above it, and leaves first. */
void pin_window_shrink(struct pin_window *w, uint64_t budget_bytes);
/* The same for how many regions there may be; there is always room for one. */
void pin_window_shrink_regions(struct pin_window *w, uint32_t max_regions);
uint32_t pin_window_regions(const struct pin_window *w);

/* A region that has all of these pages, or NULL. They lie in one chunk. */
struct pin_region *pin_window_find(struct pin_window *w, uint64_t gfn, uint32_t nr_pages);
/* A region of exactly these pages, or NULL. */
struct pin_region *pin_window_exact(struct pin_window *w, uint64_t gfn, uint32_t nr_pages);
/* A region of this page's chunk that nobody uses, or NULL. */
struct pin_region *pin_window_idle_in_chunk(struct pin_window *w, uint64_t gfn);

/* Is there room for @nr_pages more? */
bool pin_window_fits(const struct pin_window *w, uint32_t nr_pages);
/* The one to give up first; NULL when all are in use. */
struct pin_region *pin_window_oldest_idle(struct pin_window *w);
/* Any region at all, for taking everything down; NULL when there is none. */
struct pin_region *pin_window_any(struct pin_window *w);

/* Add a region (there must be room); it is the newest, without users. */
int pin_window_add(struct pin_window *w, uint64_t gfn, uint32_t nr_pages, struct pin_region **out,
		   struct err *e);
void pin_window_remove(struct pin_window *w, struct pin_region *r);

void pin_window_use(struct pin_window *w, struct pin_region *r);
void pin_window_unuse(struct pin_region *r);
