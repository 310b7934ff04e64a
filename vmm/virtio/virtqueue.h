/*
 * A split virtqueue, the device's side (virtio 1.2, 2.7), over guest memory.
 *
 * The driver is hostile: every address, length and index it gives is checked before it is used, and
 * a ring that cannot be right breaks the queue (and the device: DEVICE_NEEDS_RESET) instead of
 * being guessed at. A broken queue yields nothing and takes nothing until the driver resets the
 * device; nothing outside the guest's own RAM is ever touched.
 *
 * One thread at a time, the device's I/O thread, which owns the queue while the device is started.
 *
 * What a device does with a queue, in one turn:
 *
 *	do {
 *		virtq_kicks_off(q);
 *		while (virtq_pop(q, &chain) > 0)
 *			virtq_push(q, &chain, work(&chain));   // now, or later when it is done
 *	} while (virtq_kicks_on(q));
 *	virtq_flush(q);
 *
 * Dirty pages (vmm/mem.h): virtq_push() marks what the device wrote into the chain, and the ring's
 * own writes are marked here too, each after the write. A device marks nothing itself.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/base/err.h"
#include "vmm/mem.h"

/* The largest ring, and so the longest chain a driver may make (2.7.5.3.1: no longer than the
 * queue). */
#define VIRTQ_MAX_SIZE 256

struct virtq;

/* Where the driver put a ring. */
struct virtq_layout {
	uint32_t size;     /* descriptors; a power of two up to VIRTQ_MAX_SIZE */
	uint64_t desc_gpa; /* 16-byte aligned */
	uint64_t avail_gpa;
	uint64_t used_gpa;
};

struct virtq_owner {
	void (*interrupt)(void *ctx); /* "used buffers" notification */
	void (*broken)(void *ctx, const char *why);
	void *ctx;
};

/*
 * One request: a descriptor chain as addresses in this process. iov[0..nr_out) is what the driver
 * wrote for the device, iov[nr_out..nr_out + nr_in) what the device may fill in. The memory is the
 * guest's and may change at any moment: read a field once. The descriptors have been copied, so the
 * addresses and lengths do not change. Owned by the device; may be kept after the next pop, until
 * it is pushed (or forgotten, when the device is reset).
 */
struct virtq_chain {
	uint16_t head;
	uint16_t nr_out;
	uint16_t nr_in;
	uint32_t out_bytes; /* sums; a chain of 4 GiB and more breaks the queue */
	uint32_t in_bytes;
	struct iovec iov[VIRTQ_MAX_SIZE];
};

static inline struct iovec *virtq_out(struct virtq_chain *c)
{
	return c->iov;
}

static inline struct iovec *virtq_in(struct virtq_chain *c)
{
	return c->iov + c->nr_out;
}

/* Is all of that ring RAM, aligned and of a possible size? */
int virtq_check(const struct guest_mem *mem, const struct virtq_layout *at, struct err *e);

/* A queue over a ring that passes virtq_check(). @next is the index of the next chain in both
 * rings: 0, or what virtq_next() said before a migration. @event_idx: VIRTIO_F_EVENT_IDX was
 * negotiated. */
int virtq_new(struct guest_mem *mem, const struct virtq_layout *at, uint16_t next, bool event_idx,
	      const struct virtq_owner *owner, struct virtq **out, struct err *e);
void virtq_free(struct virtq *q);

/* The next chain: 1 and @c filled in, 0 none is waiting, negative: the queue is broken. */
int virtq_pop(struct virtq *q, struct virtq_chain *c);

/* Put the chain popped last back, as if it had not been popped. Several: last first. Only while
 * none popped after it is outstanding. What a device holds without working on it goes back this way
 * when the device is stopped. */
void virtq_unpop(struct virtq *q);

/* Return @c to the driver: the first @written of its writable bytes were (or may have been)
 * written. The driver sees it at the next flush; several pushes before one flush appear at once.
 */
void virtq_push(struct virtq *q, const struct virtq_chain *c, uint32_t written);

/* Make what was pushed visible, and interrupt the driver if it wants to know. */
void virtq_flush(struct virtq *q);

/* Ask the driver not to kick, as long as the device is looking anyway. virtq_kicks_on() asks for
 * kicks again and says whether chains have come meanwhile: if so, look again. */
void virtq_kicks_off(struct virtq *q);
bool virtq_kicks_on(struct virtq *q);

/* Is a chain waiting? */
bool virtq_waiting(struct virtq *q);

/* Popped and not pushed. */
uint32_t virtq_in_flight(const struct virtq *q);

/* The index to go on from elsewhere; only when nothing is in flight and everything is flushed. */
uint16_t virtq_next(const struct virtq *q);

uint32_t virtq_size(const struct virtq *q);

/* Copy out of the driver's bytes, into the device's; from @offset on, at most @len bytes. Return
 * how many. */
size_t virtq_read(const struct virtq_chain *c, size_t offset, void *data, size_t len);
size_t virtq_write(const struct virtq_chain *c, size_t offset, const void *data, size_t len);
