/*
 * The oracle of dirty trackers: memory itself, looked at before and after.
 *
 * Between two looks at a running guest every page whose bytes have changed must be in what the
 * tracker reports, whoever wrote it and however. Needs no guest that helps.
 */
#pragma once

#include <stdint.h>

#include "vmm/vm.h"

/* What to watch: @nr_looks times the guest runs for @look_ns. */
struct oracle_watch {
	uint32_t nr_looks;
	uint64_t look_ns;
	uint64_t first_gfn, nr_gfns; /* what to count; every page is checked */
};

/* Watch the running guest, whose memory is one slot, with tracker @name; a page missed fails the
 * running test. How many of the counted pages had changed, summed over the looks. The guest is
 * paused afterwards. */
uint64_t oracle_watch(struct vm *vm, const char *name, const struct oracle_watch *w);
