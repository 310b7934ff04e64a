#include "vmm/virtio/mmio.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/virtio/transport.h"

#define TRANSPORT_FEATURES                                                          \
	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC) | \
	 VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX))

/* ---- The window ---- */

/* The part of [offset, offset + len) that is configuration space; 0: none. */
static uint32_t in_config(const struct virtio *v, uint64_t offset, uint32_t len)
{
	uint64_t end = VIRTIO_MMIO_CONFIG + v->kind->config_bytes;

	if (offset < VIRTIO_MMIO_CONFIG || offset >= end)
		return 0;
	return offset + len <= end ? len : (uint32_t)(end - offset);
}

static void window_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct virtio *v = ctx;
	uint32_t nr = in_config(v, offset, len);
	uint32_t value;

	memset(data, 0, len);
	pthread_mutex_lock(&v->lock);
	if (nr) {
		v->kind->ops->config_read(v->kind, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data,
					  nr);
	} else if (len == sizeof(value) && offset < VIRTIO_MMIO_CONFIG) { /* 4.2.2.2 */
		value = virtio_read_register(v, offset);
		memcpy(data, &value, sizeof(value));
	}
	pthread_mutex_unlock(&v->lock);
}

static void window_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct virtio *v = ctx;
	uint32_t nr = in_config(v, offset, len);
	uint32_t value;

	pthread_mutex_lock(&v->lock);
	if (nr && v->kind->ops->config_write) {
		v->kind->ops->config_write(v->kind, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data,
					   nr);
	} else if (!nr && len == sizeof(value) && offset < VIRTIO_MMIO_CONFIG) {
		memcpy(&value, data, sizeof(value));
		virtio_write_register(v, offset, value);
	}
	pthread_mutex_unlock(&v->lock);
}

static const struct bus_ops window_ops = {.read = window_read, .write = window_write};

/* ---- A device of the machine ---- */

static void mmio_reset(struct device *d)
{
	struct virtio *v = to_virtio(d);

	pthread_mutex_lock(&v->lock);
	virtio_reset(v);
	pthread_mutex_unlock(&v->lock);
}

static int mmio_quiesce(struct device *d, struct err *e)
{
	struct virtio *v = to_virtio(d);
	int ret;

	pthread_mutex_lock(&v->lock);
	ret = virtio_stop(v, e);
	if (ret == 0)
		v->quiesced = true;
	pthread_mutex_unlock(&v->lock);
	return ret;
}

static void mmio_unquiesce(struct device *d)
{
	struct virtio *v = to_virtio(d);

	pthread_mutex_lock(&v->lock);
	v->quiesced = false;
	virtio_start(v);
	pthread_mutex_unlock(&v->lock);
}

static void mmio_free(struct device *d)
{
	struct virtio *v = to_virtio(d);
	struct err e = ERR_INIT;

	if (v->io)
		virtio_stop(v, &e);
	io_thread_free(v->io);
	virtio_free_queues(v->queues);
	for (uint32_t i = 0; i < VIRTIO_MAX_QUEUES; i++)
		if (v->kicks[i].watch.fd >= 0)
			close(v->kicks[i].watch.fd);
	v->kind->ops->free(v->kind);
	pthread_mutex_destroy(&v->irq_lock);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

uint32_t virtio_mmio_base(uint32_t slot)
{
	return VIRTIO_MMIO_BASE + slot * VIRTIO_MMIO_BYTES;
}

uint32_t virtio_mmio_gsi(uint32_t slot)
{
	/* Not among them: 0 the PIT, 1 and 12 the keyboard controller, 2 the cascade (the PIT
	 * again, by the MADT), 4 serial, 8 the clock, 9 the SCI, 13 the FPU. */
	static const uint8_t gsis[VIRTIO_MAX_DEVICES] = {16, 17, 18, 19, 20, 21, 22, 23,
							 5,  6,  7,  10, 11, 3,  14, 15};

	return gsis[slot % VIRTIO_MAX_DEVICES];
}

/* ---- Making one ---- */

static int choose_features(struct virtio *v, const struct virtio_face *face, struct err *e)
{
	uint64_t missing;

	v->features = v->kind->features | TRANSPORT_FEATURES;
	if (!face)
		return 0;
	missing = face->features & ~v->features;
	if (missing)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "%s: the guest was offered features 0x%" PRIx64
			       " (virtio feature bits), which this host cannot offer",
			       v->name, missing);
	if (face->nr_queues != v->kind->nr_queues || face->config_bytes != v->kind->config_bytes)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "%s: the guest knows it with %u queues and %u bytes of "
			       "configuration, here it has %u and %u",
			       v->name, face->nr_queues, face->config_bytes, v->kind->nr_queues,
			       v->kind->config_bytes);
	v->features = face->features;
	return 0;
}

static int kick_by_eventfd(struct virtio *v, uint32_t base, struct err *e)
{
	int ret = 0;

	for (uint32_t i = 0; i < v->kind->nr_queues && ret == 0; i++) {
		struct virtio_kick *k = &v->kicks[i];

		k->v = v;
		k->index = i;
		k->watch.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (k->watch.fd < 0)
			return err_sys(e, "cannot make an eventfd (raise `ulimit -n`?)");
		if (v->m->add_ioeventfd)
			ret = v->m->add_ioeventfd(v->m->ctx, base + VIRTIO_MMIO_QUEUE_NOTIFY, i,
						  k->watch.fd, e);
	}
	return ret;
}

static int build(struct virtio *v, const struct virtio_face *face, uint32_t slot, struct err *e)
{
	uint32_t base = virtio_mmio_base(slot);
	int ret = choose_features(v, face, e);

	if (ret == 0)
		ret = kick_by_eventfd(v, base, e);
	if (ret == 0)
		ret = io_thread_new(v->name + strlen("virtio-"), &v->io, e);
	if (ret == 0)
		ret = bus_add(v->m->bus, BUS_MMIO, base, VIRTIO_MMIO_BYTES, v->kind->ops->type,
			      &window_ops, v, e);
	return ret;
}

static struct dev_ops device_ops(const struct virtio_ops *kind)
{
	return (struct dev_ops){.type = kind->type,
				.state_version = kind->state_version,
				.oldest_loadable = kind->oldest_loadable,
				.reset = mmio_reset,
				.quiesce = mmio_quiesce,
				.unquiesce = mmio_unquiesce,
				.save = virtio_save,
				.load = virtio_load,
				.free = mmio_free};
}

int virtio_mmio_new(const struct machine *m, struct virtio_kind *kind, uint32_t slot,
		    uint32_t instance, const struct virtio_face *face, struct device **out,
		    struct err *e)
{
	struct virtio *v = calloc(1, sizeof(*v));
	int ret;

	if (!v) {
		kind->ops->free(kind);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for %s", kind->ops->type);
	}
	v->ops = device_ops(kind->ops);
	v->dev = (struct device){.ops = &v->ops, .instance = instance};
	v->m = m;
	v->kind = kind;
	v->irq = (struct irq_line){.m = m, .gsi = virtio_mmio_gsi(slot)};
	kind->transport = v;
	snprintf(v->name, sizeof(v->name), "%s %u", kind->ops->type, instance);
	for (uint32_t i = 0; i < VIRTIO_MAX_QUEUES; i++)
		v->kicks[i].watch.fd = -1;
	pthread_mutex_init(&v->lock, NULL);
	pthread_mutex_init(&v->irq_lock, NULL);
	ret = build(v, face, slot, e);
	if (ret < 0) {
		mmio_free(&v->dev);
		return ret;
	}
	*out = &v->dev;
	return 0;
}

void virtio_mmio_face(const struct device *d, struct virtio_face *face)
{
	struct virtio *v = to_virtio(d);

	*face = (struct virtio_face){.features = v->features,
				     .nr_queues = v->kind->nr_queues,
				     .config_bytes = v->kind->config_bytes};
	pthread_mutex_lock(&v->lock);
	if (face->config_bytes)
		v->kind->ops->config_read(v->kind, 0, face->config, face->config_bytes);
	pthread_mutex_unlock(&v->lock);
}

struct virtio_kind *virtio_mmio_kind(const struct device *d)
{
	return to_virtio(d)->kind;
}
