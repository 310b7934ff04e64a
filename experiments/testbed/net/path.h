/* One direction between two ports of the switch: frames wait here while the path is slower than
 * they come. Owned by the switch's only thread. Times are CLOCK_MONOTONIC nanoseconds. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame {
	struct frame *next;
	uint32_t bytes;
	uint8_t data[];
};

struct path {
	bool cut;
	uint64_t rate;       /* bytes a second; 0: unlimited */
	uint64_t free_at_ns; /* when what was popped has been sent */
	struct frame *first, **last;
	uint64_t queued_bytes;
	uint64_t nr_dropped;
};

void path_init(struct path *p);

/* Cuts (dropping what waits) or joins. */
void path_cut(struct path *p, bool cut);

/* @rate in bytes a second, 0: unlimited. What waits goes on at the new rate. */
void path_rate(struct path *p, uint64_t rate);

/* Takes a copy of a frame, or drops it: the path is cut, or it is behind by more than a queue's
 * worth (50 ms of its rate, as tc-tbf's "latency 50ms"). */
void path_push(struct path *p, const void *data, uint32_t bytes, uint64_t now_ns);

/* The next frame that has been sent by @now_ns, else NULL; the caller frees it. */
struct frame *path_pop(struct path *p, uint64_t now_ns);

/* When path_pop() will have a frame; UINT64_MAX: none waits. */
uint64_t path_due_ns(const struct path *p);
