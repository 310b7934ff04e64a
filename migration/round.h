/*
 * One pre-copy round: which pages it looks at, and how far it has come.
 *
 * The set is owned by the source engine and constant while the round is being sent; senders only
 * count in the progress fields.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dirty-tracking/dirty.h"
#include "vmm/base/bitmap.h"
#include "vmm/mem.h"

struct round {
	uint32_t number; /* counted by whoever sends it */
	bool first; /* look for never-touched memory: after claiming, only what the memfd holds */
	bool claim; /* false once the guest is paused: nothing can be written any more */
	struct bitmap set; /* gfns to look at */
	uint64_t nr_pages;
	_Atomic uint64_t seen_pages; /* progress: pages of the set dealt with so far */
};

int round_init(struct round *r, const struct guest_mem *mem, struct err *e);
void round_fini(struct round *r);

/*
 * The first round's set: all RAM except the chunks that nobody has touched. Those are claimed here,
 * in few large pieces, and then looked at again, since the guest may have touched them before the
 * claim: so every page is either in the set, or unwritten since it was claimed. @skipped_pages gets
 * the number left out.
 */
int round_prepare_first(struct round *r, const struct guest_mem *mem, struct dirty_tracker *t,
			uint64_t *skipped_pages, struct err *e);

/* A later round: what was written since. ORs into what the set already holds if @keep. */
int round_prepare_next(struct round *r, struct dirty_tracker *t, bool keep, struct err *e);
