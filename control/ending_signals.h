/*
 * The signals that end a program in good order: SIGINT, SIGTERM, and SIGHUP unless nohup(1) has it
 * ignored, because such a program is to outlive its terminal. Loop thread.
 */
#pragma once

#include <uv.h>

#define ENDING_SIGNALS 3

struct ending_signals {
	uv_signal_t at[ENDING_SIGNALS];
};

/* @on_signal finds @data in its handle's data. */
void ending_signals_watch(struct ending_signals *s, uv_loop_t *loop, uv_signal_cb on_signal,
			  void *data);

/* The loop must run once more to finish this. */
void ending_signals_close(struct ending_signals *s);
