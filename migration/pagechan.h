/*
 * Page channels: how batches of guest pages get to the destination.
 *
 * A channel moves pages, it is not a byte stream pretending to be one: the stream channel (TCP,
 * unix) turns a batch into a header, a run list and a gather from guest memory; RDMA turns it into
 * writes. One worker thread owns a channel, its codec context and its scratch memory; only
 * `shutdown` is for other threads. Adding one: a file with pagechan_ops and its constructor.
 */
#pragma once

#include <stdint.h>

#include "migration/codec.h"
#include "migration/rate.h"
#include "proto/batch.h"
#include "vmm/base/link.h"
#include "vmm/mem.h"

/* Pages to send, all of one channel: runs in the order they are to be applied. */
struct page_batch {
	uint32_t round;
	uint32_t nr_runs;
	uint32_t nr_data_pages;
	struct batch_run runs[BATCH_MAX_RUNS];
};

struct send_stats {
	uint64_t skipped_pages;
	uint64_t zero_pages;
	uint64_t raw_pages;
	uint64_t compressed_pages;
	uint64_t wire_bytes;
};

struct pagechan;

struct pagechan_ops {
	const char *name;
	/* Send a batch straight from guest memory. Adds to @stats. Bytes may still be read from
	 * guest memory after this returns, until the next barrier has returned. */
	int (*send)(struct pagechan *c, const struct page_batch *b, struct send_stats *stats,
		    struct err *e);
	/* Returns when every page sent so far is in the destination's memory. */
	int (*barrier)(struct pagechan *c, uint32_t round, struct send_stats *stats, struct err *e);
	/* Wake and fail whatever waits; any thread. */
	void (*shutdown)(struct pagechan *c);
	void (*free)(struct pagechan *c);
};

/* Embedded first in a channel's own struct. */
struct pagechan {
	const struct pagechan_ops *ops;
	uint32_t batch_pages; /* how many data pages the channel likes in the next batch */
};

/* The stream channel. Takes over @link (already past CHANNEL_ACK), also on failure; the rest
 * outlives it. */
int pagechan_stream_new(struct link *link, const struct guest_mem *mem, const char *codec,
			struct rate_limit *limit, struct pagechan **out, struct err *e);
