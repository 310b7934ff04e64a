/* The registers of virtio 1.2, 4.2.2, and what the driver's writes to them set off. On vCPU
 * threads. */
#include <linux/virtio_mmio.h>
#include <unistd.h>

#include "vmm/virtio/transport.h"

#define MAGIC     0x74726976u /* "virt" */
#define VERSION   2
#define VENDOR    0x54445747u /* "GWDT" */
#define NO_REGION UINT32_MAX  /* 4.2.2: the length of a shared memory region that is not there */
#define STATUS_ALL                                                                          \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK | \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

/* The selected queue's; a queue that does not exist reads as zeroes and takes nothing. */
static struct virtio_queue_registers *selected(struct virtio *v)
{
	return v->regs.queue_sel < v->kind->nr_queues ? &v->regs.queues[v->regs.queue_sel] : NULL;
}

static uint32_t read_status(const struct virtio *v)
{
	return v->regs.status | (atomic_load(&v->broken) ? VIRTIO_CONFIG_S_NEEDS_RESET : 0);
}

static uint32_t read_isr(struct virtio *v)
{
	uint32_t isr;

	pthread_mutex_lock(&v->irq_lock);
	isr = v->isr;
	pthread_mutex_unlock(&v->irq_lock);
	return isr;
}

uint32_t virtio_read_register(struct virtio *v, uint64_t offset)
{
	struct virtio_queue_registers *q = selected(v);

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return v->kind->ops->device_id;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return v->regs.device_features_sel > 1
			       ? 0
			       : (uint32_t)(v->features >> (32 * v->regs.device_features_sel));
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return q ? v->kind->ops->queue_size : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return q && q->ready;
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return read_isr(v);
	case VIRTIO_MMIO_STATUS:
		return read_status(v);
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return NO_REGION;
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return atomic_load(&v->generation);
	default: /* write-only, or not there */
		return 0;
	}
}

static void set_half(uint64_t *value, bool high, uint32_t half)
{
	uint32_t shift = high ? 32 : 0;

	*value = (*value & ~(0xffffffffull << shift)) | (uint64_t)half << shift;
}

/* 3.1.1: FEATURES_OK stays clear when the driver wants what was not offered, or the interface of
 * before version 1.0, which this is not. */
static bool features_acceptable(const struct virtio *v)
{
	return !(v->regs.driver_features & ~v->features) &&
	       (v->regs.driver_features & VIRTIO_BIT(VIRTIO_F_VERSION_1));
}

static void driver_ok(struct virtio *v)
{
	struct err e = ERR_INIT;

	if (!(v->regs.status & VIRTIO_CONFIG_S_FEATURES_OK))
		virtio_broken(v, "DRIVER_OK without FEATURES_OK");
	else if (virtio_make_queues(v, &v->regs, NULL, v->queues, &e) < 0)
		virtio_broken(v, e.msg);
	else
		virtio_start(v);
}

/* The driver adds bits one after the other; only a reset takes any away (2.1.1). */
static void write_status(struct virtio *v, uint32_t value)
{
	uint32_t added = value & STATUS_ALL & ~v->regs.status;

	if (value == 0) {
		virtio_reset(v);
		return;
	}
	if ((added & VIRTIO_CONFIG_S_FEATURES_OK) && !features_acceptable(v))
		added &= ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
	v->regs.status |= added;
	if (added & VIRTIO_CONFIG_S_DRIVER_OK)
		driver_ok(v);
}

static void write_driver_features(struct virtio *v, uint32_t value)
{
	if (!(v->regs.status & VIRTIO_CONFIG_S_FEATURES_OK) && v->regs.driver_features_sel <= 1)
		set_half(&v->regs.driver_features, v->regs.driver_features_sel, value);
}

/* A queue goes out of use while the device goes on. */
static void retire_queue(struct virtio *v, struct virtio_queue_registers *q)
{
	uint32_t index = v->regs.queue_sel;
	struct err e = ERR_INIT;

	if (virtio_stop(v, &e) < 0) {
		virtio_broken(v, e.msg);
		return;
	}
	virtq_free(v->queues[index]);
	v->queues[index] = NULL;
	q->ready = false;
	virtio_start(v);
}

static void write_queue_ready(struct virtio *v, struct virtio_queue_registers *q, uint32_t value)
{
	struct err e = ERR_INIT;

	if (!(value & 1)) {
		if (q->ready)
			retire_queue(v, q);
		return;
	}
	/* After DRIVER_OK queues come only by way of a reset (3.1.1, 7). */
	if (q->ready || (v->regs.status & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	if (q->at.size > v->kind->ops->queue_size)
		virtio_broken(v, "a queue larger than it may be");
	else if (virtq_check(v->m->mem, &q->at, &e) < 0)
		virtio_broken(v, e.msg);
	else
		q->ready = true;
}

static void write_queue_register(struct virtio *v, uint64_t offset, uint32_t value)
{
	struct virtio_queue_registers *q = selected(v);

	if (!q)
		return;
	if (offset == VIRTIO_MMIO_QUEUE_READY) {
		write_queue_ready(v, q, value);
		return;
	}
	if (q->ready)
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		q->at.size = value;
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_half(&q->at.desc_gpa, offset & 4, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_half(&q->at.avail_gpa, offset & 4, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_half(&q->at.used_gpa, offset & 4, value);
		break;
	default:
		break;
	}
}

/* Only where KVM does not do it (mmio.c, kick_by_eventfd()). */
static void kick(struct virtio *v, uint32_t index)
{
	const uint64_t one = 1;

	if (index < v->kind->nr_queues) {
		/* Full means kicked. */
		ssize_t ignored = write(v->kicks[index].watch.fd, &one, sizeof(one));

		(void)ignored;
	}
}

void virtio_write_register(struct virtio *v, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		v->regs.device_features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		write_driver_features(v, value);
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		v->regs.driver_features_sel = value;
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		v->regs.queue_sel = value;
		break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		kick(v, value);
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		virtio_interrupt(v, 0, value);
		break;
	case VIRTIO_MMIO_STATUS:
		write_status(v, value);
		break;
	default:
		write_queue_register(v, offset, value);
		break;
	}
}
