/*
 * The source's half of moving disks while they are used: a thread that makes passes over them. A
 * pass sends what was written to the copied disks since the last one over the disk connection
 * (proto/STREAM.md, section 8), up to the barrier, and makes shared disks durable, so that the
 * switch-over has little left to flush.
 *
 * collect, begin and finish are for the source engine's thread, in this order; the rest is for any
 * thread. On a failure the shared cancellation token is requested, so that the engine and the page
 * senders stop waiting.
 */
#pragma once

#include "migration/disk_set.h"
#include "migration/rate.h"
#include "vmm/base/cancel.h"
#include "vmm/base/fault.h"
#include "vmm/base/link.h"

struct disk_sender;

struct disk_sender_config {
	const struct disk_set *set;
	struct link *link; /* past CHANNEL_ACK; NULL: no disk is copied. Taken over, also on
			    * failure */
	uint64_t stall_timeout_ns;
	struct rate_limit *limit;
	struct cancel *abort; /* requested on failure */
	struct fault *fault;
};

struct disk_stats {
	uint64_t data_bytes;
	uint64_t zero_bytes; /* sent as holes */
	uint64_t wire_bytes;
	uint64_t settle_ns; /* flushing and the barrier: what a pass costs beside its bytes */
};

/* Starts to track what is written; the first pass is everything. */
int disk_sender_new(const struct disk_sender_config *config, struct disk_sender **out,
		    struct err *e);
/* Ends the tracking, and the thread, whatever it waits for. */
void disk_sender_free(struct disk_sender *s);

/* Take what was written since, for the next pass; how many bytes that will be, at most. No pass is
 * being made. */
uint64_t disk_sender_collect(struct disk_sender *s);

/* Make the next pass; @last: nothing is written any more, and the guest waits. */
void disk_sender_begin(struct disk_sender *s, bool last);
/* Wait for its end; adds to @stats. */
int disk_sender_finish(struct disk_sender *s, struct disk_stats *stats, struct err *e);

/* The number of the pass begun last. */
uint32_t disk_sender_pass(struct disk_sender *s);
/* For progress: what the present pass has left to look at, and all that went over the wire. */
uint64_t disk_sender_remaining_bytes(struct disk_sender *s);
uint64_t disk_sender_wire_bytes(struct disk_sender *s);
