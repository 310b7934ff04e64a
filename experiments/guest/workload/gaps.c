/*
 * Blackouts as the guest feels them: a vCPU that runs takes a TSC sample at least every few
 * microseconds, so a larger distance between two samples is time in which it did not run.
 */
#include "experiments/guest/workload/machine.h"
#include "experiments/guest/workload/workload.h"

uint64_t workload_cycles_ns(const struct workload *w, uint64_t cycles)
{
	return (uint64_t)((unsigned __int128)cycles * w->ns_per_cycle_q32 >> 32);
}

/* The ring is for blackouts worth a date; ordinary scheduling noise would wash them out of it. */
static void record_long_gap(volatile struct guest_cpu_report *r, uint64_t start, uint64_t cycles)
{
	volatile struct guest_gap *slot = &r->gap[r->gap_seq % GUEST_REPORT_NR_GAPS];

	slot->tsc_start = start;
	slot->tsc_cycles = cycles;
	barrier();
	r->gap_seq++;
}

static void record_gap(struct cpu *c, uint64_t start, uint64_t cycles)
{
	volatile struct guest_cpu_report *r = c->report;
	uint64_t ns = workload_cycles_ns(c->w, cycles);
	uint64_t window = c->w->window;

	if (ns >= c->w->report->long_gap_threshold_ns)
		record_long_gap(r, start, cycles);
	r->gap_bucket[guest_gap_bucket(ns)]++;
	r->nr_gaps++;
	r->sum_gap_ns += ns;
	if (ns > r->max_gap_ns)
		r->max_gap_ns = ns;
	if (r->window != window) {
		r->window_max_gap_ns = 0;
		r->window = window;
	}
	if (ns > r->window_max_gap_ns)
		r->window_max_gap_ns = ns;
}

uint64_t cpu_sample(struct cpu *c)
{
	uint64_t last = c->report->last_tsc;
	uint64_t now = rdtsc();

	c->report->last_tsc = now;
	if (__builtin_expect(now < last, 0))
		c->report->tsc_backwards++; /* another host's TSC: no length can be told */
	else if (__builtin_expect(now - last > c->w->gap_threshold_cycles, 0))
		record_gap(c, last, now - last);
	return now;
}

void cpu_reset_gaps(struct cpu *c)
{
	volatile struct guest_cpu_report *r = c->report;

	r->reset_seq++;
	r->nr_gaps = 0;
	r->max_gap_ns = 0;
	r->sum_gap_ns = 0;
	r->window_max_gap_ns = 0;
	for (unsigned int i = 0; i < GUEST_REPORT_NR_BUCKETS; i++)
		r->gap_bucket[i] = 0;
	r->reset_seq++;
	r->last_tsc = rdtsc();
}
