/*
 * The running workload: what all vCPUs share, and what each keeps for itself. A struct cpu is owned
 * by its vCPU alone; struct workload is constant once the vCPUs run, but for the fields marked.
 */
#ifndef GODWIT_EXPERIMENTS_GUEST_WORKLOAD_WORKLOAD_H
#define GODWIT_EXPERIMENTS_GUEST_WORKLOAD_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "experiments/guest/pattern.h"
#include "experiments/guest/workload/console.h"
#include "experiments/guest/workload/memory.h"
#include "experiments/guest/workload/options.h"
#include "vmm/guest_report.h"

struct cpu {
	struct workload *w;
	volatile struct guest_cpu_report *report;
	uint64_t random;              /* xorshift state */
	uint64_t cursor;              /* of the sequential pattern */
	uint64_t due_tsc;             /* when the next page is to be written */
	uint64_t interval;            /* TSC cycles between pages, rounded down; 0: unlimited ... */
	uint64_t interval_rest, rest; /* ... and the remainder, in units of 1/rate, carried along */
	uint64_t rate;
	uint64_t check_next; /* next slice page of the check under way */
	uint64_t check_pages, check_errors;
	uint64_t check_seq; /* the check this vCPU is doing or did last */
	uint64_t reset_seen;
	bool idle; /* writes nothing */
};

struct workload {
	struct options options;
	struct memory memory;
	struct pattern pattern;
	volatile struct guest_report *report;
	volatile uint32_t *version; /* one per fill page; entry owned by the page's vCPU */
	uint64_t gap_threshold_cycles;
	uint64_t ns_per_cycle_q32; /* fixed point, 32 fractional bits */
	struct cpu cpu[GUEST_REPORT_MAX_CPUS];
	/* written by the boot vCPU, read by all */
	volatile uint64_t go;           /* the fill is complete everywhere: start the workload */
	volatile uint64_t check_wanted; /* number of whole-fill checks asked for */
	volatile uint64_t reset_wanted; /* number of statistics resets asked for */
	volatile uint64_t window;       /* reporting window: one per status line */
	/* owned by the boot vCPU */
	struct console console;
	uint64_t check_printed;
	uint64_t next_poll_tsc, next_line_tsc, line_tsc, line_pages;
	uint64_t errors_seen[GUEST_REPORT_MAX_CPUS];
	unsigned int nr_corrupt_lines;
};

/* gaps.c: take a TSC sample; a gap since the last one that is over the threshold is recorded. */
uint64_t cpu_sample(struct cpu *c);
/* Forget the statistics and start anew from now. */
void cpu_reset_gaps(struct cpu *c);
uint64_t workload_cycles_ns(const struct workload *w, uint64_t cycles);

/* pages.c */
void cpu_fill_slice(struct cpu *c);
/* Write the slice's page `index` anew, at the next version. */
void cpu_write_page(struct cpu *c, uint64_t index);
/* Is the slice's page `index` what it must be? Errors are recorded in the report. */
bool cpu_verify_page(struct cpu *c, uint64_t index);

/* pick.c */
void cpu_seed_random(struct cpu *c);
uint64_t cpu_random_below(struct cpu *c, uint64_t n);
/* The next page of the working set, by the access pattern. */
uint64_t cpu_pick_page(struct cpu *c);

/* smp.c: start vCPU `index`, which enters ap_main; false when it does not come up. */
bool smp_start_cpu(struct workload *w, unsigned int index);

/* status.c: what the boot vCPU does beside its share of the work. */
void status_start(struct workload *w, uint64_t now);
void status_step(struct workload *w, uint64_t now);
void status_ready(struct workload *w);

/* run.c: fill, wait for all, work for ever. */
_Noreturn void cpu_run(struct cpu *c);

#endif
