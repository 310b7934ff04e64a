/*
 * A byte-rate limit shared by the channels of a migration: a token bucket with 20 ms of burst.
 * Any thread. Lifted for the switch-over, when the guest waits.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/cancel.h"
#include "vmm/base/err.h"

struct rate_limit;

/* @bytes_per_s 0: no limit. */
int rate_limit_new(uint64_t bytes_per_s, const struct cancel *cancel, struct rate_limit **out,
		   struct err *e);
void rate_limit_free(struct rate_limit *r);

bool rate_limit_is_set(struct rate_limit *r);

/* Account for @bytes, sleeping until they are allowed; ERR_CANCELLED if cancelled meanwhile. */
int rate_limit_take(struct rate_limit *r, uint64_t bytes, struct err *e);

/* May be changed at any moment; 0 lifts it. */
void rate_limit_set(struct rate_limit *r, uint64_t bytes_per_s);
