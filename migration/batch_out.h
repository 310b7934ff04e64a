/* Batches on their way out on a channel's connection (proto/STREAM.md, section 3): header and runs,
 * and their one sequence, whoever makes them. Plain data; the channel's thread. */
#pragma once

#include <stdbool.h>

#include "proto/batch.h"
#include "vmm/base/link.h"

struct batch_out {
	struct link *link;
	uint64_t sequence; /* of the next batch */
};

struct batch_head {
	enum batch_kind kind;
	uint8_t codec;
	uint32_t round;
	uint32_t payload_bytes; /* the caller sends them next */
	bool more;              /* it may wait for the next one, 0.2 s at most (MSG_MORE, tcp(7)) */
};

/* What a batch without its payload takes on the wire. */
static inline uint64_t batch_out_bytes(uint32_t nr_runs)
{
	return sizeof(struct batch_header) + nr_runs * sizeof(struct batch_run);
}

int batch_out_send(struct batch_out *out, const struct batch_head *head,
		   const struct batch_run *runs, uint32_t nr_runs, struct err *e);

/* Receive the answer to a barrier or a close of @round. */
int batch_out_await_back(struct batch_out *out, uint32_t round, struct err *e);
