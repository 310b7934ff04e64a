/*
 * What carries out a disk queue's requests. An engine does one system call's worth of work for
 * each: short transfers and refusals are its queue's business (disk_queue.c). Owned by one queue,
 * used by that queue's thread.
 */
#pragma once

#include "vmm/block/disk_queue.h"

struct disk_engine;

struct disk_engine_ops {
	const char *name;
	/* Always takes it. */
	void (*submit)(struct disk_engine *g, struct disk_request *r);
	void (*kick)(struct disk_engine *g);
	/* One that has ended, NULL if none; @result is what its system call gave: bytes, or a
	 * negative errno. */
	struct disk_request *(*next)(struct disk_engine *g, int64_t *result);
	/* Until next() has one; something is in flight and has been kicked. */
	void (*wait)(struct disk_engine *g);
	void (*free)(struct disk_engine *g);
};

/* Embedded first in an engine's own struct. */
struct disk_engine {
	const struct disk_engine_ops *ops;
	int poll_fd; /* readable when next() has one */
};

/* ERR_UNSUPPORTED where the host has or allows no io_uring. */
int disk_engine_uring_new(int fd, uint32_t depth, struct disk_engine **out, struct err *e);
int disk_engine_threads_new(int fd, uint32_t nr_threads, struct disk_engine **out, struct err *e);

/* A queue over @g, which it takes over, also on failure. */
int disk_queue_over(struct disk *d, struct disk_engine *g, struct disk_queue **out, struct err *e);

/* fallocate(2)'s mode for DISCARD and WRITE_ZEROES. */
int disk_engine_fallocate_mode(const struct disk_request *r);
