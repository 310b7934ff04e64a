/*
 * One deadline with a thread that waits for it. A device owns it; the thread sleeps without a
 * timeout until a deadline is set, so an unused timer costs no wake-ups.
 *
 * Lock order: the device's lock, then the timer's. dev_timer_set() may be called with the device's
 * lock held; @fire is called without the timer's.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"

#define DEV_TIMER_NEVER UINT64_MAX

struct dev_timer;

typedef void (*dev_timer_fn)(void *ctx);

int dev_timer_new(const char *name, dev_timer_fn fire, void *ctx, struct dev_timer **out,
		  struct err *e);
/* Joins the thread: @fire is not running and will not be called again. NULL is allowed. */
void dev_timer_free(struct dev_timer *t);

/* Call @fire once when CLOCK_MONOTONIC reaches @deadline_ns; replaces the deadline set before. Any
 * thread, @fire included. */
void dev_timer_set(struct dev_timer *t, uint64_t deadline_ns);
