/*
 * Page channels: how batches of guest pages get to the destination.
 *
 * A channel moves pages, it is not a byte stream pretending to be one: the stream channel (TCP,
 * unix) turns a batch into a header, a run list and a gather from guest memory; RDMA turns it into
 * writes. One worker thread owns a channel, its codec context and its scratch memory. What makes it
 * stop waiting is the migration's `struct cancel`. Adding one: a file with pagechan_ops and an open
 * function, and a line in the table of pagechan.c.
 */
#pragma once

#include <stdint.h>

#include "migration/batch_out.h"
#include "migration/codec.h"
#include "migration/params.h"
#include "migration/rate.h"
#include "proto/batch.h"
#include "vmm/base/cancel.h"
#include "vmm/base/fault.h"
#include "vmm/base/link.h"
#include "vmm/base/uri.h"
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
	uint32_t nr_fallbacks; /* 1: the channel goes on as a stream since this round */
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
	void (*free)(struct pagechan *c);
};

/* Embedded first in a channel's own struct. */
struct pagechan {
	const struct pagechan_ops *ops;
	uint32_t batch_pages; /* how many data pages the channel likes in the next batch */
};

/* What a channel is made from; all of it outlives the channel. */
struct pagechan_source {
	const struct uri *uri;
	const struct migration_params *params;
	const uint8_t *migration_id; /* 16 bytes */
	uint32_t index;
	struct guest_mem *mem;
	struct rate_limit *limit;
	const struct cancel *cancel;
	struct fault *fault;
	uint64_t pin_bytes; /* what both sides let this channel pin; 0: no RDMA */
};

/* A channel of the kind that @src asks for. Takes over @link (already past CHANNEL_ACK), also on
 * failure. */
int pagechan_open(const struct pagechan_source *src, struct link *link, struct pagechan **out,
		  struct err *e);

/* The kinds: */
int pagechan_stream_open(const struct pagechan_source *src, struct link *link,
			 struct pagechan **out, struct err *e);
int pagechan_rdma_open(const struct pagechan_source *src, struct link *link, struct pagechan **out,
		       struct err *e);

/* A stream channel that goes on where another kind has stopped. Takes over the link of @out, also
 * on failure. */
int pagechan_stream_resume(const struct batch_out *out, const struct guest_mem *mem,
			   const char *codec, struct rate_limit *limit, struct pagechan **chan,
			   struct err *e);
