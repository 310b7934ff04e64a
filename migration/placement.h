/*
 * How data pages come into a destination's memory when they do not come over the channel's
 * connection (RDMA: proto/STREAM.md, section 6). The receiver knows what is a page and what may be
 * one; a placement opens regions for the source to write and knows when its writes are in. Used by
 * the receiver's thread; only its waits end early, by the receiver's cancellation.
 */
#pragma once

#include <stdint.h>

#include "proto/batch.h"
#include "vmm/base/err.h"

struct placement;

struct placement_ops {
	const char *name;
	/* Pin and unpin what @runs say (checked: RAM, this channel's) and answer on the connection.
	 */
	int (*window)(struct placement *p, const struct batch_run *runs, uint32_t nr_runs,
		      struct err *e);
	/* Wait until the connection is readable, seeing to the placement's own affairs. */
	int (*wait)(struct placement *p, struct err *e);
	/* Wait until everything that belongs to @round is in memory. */
	int (*finish)(struct placement *p, uint32_t round, struct err *e);
	/* Nothing is written any more once this returns, and only free follows. Quick: what was
	 * pinned may stay so until then. */
	void (*seal)(struct placement *p);
	void (*free)(struct placement *p);
};

/* Embedded first in a placement's own struct. */
struct placement {
	const struct placement_ops *ops;
};
