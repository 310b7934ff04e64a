/*
 * The inside of virtio-blk, shared by blk.c (the device) and blk_requests.c (what the driver asks
 * of it), and nobody else.
 */
#pragma once

#include <linux/virtio_blk.h>

#include "vmm/block/disk_queue.h"
#include "vmm/block/disk_spec.h"
#include "vmm/virtio/virtio.h"

struct virtio_blk;

struct blk_queue {
	struct virtio_blk *blk;
	uint32_t index;
	struct disk_queue *io;
	struct io_watch watch;
	struct blk_request *idle; /* made before, in nobody's hands */
};

/* One chain of the driver's, and what it asks of the disk. */
struct blk_request {
	struct disk_request disk;
	struct blk_queue *queue;
	struct blk_request *next_idle;
	struct virtq_chain chain;
	struct iovec iov[VIRTQ_MAX_SIZE]; /* the chain's data, for the disk queue to consume */
};

struct virtio_blk {
	struct virtio_kind kind;
	/* immutable after new */
	struct disk *disk;
	struct virtio_blk_config config;
	uint32_t nr_queues;
	/* immutable while started */
	char serial[DISK_SERIAL_BYTES];
	/* owned by the I/O thread */
	bool write_through; /* the driver has no FLUSH: what is done is durable (5.2.6.2) */
	uint32_t nr_errors;
	struct blk_queue queues[DISK_MAX_QUEUES];
};

/* Both on the I/O thread, while the device is started. */

/* Take what the driver has put into the queue, and answer what is done. */
void blk_queue_run(struct blk_queue *q);
/* Requests have finished: answer them, and go on. */
void blk_queue_finished(struct blk_queue *q);
