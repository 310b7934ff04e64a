/*
 * What the guest felt, from the report page it publishes (vmm/guest_report.h): each vCPU samples
 * its TSC all the time and records the stretches in which it did not run.
 *
 * A mark taken while the guest is paused names the last instant each vCPU lived through; the gap
 * that begins there is the switch-over. Reading costs the guest nothing. One thread at a time per
 * mark.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/guest_report.h"
#include "vmm/vm.h"

struct blackout_mark {
	uint32_t nr_cpus; /* 0: the guest publishes no report */
	uint64_t gap_seq[GUEST_REPORT_MAX_CPUS];
	uint64_t last_tsc[GUEST_REPORT_MAX_CPUS];
};

void blackout_mark(struct vm *vm, struct blackout_mark *mark);

/* The largest gap any vCPU recorded since the mark; 0 when none was long enough to be recorded. */
uint64_t blackout_largest_since_ns(struct vm *vm, const struct blackout_mark *mark);

/* The gap that began at or before the mark and ended after it: the switch-over, as the vCPU that
 * felt it longest did. False when a vCPU has not recorded it yet. */
bool blackout_spanning_ns(struct vm *vm, const struct blackout_mark *mark, uint64_t *gap_ns);
