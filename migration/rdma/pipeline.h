/*
 * The source's half of a channel's RDMA: page batches go in, WRITEs come out, with as much of the
 * guest's memory pinned on both sides as the budget allows and not a page more.
 *
 * A batch is cut into jobs, one for each 2 MiB chunk. A job waits for its region: pinned here by
 * the registrar, and at the destination by a WINDOW batch that is answered with a grant. So while
 * one job's writes are under way, the regions of those behind it are being pinned on both sides.
 * Regions stay pinned for later rounds until the budget is needed for others.
 *
 * Used by the channel's thread only.
 */
#pragma once

#include "migration/batch_out.h"
#include "migration/pagechan.h"
#include "migration/rdma/conn.h"

struct pipeline;

struct pipeline_config {
	struct rdma_conn *conn; /* taken over, also on failure */
	struct batch_out *out;  /* the channel's; for WINDOW */
	const struct guest_mem *mem;
	uint64_t pin_bytes;
	uint64_t stall_ns; /* no progress for that long is a failure */
	const struct cancel *cancel;
	struct fault *fault;
};

int pipeline_new(const struct pipeline_config *config, struct pipeline **out, struct err *e);
/* Closes the connection and unpins everything. */
void pipeline_free(struct pipeline *p);

/* Take the data pages of @b; waits while the pipeline is full. Unless @at_once a few chunks may
 * wait for others to come, at the latest until the round is finished. */
int pipeline_add(struct pipeline *p, const struct page_batch *b, bool at_once, struct err *e);

/* Wait until every write has completed and the destination has @round's mark. */
int pipeline_finish(struct pipeline *p, uint32_t round, struct err *e);

/* After a failure: no more RDMA on this side, everything is unpinned. */
void pipeline_stop(struct pipeline *p);
/* Receive and forget the grants that the destination still owes. */
int pipeline_skip_grants(struct pipeline *p, struct err *e);
/* The @nth job (0, 1, ...) whose pages may not have arrived, as a batch of @round; false: no more.
 */
bool pipeline_unfinished(const struct pipeline *p, uint32_t nth, uint32_t round,
			 struct page_batch *out);
