/*
 * A receiver: the destination's thread for one channel connection. It checks every batch
 * (proto/batch.h), puts the pages where they belong in guest memory, and answers barriers.
 *
 * The VM is paused until they are sealed. On a failure the shared cancellation token is requested
 * so that the engine stops waiting. The source is not trusted: nothing outside RAM is ever written.
 */
#pragma once

#include <stdint.h>

#include "migration/placement.h"
#include "vmm/base/bitmap.h"
#include "vmm/base/cancel.h"
#include "vmm/base/fault.h"
#include "vmm/base/link.h"
#include "vmm/mem.h"

struct receiver;

struct receiver_config {
	uint32_t index;
	uint32_t nr_channels;
	struct guest_mem *mem;
	/* Pages that hold data already (a zero run must clear them). Shared by all receivers: a
	 * chunk belongs to one channel, so no two touch one word. */
	struct bitmap *written;
	struct cancel *abort; /* requested on failure */
	struct fault *fault;
};

/* Takes over @link (past CHANNEL_ACK) and @placement (NULL: all pages come over the link), also on
 * failure. */
int receiver_new(const struct receiver_config *config, struct link *link,
		 struct placement *placement, struct receiver **out, struct err *e);

/* The last round whose barrier this channel has answered. Any thread. */
uint32_t receiver_round(struct receiver *r);
uint64_t receiver_received_bytes(struct receiver *r);

/* Why it failed; kind ERR_NONE while it has not. Any thread. */
void receiver_failure(struct receiver *r, struct err *e);

/* There is no round behind @round: having answered its barrier the receiver need not be told to
 * seal itself, and receiver_seal() need not wait. Any thread. */
void receiver_expect_last(struct receiver *r, uint32_t round);

/* Once this returns nothing that the source does reaches memory through this channel any more: the
 * guest is about to run, and a source that is not done is none of ours. No failure; what was pinned
 * is let go behind our back. */
void receiver_seal(struct receiver *r);

/* Ends the thread, whatever it waits for. */
void receiver_free(struct receiver *r);
