/* The pipeline's own state, shared by pipeline.c (jobs and writes) and pipeline_regions.c (what is
 * pinned for them). Private to those files. */
#pragma once

#include "migration/rdma/job.h"
#include "migration/rdma/pin_window.h"
#include "migration/rdma/pipeline.h"
#include "migration/rdma/registrar.h"

#define NR_JOBS    32u /* looked ahead at most */
#define NR_FLIGHTS 64u

/* pin_region.awaits */
#define AWAITS_HERE  1u
#define AWAITS_THERE 2u

/* Writes under way that share a completion. */
struct flight {
	struct job *job; /* NULL: free */
	uint32_t nr_places;
};

struct pipeline {
	struct pipeline_config config;
	struct registrar *registrar;
	struct pin_window *window;

	/* Chunks that are looked ahead, as many as the budget holds. Half of them are taken in and
	 * asked for together, while the other half is being written: one message and one answer
	 * for all of them, and each thread is woken once. */
	uint32_t nr_ahead;
	uint32_t nr_group;

	/* A ring: jobs [first, end), modulo NR_JOBS, in the order they came. */
	struct job jobs[NR_JOBS];
	uint32_t first;
	uint32_t end;
	uint32_t nr_new; /* that came since the last turn */

	struct flight flights[NR_FLIGHTS];
	uint32_t nr_places; /* of the send queue that are free */
	bool marked;
	bool limited; /* a limit was met, and we have said so */

	/* Regions in the order of their requests; each has a job that waits for it. */
	struct pin_region *owed[NR_JOBS];
	uint32_t owed_first;
	uint32_t owed_end;

	struct batch_run window_runs[BATCH_MAX_RUNS]; /* of the next WINDOW */
	uint32_t nr_window_runs;
};

static inline struct job *job_at(struct pipeline *p, uint32_t i)
{
	return &p->jobs[i % NR_JOBS];
}

/* Give jobs their regions, as far as there is room; asks both sides for those that are not pinned
 * yet, and does not wait. */
int pipeline_acquire(struct pipeline *p, struct err *e);
/* What the two sides have answered so far. */
int pipeline_hear_answers(struct pipeline *p, struct err *e);
