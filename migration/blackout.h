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

#include "migration/report.h"
#include "proto/stream.pb-c.h"
#include "vmm/guest_report.h"
#include "vmm/vm.h"

/* A guest's report. What bounds the rest of it is read once, since the guest can change it at any
 * moment: all of @nr_cpus vCPU pages are RAM, @tsc_khz is not 0. Valid as long as the VM's memory.
 */
struct blackout_view {
	const struct guest_report *report;
	uint32_t nr_cpus; /* 0: the guest publishes no report */
	uint64_t tsc_khz;
	uint64_t noted_from_ns; /* shorter gaps are not recorded one by one */
};

void blackout_view(struct vm *vm, struct blackout_view *out);

struct blackout_mark {
	uint32_t nr_cpus; /* 0: nothing to tell by */
	uint64_t gap_seq[GUEST_REPORT_MAX_CPUS];
	uint64_t last_tsc[GUEST_REPORT_MAX_CPUS];
	uint64_t tsc_backwards[GUEST_REPORT_MAX_CPUS];
	uint64_t seen_tsc[GUEST_REPORT_MAX_CPUS]; /* a sample taken after the mark; 0: none yet */
};

void blackout_mark(const struct blackout_view *view, struct blackout_mark *mark);

/* The largest gap that vCPU @i of the view recorded since the mark, or any vCPU did; 0 when none
 * was long enough to be recorded. */
uint64_t blackout_largest_of_ns(const struct blackout_view *view, const struct blackout_mark *mark,
				uint32_t i);
uint64_t blackout_largest_since_ns(const struct blackout_view *view,
				   const struct blackout_mark *mark);

enum blackout_answer {
	BLACKOUT_PENDING, /* a vCPU has not run since, or not for long: look again */
	BLACKOUT_FELT,
	BLACKOUT_BELOW,  /* all run and have recorded none: it was shorter than they record */
	BLACKOUT_UNTOLD, /* it lies between two TSCs that cannot be compared, or nobody noted it */
};

/* The gap that began at or before the mark and ended after it: the switch-over, as the vCPU that
 * felt it longest did; for BLACKOUT_BELOW, what it is below. @mark remembers what this look has
 * seen, for the next. */
enum blackout_answer blackout_spanning_ns(const struct blackout_view *view,
					  struct blackout_mark *mark, uint64_t *gap_ns);

/* What a BLACKOUT record says, into the report of either end; the gaps before it stay. */
void blackout_take(const Godwit__Blackout *m, struct guest_blackout *out);
