/*
 * The signals that end a program in good order: SIGINT, SIGTERM, and SIGHUP unless nohup(1) has it
 * ignored, because such a program is to outlive its terminal. For a libuv loop (its thread), or as
 * a descriptor for those who have none.
 */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "vmm/base/err.h"

#define ENDING_SIGNALS 3

struct ending_signals {
	uv_signal_t at[ENDING_SIGNALS];
};

/* @on_signal finds @data in its handle's data. */
void ending_signals_watch(struct ending_signals *s, uv_loop_t *loop, uv_signal_cb on_signal,
			  void *data);

/* The loop must run once more to finish this. */
void ending_signals_close(struct ending_signals *s);

/* From here on the signals are read (signalfd(2)), not suffered: the descriptor, to be closed, or a
 * negative errno. Before the first thread, which would suffer them. */
int ending_signals_open(struct err *e);
/* Has one come? It is taken; more may be there. */
bool ending_signals_take(int fd);
