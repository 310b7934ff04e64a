/*
 * The inside of struct virtio, shared by transport.c (life, queues, interrupts), mmio.c (the
 * device), mmio_registers.c and transport_state.c (save, load), and nobody else.
 *
 * Who owns the queues: the I/O thread while `started`, else whoever holds `lock`. They change hands
 * in io_thread_call(), so that no moment belongs to two. The I/O thread never takes `lock`: a vCPU
 * that waits for a reset to be carried out there holds it.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "vmm/dev/irq_line.h"
#include "vmm/device.h"
#include "vmm/machine.h"
#include "vmm/virtio/virtio.h"

struct virtio_queue_registers {
	struct virtq_layout at;
	bool ready;
};

struct virtio_registers {
	uint32_t status; /* without DEVICE_NEEDS_RESET, which is `broken` */
	uint32_t device_features_sel;
	uint32_t driver_features_sel;
	uint32_t queue_sel;
	uint64_t driver_features;
	struct virtio_queue_registers queues[VIRTIO_MAX_QUEUES];
};

struct virtio_kick {
	struct virtio *v;
	uint32_t index;
	struct io_watch watch;
};

struct virtio {
	struct device dev; /* first */

	/* immutable after new */
	struct dev_ops ops; /* dev.ops: type and versions are the kind's */
	const struct machine *m;
	struct virtio_kind *kind;
	struct io_thread *io;
	uint64_t features; /* offered */
	char name[VIRTIO_TYPE_BYTES + 12];
	struct virtio_kick kicks[VIRTIO_MAX_QUEUES];

	/* guarded by lock */
	pthread_mutex_t lock;
	struct virtio_registers regs;
	bool quiesced;
	bool started; /* the kind is; also the I/O thread's to read */

	/* see above */
	struct virtq *queues[VIRTIO_MAX_QUEUES];

	/* any thread */
	atomic_bool broken;
	atomic_uint generation;

	/* guarded by irq_lock, which is taken last */
	pthread_mutex_t irq_lock;
	uint32_t isr; /* InterruptStatus: VIRTIO_MMIO_INT_... */
	struct irq_line irq;
};

static inline struct virtio *to_virtio(const struct device *d)
{
	return (struct virtio *)(uintptr_t)d;
}

/* transport.c. With `lock` held. */

/* Make the queues that @regs calls ready, to go on at @next[] (NULL: from the beginning), into
 * @queues (all NULL before, and again after a failure). */
int virtio_make_queues(struct virtio *v, const struct virtio_registers *regs, const uint16_t *next,
		       struct virtq **queues, struct err *e);
void virtio_free_queues(struct virtq **queues);

/* The kind may work, if the driver has said DRIVER_OK and nothing is in the way. */
void virtio_start(struct virtio *v);
int virtio_stop(struct virtio *v, struct err *e);
/* The driver's reset, or the machine's: stops first. */
void virtio_reset(struct virtio *v);

/* Raise (@set) and take back interrupt causes. Any thread. */
void virtio_interrupt(struct virtio *v, uint32_t set, uint32_t clear);

/* mmio_registers.c. A 32-bit register at @offset of the window. With `lock` held. */
uint32_t virtio_read_register(struct virtio *v, uint64_t offset);
void virtio_write_register(struct virtio *v, uint64_t offset, uint32_t value);

/* transport_state.c: as in struct dev_ops. */
int virtio_save(const struct device *d, struct buf *out, struct err *e);
int virtio_load(struct device *d, uint32_t version, const uint8_t *data, size_t len, struct err *e);
