/*
 * Reading and writing a disk without waiting for it: requests go in, finished ones come out.
 *
 * A queue belongs to one thread at a time (a device's I/O thread; the controller while that one is
 * stopped) and is made and freed by the controller. Requests of one queue may finish in any order.
 * Below is an engine (vmm/block/engine.h): io_uring, or threads where the host forbids that.
 */
#pragma once

#include <stdint.h>
#include <sys/uio.h>

#include "vmm/block/disk.h"

enum disk_op {
	DISK_READ,
	DISK_WRITE,
	DISK_FLUSH,        /* what has finished before is durable when this one finishes */
	DISK_DISCARD,      /* the contents do not matter any more: a hint */
	DISK_WRITE_ZEROES, /* @unmap: they may take no space */
};

/* The submitter's; in the queue's hands from submit until done. */
struct disk_request {
	enum disk_op op;
	bool unmap;
	uint64_t offset; /* bytes; multiples of DISK_SECTOR_BYTES */
	uint64_t bytes;
	struct iovec *iov; /* READ, WRITE: @bytes of memory; changed on the way */
	int nr_iov;
	/* On the queue's thread, within reap or drain: 0 or the positive errno of what failed. May
	 * free the request and submit others. */
	void (*done)(struct disk_request *r, int error);
	/* The queue's. */
	uint64_t moved; /* of @bytes; @offset and @iov stand behind them */
	int64_t result;
	struct disk_request *next;
};

struct disk_queue;

/* @depth: how many requests it should take at once (more are taken, slower). */
int disk_queue_new(struct disk *d, uint32_t depth, struct disk_queue **out, struct err *e);
/* Nothing is in flight any more. */
void disk_queue_free(struct disk_queue *q);

/* 0: done will be called. Otherwise it will not: -EROFS (a write to a read-only disk), -EINVAL
 * (outside the disk, no whole sectors). The kernel need not see it before the next kick. */
int disk_queue_submit(struct disk_queue *q, struct disk_request *r);
void disk_queue_kick(struct disk_queue *q);

/* poll(2)s readable when reap has something to do. */
int disk_queue_fd(const struct disk_queue *q);
void disk_queue_reap(struct disk_queue *q);

uint32_t disk_queue_in_flight(const struct disk_queue *q);
/* Kick and reap until nothing is in flight. */
void disk_queue_drain(struct disk_queue *q);

/* "io_uring" or "threads". */
const char *disk_queue_engine(const struct disk_queue *q);
