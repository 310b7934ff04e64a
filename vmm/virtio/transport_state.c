/* A virtio device's state as bytes and back: VirtioState, proto/virtio.proto. */
#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_mmio.h>

#include "proto/virtio.pb-c.h"
#include "vmm/dev/state_message.h"
#include "vmm/virtio/transport.h"

#define STATUS_ALL                                                                          \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK | \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET)
#define ISR_ALL (VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG)

/* ---- Saving ---- */

static void fill_queue(const struct virtio *v, uint32_t i, Godwit__VirtioQueueState *m)
{
	const struct virtio_queue_registers *q = &v->regs.queues[i];

	godwit__virtio_queue_state__init(m);
	m->has_ready = m->has_size = m->has_desc_gpa = m->has_avail_gpa = m->has_used_gpa = true;
	m->has_next = true;
	m->ready = q->ready;
	m->size = q->at.size;
	m->desc_gpa = q->at.desc_gpa;
	m->avail_gpa = q->at.avail_gpa;
	m->used_gpa = q->at.used_gpa;
	m->next = v->queues[i] ? virtq_next(v->queues[i]) : 0;
}

static void fill(const struct virtio *v, Godwit__VirtioState *m)
{
	m->has_status = m->has_device_features_sel = m->has_driver_features_sel = true;
	m->has_queue_sel = m->has_driver_features = m->has_isr = m->has_generation = true;
	m->has_kind = true;
	m->status = v->regs.status;
	if (atomic_load(&v->broken))
		m->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	m->device_features_sel = v->regs.device_features_sel;
	m->driver_features_sel = v->regs.driver_features_sel;
	m->queue_sel = v->regs.queue_sel;
	m->driver_features = v->regs.driver_features;
	m->isr = v->isr;
	m->generation = atomic_load(&v->generation);
}

/* Without locks: vCPUs are paused and the kind is stopped. */
int virtio_save(const struct device *d, struct buf *out, struct err *e)
{
	const struct virtio *v = to_virtio(d);
	Godwit__VirtioState m = GODWIT__VIRTIO_STATE__INIT;
	Godwit__VirtioQueueState queues[VIRTIO_MAX_QUEUES];
	Godwit__VirtioQueueState *list[VIRTIO_MAX_QUEUES];
	struct buf kind = BUF_INIT;
	int ret = v->kind->ops->save ? v->kind->ops->save(v->kind, &kind, e) : 0;

	fill(v, &m);
	for (uint32_t i = 0; i < v->kind->nr_queues; i++) {
		list[i] = &queues[i];
		fill_queue(v, i, list[i]);
	}
	m.n_queues = v->kind->nr_queues;
	m.queues = list;
	m.kind = (ProtobufCBinaryData){.len = kind.len, .data = kind.data};
	if (ret == 0)
		ret = state_message_pack(&m.base, out, e);
	buf_fini(&kind);
	return ret;
}

/* ---- Loading ---- */

static const struct state_limit limits[] = {
	{"status", STATUS_ALL},
	{"isr", ISR_ALL},
	{NULL, 0},
};

static int impossible(const struct virtio *v, const char *what, uint64_t value, struct err *e)
{
	return err_set(e, ERR_STREAM, EBADMSG, "%s state: %s 0x%" PRIx64 " is impossible", v->name,
		       what, value);
}

static int check_status(const struct virtio *v, const Godwit__VirtioState *m, struct err *e)
{
	bool accepted = m->status & VIRTIO_CONFIG_S_FEATURES_OK;

	if (m->status & ~(uint32_t)STATUS_ALL)
		return impossible(v, "status", m->status, e);
	if ((m->status & VIRTIO_CONFIG_S_DRIVER_OK) && !accepted &&
	    !(m->status & VIRTIO_CONFIG_S_NEEDS_RESET))
		return impossible(v, "status", m->status, e);
	if (accepted && ((m->driver_features & ~v->features) ||
			 !(m->driver_features & VIRTIO_BIT(VIRTIO_F_VERSION_1))))
		return impossible(v, "features", m->driver_features, e);
	if (m->n_queues != v->kind->nr_queues)
		return impossible(v, "number of queues", m->n_queues, e);
	return 0;
}

static int parse_queue(const struct virtio *v, const Godwit__VirtioQueueState *m,
		       struct virtio_queue_registers *q, struct err *e)
{
	if (!m->has_ready || !m->has_size || !m->has_desc_gpa || !m->has_avail_gpa ||
	    !m->has_used_gpa || !m->has_next)
		return err_set(e, ERR_STREAM, EBADMSG, "%s state: a queue lacks fields", v->name);
	*q = (struct virtio_queue_registers){.ready = m->ready,
					     .at = {.size = m->size,
						    .desc_gpa = m->desc_gpa,
						    .avail_gpa = m->avail_gpa,
						    .used_gpa = m->used_gpa}};
	if (m->next > UINT16_MAX)
		return impossible(v, "queue index", m->next, e);
	if (!q->ready)
		return 0;
	if (q->at.size > v->kind->ops->queue_size)
		return impossible(v, "queue size", q->at.size, e);
	return virtq_check(v->m->mem, &q->at, e);
}

static int parse(struct virtio *v, const Godwit__VirtioState *m, struct virtio_registers *regs,
		 uint16_t *next, struct err *e)
{
	int ret = check_status(v, m, e);

	for (uint32_t i = 0; ret == 0 && i < v->kind->nr_queues; i++) {
		ret = parse_queue(v, m->queues[i], &regs->queues[i], e);
		next[i] = (uint16_t)m->queues[i]->next;
	}
	regs->status = m->status & ~(uint32_t)VIRTIO_CONFIG_S_NEEDS_RESET;
	regs->device_features_sel = m->device_features_sel;
	regs->driver_features_sel = m->driver_features_sel;
	regs->queue_sel = m->queue_sel;
	regs->driver_features = m->driver_features;
	return ret;
}

static int load_kind(struct virtio *v, uint32_t version, const ProtobufCBinaryData *bytes,
		     struct err *e)
{
	if (v->kind->ops->load)
		return v->kind->ops->load(v->kind, version, bytes->data, bytes->len, e);
	return bytes->len ? impossible(v, "length of its kind's state", bytes->len, e) : 0;
}

static void assign(struct virtio *v, const Godwit__VirtioState *m,
		   const struct virtio_registers *regs, struct virtq *const *queues)
{
	virtio_free_queues(v->queues);
	for (uint32_t i = 0; i < VIRTIO_MAX_QUEUES; i++)
		v->queues[i] = queues[i];
	v->regs = *regs;
	atomic_store(&v->broken, m->status & VIRTIO_CONFIG_S_NEEDS_RESET);
	atomic_store(&v->generation, m->generation);
	v->isr = m->isr;
	irq_line_load(&v->irq, v->isr != 0);
	/* Until unquiesce, so that what is loaded stays what was saved. */
	v->quiesced = true;
}

static int load_message(struct virtio *v, uint32_t version, const Godwit__VirtioState *m,
			struct err *e)
{
	struct virtio_registers regs = {.status = 0};
	struct virtq *queues[VIRTIO_MAX_QUEUES] = {NULL};
	uint16_t next[VIRTIO_MAX_QUEUES];
	int ret = parse(v, m, &regs, next, e);

	if (ret == 0 && (regs.status & VIRTIO_CONFIG_S_DRIVER_OK))
		ret = virtio_make_queues(v, &regs, next, queues, e);
	if (ret == 0)
		ret = load_kind(v, version, &m->kind, e);
	if (ret == 0)
		assign(v, m, &regs, queues);
	else
		virtio_free_queues(queues);
	return ret;
}

int virtio_load(struct device *d, uint32_t version, const uint8_t *data, size_t len, struct err *e)
{
	struct virtio *v = to_virtio(d);
	ProtobufCMessage *m;
	int ret = state_message_unpack(d->ops->type, &godwit__virtio_state__descriptor, limits,
				       data, len, &m, e);

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&v->lock);
	ret = v->started ? err_set(e, ERR_STATE, EBUSY, "%s is not quiesced", v->name)
			 : load_message(v, version, (const Godwit__VirtioState *)m, e);
	pthread_mutex_unlock(&v->lock);
	protobuf_c_message_free_unpacked(m, NULL);
	return ret;
}
