/*
 * A verbs provider for tests: both ends in one process, an RDMA WRITE is a memcpy that checks keys,
 * ranges and access as an adapter does. Writes are carried out when their completions are, that is
 * late and in any order, so nobody gets by with data that is not there yet.
 *
 * Any call, any completion can be made to fail; events that real devices have can be made to
 * happen. It counts what is alive and what is pinned. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "migration/rdma/verbs.h"

struct fake_verbs;

struct fake_verbs *fake_verbs_new(uint32_t seed);
/* Everything made with it must be gone. */
void fake_verbs_free(struct fake_verbs *f);
const struct verbs_ops *fake_verbs_ops(struct fake_verbs *f);

/* Objects that are alive, of all kinds. */
uint32_t fake_verbs_alive(struct fake_verbs *f);
/* Bytes pinned at the end that writes (@target false) or is written to (true): now, and the most
 * there ever were. */
uint64_t fake_verbs_pinned(struct fake_verbs *f, bool target);
uint64_t fake_verbs_most_pinned(struct fake_verbs *f, bool target);
uint64_t fake_verbs_written_bytes(struct fake_verbs *f);
uint64_t fake_verbs_nr_registered(struct fake_verbs *f);

/* The @nth call from now on (1 is the next; 0: none) fails with @code. Restarts the count. */
void fake_verbs_fail_call(struct fake_verbs *f, uint64_t nth, int code);
/* The @nth completion of a write or message from now on fails with @status. */
void fake_verbs_fail_completion(struct fake_verbs *f, uint64_t nth, enum ibv_wc_status status);
/* The name of the call, or "completion", that failed; NULL: none. */
const char *fake_verbs_fired(struct fake_verbs *f);
/* More than that many bytes pinned at that end: ENOMEM, as RLIMIT_MEMLOCK does it. 0: no limit. */
void fake_verbs_limit_pinned(struct fake_verbs *f, bool target, uint64_t bytes);
/* More than that many regions at that end: EAGAIN, as a control group's rdma.max does it. */
void fake_verbs_limit_regions(struct fake_verbs *f, bool target, uint32_t nr);
/* Ends of connections that can still write, or be written to. */
uint32_t fake_verbs_open_ends(struct fake_verbs *f);
void fake_verbs_on_demand(struct fake_verbs *f); /* the device has on-demand paging */
void fake_verbs_no_device(struct fake_verbs *f); /* resolve and bind find none */
void fake_verbs_no_route(struct fake_verbs *f);  /* an address resolves, a route does not */

/* From now on nothing completes: a silent hang. */
void fake_verbs_hang(struct fake_verbs *f);
/* What the hardware may come up with, on all connections. */
void fake_verbs_remove_device(struct fake_verbs *f);
void fake_verbs_overrun_cq(struct fake_verbs *f);
