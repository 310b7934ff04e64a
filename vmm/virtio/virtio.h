/*
 * What a virtio device is, apart from how it is reached: a kind (blk, net, rng, ...) fills in
 * struct virtio_ops; the transport (vmm/virtio/mmio.h) does registers, feature negotiation, queue
 * set-up, interrupts, reset, and the half of the state that all kinds share.
 *
 * Life of a kind, all on its I/O thread:
 *
 *	new -> [ start -> handle_queue ... -> stop ] ... -> free
 *
 * `start` comes when the driver sets DRIVER_OK and again after each pause, `stop` before a pause,
 * before state is saved and before a reset; between stop and start the kind touches neither guest
 * memory nor its queues, and no back-end descriptor of it is watched. `reset` (stopped) is the
 * driver's or the machine's reset: negotiated things are forgotten. A kind never sees a queue that
 * the driver has not made ready (virtio_queue() says NULL), nor a feature it has not offered.
 *
 * Threads: start, stop, handle_queue, reset and the watches are the I/O thread's. config_read and
 * config_write come from vCPU threads at any time: what they share with the I/O thread, the kind
 * guards. save, load and free come from the VM's controller while the device is stopped. The calls
 * that a kind makes (virtio_...) are for the I/O thread except where marked.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>

#include "vmm/base/buf.h"
#include "vmm/base/err.h"
#include "vmm/mem.h"
#include "vmm/virtio/io_thread.h"
#include "vmm/virtio/spec.h"
#include "vmm/virtio/virtqueue.h"

#define VIRTIO_BIT(feature) (1ull << (feature))

struct virtio;
struct virtio_kind;

struct virtio_ops {
	const char *type;       /* "virtio-rng"; the name in the stream, never changed */
	uint32_t device_id;     /* VIRTIO_ID_...; virtio 1.2, 5 */
	uint32_t queue_size;    /* the largest ring the driver may make */
	uint32_t state_version; /* of transport and kind together */
	uint32_t oldest_loadable;

	/* The first k->config_bytes of the configuration space; the range is inside. config_write
	 * may be NULL: nothing is writable. Any vCPU thread. */
	void (*config_read)(struct virtio_kind *k, uint32_t offset, void *data, uint32_t len);
	void (*config_write)(struct virtio_kind *k, uint32_t offset, const void *data,
			     uint32_t len);

	/* From here on queues may be used and descriptors watched. May be NULL. Every ready queue
	 * gets a handle_queue right after it, so nothing that waits is forgotten. */
	void (*start)(struct virtio_kind *k);
	/* Finish or put back (virtq_unpop) everything popped, push and flush it; watch nothing. A
	 * failure leaves the kind started and refuses the pause. May be NULL. */
	int (*stop)(struct virtio_kind *k, struct err *e);
	/* The driver has put something into queue @index (or may have). */
	void (*handle_queue)(struct virtio_kind *k, uint32_t index);
	/* Forget what was negotiated, and, should stop have failed, all that is in flight: when
	 * this returns, nothing touches the driver's memory. May be NULL. */
	void (*reset)(struct virtio_kind *k);

	/* The kind's own state, beyond transport and queues; both NULL: none. As in struct dev_ops:
	 * load validates everything, then assigns. */
	int (*save)(const struct virtio_kind *k, struct buf *out, struct err *e);
	int (*load)(struct virtio_kind *k, uint32_t version, const uint8_t *data, size_t len,
		    struct err *e);
	void (*free)(struct virtio_kind *k);
};

/* Embedded first in a kind's own struct. A constructor fills in all but @transport; immutable after
 * that. */
struct virtio_kind {
	const struct virtio_ops *ops;
	uint64_t features;     /* offered, the kind's own bits; the transport adds its own */
	uint32_t nr_queues;    /* up to VIRTIO_MAX_QUEUES */
	uint32_t config_bytes; /* up to VIRTIO_MAX_CONFIG_BYTES */
	struct virtio *transport;
};

/* Instances count from 0 among devices of one type. @face is NULL for a machine of our own. Opens
 * the back end but starts nothing; @spec is not kept. */
typedef int (*virtio_kind_new_fn)(const char *spec, uint32_t instance,
				  const struct virtio_face *face, struct virtio_kind **out,
				  struct err *e);

/* ---- What a kind asks of its transport ---- */

/* NULL: the driver has not made it ready. */
struct virtq *virtio_queue(struct virtio *v, uint32_t index);
bool virtio_has(const struct virtio *v, uint32_t feature); /* negotiated; VIRTIO_..._F_... */
struct guest_mem *virtio_mem(const struct virtio *v);      /* any thread */
struct io_thread *virtio_io(const struct virtio *v);       /* any thread */
/* The configuration space has changed: generation and interrupt. Any thread; not in config_write.
 */
void virtio_config_changed(struct virtio *v);
/* The driver did what cannot be right: DEVICE_NEEDS_RESET; logged once. @why for people. */
void virtio_broken(struct virtio *v, const char *why);
/* "virtio-blk 0", for messages. Any thread. */
const char *virtio_name(const struct virtio *v);
