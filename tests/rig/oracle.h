/*
 * The oracle of dirty trackers: memory itself, looked at before and after.
 *
 * Between two looks at a running guest every page whose bytes have changed must be in what the
 * tracker reports, whoever wrote it and however. Needs no guest that helps.
 */
#pragma once

#include <stdint.h>

#include "vmm/vm.h"

/* What to watch: @nr_looks times, or more often, the guest runs for @look_ns. */
struct oracle_watch {
	uint32_t nr_looks;
	uint64_t look_ns;
	uint64_t first_gfn, nr_gfns; /* what to count; every page is checked */
	uint64_t nr_changes;         /* how many to see, summed over the looks */
};

/* Watch the running guest, whose memory is one slot, with tracker @name; a page missed fails the
 * running test, and so does a guest that does not come to change as many of the counted pages as
 * are to be seen. In how many looks that is depends on what the host does meanwhile. The guest is
 * paused afterwards. */
void oracle_watch(struct vm *vm, const char *name, const struct oracle_watch *w);
