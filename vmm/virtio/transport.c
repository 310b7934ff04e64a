/* What is common to all virtio devices, whichever way their registers are reached. */
#include "vmm/virtio/transport.h"

#include <errno.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "vmm/base/log.h"

/* ---- Interrupts ---- */

void virtio_interrupt(struct virtio *v, uint32_t set, uint32_t clear)
{
	pthread_mutex_lock(&v->irq_lock);
	v->isr = (v->isr | set) & ~clear;
	irq_line_set(&v->irq, v->isr != 0);
	pthread_mutex_unlock(&v->irq_lock);
}

void virtio_config_changed(struct virtio *v)
{
	atomic_fetch_add(&v->generation, 1);
	virtio_interrupt(v, VIRTIO_MMIO_INT_CONFIG, 0);
}

/* 2.1.2: NEEDS_RESET is announced as a configuration change. */
void virtio_broken(struct virtio *v, const char *why)
{
	if (atomic_exchange(&v->broken, true))
		return;
	log_warning("%s does nothing until the guest resets it: %s", v->name, why);
	virtio_interrupt(v, VIRTIO_MMIO_INT_CONFIG, 0);
}

/* ---- Queues ---- */

static void on_used(void *ctx)
{
	virtio_interrupt(ctx, VIRTIO_MMIO_INT_VRING, 0);
}

static void on_broken(void *ctx, const char *why)
{
	virtio_broken(ctx, why);
}

void virtio_free_queues(struct virtq **queues)
{
	for (uint32_t i = 0; i < VIRTIO_MAX_QUEUES; i++) {
		virtq_free(queues[i]);
		queues[i] = NULL;
	}
}

int virtio_make_queues(struct virtio *v, const struct virtio_registers *regs, const uint16_t *next,
		       struct virtq **queues, struct err *e)
{
	const struct virtq_owner owner = {.interrupt = on_used, .broken = on_broken, .ctx = v};
	bool event_idx = regs->driver_features & VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX);
	int ret = 0;

	for (uint32_t i = 0; i < v->kind->nr_queues && ret == 0; i++)
		if (regs->queues[i].ready)
			ret = virtq_new(v->m->mem, &regs->queues[i].at, next ? next[i] : 0,
					event_idx, &owner, &queues[i], e);
	if (ret < 0)
		virtio_free_queues(queues);
	return ret;
}

static void serve(struct virtio *v, uint32_t index)
{
	if (v->queues[index] && !atomic_load(&v->broken))
		v->kind->ops->handle_queue(v->kind, index);
}

static void on_kick(void *ctx, uint32_t events)
{
	struct virtio_kick *kick = ctx;
	uint64_t count;

	(void)events;
	if (read(kick->watch.fd, &count, sizeof(count)) > 0)
		serve(kick->v, kick->index);
}

static int watch_kicks(struct virtio *v, uint32_t events, struct err *e)
{
	int ret = 0;

	for (uint32_t i = 0; i < v->kind->nr_queues && ret == 0; i++) {
		v->kicks[i].watch.ready = on_kick;
		v->kicks[i].watch.ctx = &v->kicks[i];
		ret = io_thread_watch(v->io, &v->kicks[i].watch, v->queues[i] ? events : 0, e);
	}
	return ret;
}

/* ---- Starting and stopping: on the I/O thread ---- */

static int start_here(void *ctx, struct err *e)
{
	struct virtio *v = ctx;
	struct err other = ERR_INIT;
	int ret = watch_kicks(v, EPOLLIN, e);

	if (ret < 0) {
		watch_kicks(v, 0, &other);
		return ret;
	}
	if (v->kind->ops->start)
		v->kind->ops->start(v->kind);
	/* What was put there before there was anybody to hear the kick. */
	for (uint32_t i = 0; i < v->kind->nr_queues; i++)
		serve(v, i);
	return 0;
}

/* A promise of `stop`: what is in flight would neither be saved nor finished. */
static int check_nothing_in_flight(const struct virtio *v, struct err *e)
{
	for (uint32_t i = 0; i < v->kind->nr_queues; i++)
		if (v->queues[i] && !atomic_load(&v->broken) && virtq_in_flight(v->queues[i]))
			return err_set(e, ERR_STATE, EBUSY, "queue %u still has %u requests", i,
				       virtq_in_flight(v->queues[i]));
	return 0;
}

static int stop_here(void *ctx, struct err *e)
{
	struct virtio *v = ctx;
	int ret = v->kind->ops->stop ? v->kind->ops->stop(v->kind, e) : 0;

	if (ret == 0)
		ret = check_nothing_in_flight(v, e);
	if (ret < 0)
		return ret;
	return watch_kicks(v, 0, e);
}

static int reset_here(void *ctx, struct err *e)
{
	struct virtio *v = ctx;
	int ret = watch_kicks(v, 0, e); /* they are, if the kind could not be stopped */

	if (v->kind->ops->reset)
		v->kind->ops->reset(v->kind);
	return ret;
}

/* ---- The same, seen from the registers ---- */

void virtio_start(struct virtio *v)
{
	struct err e = ERR_INIT;

	if (v->started || v->quiesced || atomic_load(&v->broken) ||
	    !(v->regs.status & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	if (io_thread_call(v->io, start_here, v, &e) < 0)
		virtio_broken(v, e.msg);
	else
		v->started = true;
}

int virtio_stop(struct virtio *v, struct err *e)
{
	int ret = v->started ? io_thread_call(v->io, stop_here, v, e) : 0;

	if (ret < 0)
		return err_prefix(e, "%s", v->name);
	v->started = false;
	return 0;
}

void virtio_reset(struct virtio *v)
{
	struct err e = ERR_INIT;

	if (virtio_stop(v, &e) < 0)
		log_warning("%s", e.msg);
	/* Also then: the driver has been promised that nothing touches its memory any more once
	 * the reset is over (2.4.2). */
	v->started = false;
	io_thread_call(v->io, reset_here, v, &e);
	virtio_free_queues(v->queues);
	v->regs = (struct virtio_registers){.status = 0};
	atomic_store(&v->broken, false);
	atomic_store(&v->generation, 0);
	virtio_interrupt(v, 0, ~0u);
}

/* ---- What a kind asks ---- */

struct virtq *virtio_queue(struct virtio *v, uint32_t index)
{
	return index < VIRTIO_MAX_QUEUES ? v->queues[index] : NULL;
}

/* The driver cannot change its features once it has said FEATURES_OK, before any queue exists. */
bool virtio_has(const struct virtio *v, uint32_t feature)
{
	return v->regs.driver_features & VIRTIO_BIT(feature);
}

struct guest_mem *virtio_mem(const struct virtio *v)
{
	return v->m->mem;
}

struct io_thread *virtio_io(const struct virtio *v)
{
	return v->io;
}

const char *virtio_name(const struct virtio *v)
{
	return v->name;
}
