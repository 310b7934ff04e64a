/* What is to be written by RDMA of one 2 MiB chunk, and how far that has come. Plain data, pure
 * functions: the pipeline's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "migration/pagechan.h"
#include "migration/rdma/conn.h"
#include "migration/rdma/pin_window.h"

struct job {
	uint64_t first_gfn; /* of the chunk */
	uint64_t pages[CHUNK_PAGES / 64];
	uint32_t next; /* page of the chunk: those before it are posted */
	uint32_t nr_flights;
	struct pin_region *region; /* NULL: not even asked for */
};

/* Take the data pages of @b's runs from @run on, as far as they are of one chunk; returns the run
 * after them. A job without data is posted and done at once. */
uint32_t job_init(struct job *j, const struct page_batch *b, uint32_t run);

static inline bool job_is_posted(const struct job *j)
{
	return j->next == CHUNK_PAGES;
}

static inline bool job_is_done(const struct job *j)
{
	return job_is_posted(j) && !j->nr_flights;
}

/* From the first to the last page: what has to be pinned. */
void job_hull(const struct job *j, uint64_t *gfn, uint32_t *nr_pages);

/* The next writes, at most @max, in @pieces; returns how many. @next is where those after them
 * begin: the job's `next` once they are posted. The region has its keys. */
uint32_t job_gather(const struct job *j, struct rdma_piece *pieces, uint32_t max, uint32_t *next);

/* All its pages, as runs. */
void job_to_batch(const struct job *j, struct page_batch *out);
