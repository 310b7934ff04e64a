/*
 * How much this process may pin: the user's wish, made to fit RLIMIT_MEMLOCK. The kernel counts
 * what RDMA pins against it per process (ib_umem_get() in drivers/infiniband/core/umem.c; VmPin in
 * /proc/PID/status), unless the process has CAP_IPC_LOCK. Pure but for _probe.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"

#define PIN_ALL ((uint64_t)INT64_MAX) /* --rdma-pin all; JSON can say it, too */

/* Two chunks a channel: one is written from while the next is being pinned. */
#define PIN_MIN_CHANNEL_BYTES (4ull << 20)

struct pin_limit {
	bool unlimited;
	uint64_t limit_bytes;  /* RLIMIT_MEMLOCK */
	uint64_t pinned_bytes; /* already, by this process */
};

int pin_limit_probe(struct pin_limit *out, struct err *e);

/* The budget for @nr_channels that want @want_bytes together: at most that. @shrunk says that it is
 * less. Fails, saying what to set, when not even the minimum is allowed. */
int pin_limit_apply(const struct pin_limit *limit, uint64_t want_bytes, uint32_t nr_channels,
		    uint64_t *budget_bytes, bool *shrunk, struct err *e);
