/*
 * A cancellation token: one side asks, everything that blocks on behalf of the operation wakes up.
 *
 * Owned by whoever started the operation and outlives it. cancel_request() is safe from any thread
 * and from a signal handler; it cannot be taken back. Blocking waits poll cancel_fd() beside what
 * they wait for.
 */
#pragma once

#include <stdbool.h>

#include "vmm/base/err.h"

struct cancel;

int cancel_new(struct cancel **out, struct err *e);
void cancel_free(struct cancel *c);

void cancel_request(struct cancel *c);
bool cancel_requested(const struct cancel *c);

/* Readable (POLLIN) for ever once requested. Do not read from it. */
int cancel_fd(const struct cancel *c);

/* 0, or ERR_CANCELLED if requested. */
int cancel_check(const struct cancel *c, struct err *e);

/* Sleep until @deadline_ns (CLOCK_MONOTONIC) or cancellation, whichever is first. */
int cancel_sleep_until(const struct cancel *c, unsigned long long deadline_ns, struct err *e);
