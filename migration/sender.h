/*
 * A sender: the worker thread that owns one page channel. In each round it goes over its share of
 * the 2 MiB chunks (proto/batch.h: affinity), claims each chunk from the dirty tracker, tells zero
 * pages from data, and sends batches; a barrier ends its part.
 *
 * begin/finish are for the source engine's thread. On the first failure of any sender the shared
 * cancellation token is requested so that the others and the engine stop waiting.
 */
#pragma once

#include "dirty-tracking/dirty.h"
#include "migration/pagechan.h"
#include "migration/round.h"
#include "vmm/base/cancel.h"
#include "vmm/base/fault.h"

struct sender;

struct sender_config {
	uint32_t index;
	uint32_t nr_channels;
	const struct guest_mem *mem;
	struct dirty_tracker *tracker;
	struct cancel *abort; /* requested on failure */
	struct fault *fault;
};

/* Takes over @chan, also on failure. */
int sender_new(const struct sender_config *config, struct pagechan *chan, struct sender **out,
	       struct err *e);
void sender_free(struct sender *s);

void sender_begin(struct sender *s, struct round *r);
/* Wait for the end of the round; adds to @stats. */
int sender_finish(struct sender *s, struct send_stats *stats, struct err *e);

/* Adds what this round has sent so far, or the last one did; any thread. */
void sender_add_progress(const struct sender *s, struct send_stats *to);
