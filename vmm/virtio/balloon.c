/*
 * The memory balloon: pages the guest gives up (inflates), and free pages it reports, go back to
 * the host (guest_mem_discard) and so out of every migration.
 *
 * Both are safe because the driver lets nobody use such a page before the device has returned the
 * buffer that names it. Free page *hints* (VIRTIO_BALLOON_F_FREE_PAGE_HINT) are not offered: a
 * hinted page may be in use again before the hint is read, so nothing could be discarded on the
 * strength of one; and a page that is free when a migration begins has been reported before.
 *
 * A queue that a negotiated feature does not bring is not there, and those after it move up: that
 * is how Linux counts (virtio_balloon.c, init_vqs; virtio_mmio.c, vm_find_vqs).
 */
#include "vmm/virtio/balloon.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "proto/virtio.pb-c.h"
#include "vmm/dev/state_message.h"
#include "vmm/virtio/kinds.h"

#define QUEUE_INFLATE 0
#define QUEUE_DEFLATE 1
#define NR_QUEUES     4 /* and two that depend on features */
#define NO_QUEUE      UINT32_MAX

#define CONFIG_BYTES sizeof(struct virtio_balloon_config)

/* Page numbers in one buffer; Linux sends 256. What is beyond is not looked at, so that no buffer
 * keeps this thread for long. */
#define MAX_PFNS 4096

struct balloon {
	struct virtio_kind kind; /* first */

	bool started; /* the I/O thread's */

	/* any thread */
	atomic_uint target_pages;
	atomic_uint actual_pages;
	atomic_uint poison;

	pthread_mutex_t lock; /* guards the rest */
	struct balloon_stats stats;
};

static struct balloon *self(const struct virtio_kind *k)
{
	return (struct balloon *)(uintptr_t)k;
}

static uint32_t stats_queue(const struct virtio_kind *k)
{
	return virtio_has(k->transport, VIRTIO_BALLOON_F_STATS_VQ) ? 2 : NO_QUEUE;
}

static uint32_t reporting_queue(const struct virtio_kind *k)
{
	if (!virtio_has(k->transport, VIRTIO_BALLOON_F_REPORTING))
		return NO_QUEUE;
	return stats_queue(k) == NO_QUEUE ? 2 : 3;
}

/* ---- Inflating ---- */

/* Runs of ascending page numbers go back in one call: a balloon is made of many. */
struct run {
	uint64_t first;
	uint64_t nr;
};

static void discard(struct guest_mem *mem, struct run *run)
{
	if (run->nr)
		guest_mem_discard(mem, run->first << PAGE_SHIFT, run->nr << PAGE_SHIFT);
	run->nr = 0;
}

/* Pages that are not RAM are the guest's mistake and nobody's harm: not discarded. */
static void inflate(struct guest_mem *mem, const struct virtq_chain *c)
{
	uint32_t pfns[256];
	struct run run = {.nr = 0};

	for (size_t at = 0; at < MAX_PFNS * sizeof(pfns[0]);) {
		size_t got = virtq_read(c, at, pfns, sizeof(pfns)) / sizeof(pfns[0]);

		for (size_t i = 0; i < got; i++) {
			uint64_t pfn = le32toh(pfns[i]);

			if (run.nr && pfn != run.first + run.nr)
				discard(mem, &run);
			if (!run.nr)
				run.first = pfn;
			run.nr++;
		}
		if (got < sizeof(pfns) / sizeof(pfns[0]))
			break;
		at += sizeof(pfns);
	}
	discard(mem, &run);
}

/* ---- Free pages, reported ---- */

/* 5.5.6.7: the buffers are the free memory itself. With a poison other than zero the guest expects
 * to find it there again. */
static void take_report(struct balloon *b, const struct virtq_chain *c)
{
	struct guest_mem *mem = virtio_mem(b->kind.transport);
	const uint8_t *base = guest_mem_at(mem, 0, 0);

	if (virtio_has(b->kind.transport, VIRTIO_BALLOON_F_PAGE_POISON) && atomic_load(&b->poison))
		return;
	for (uint32_t i = 0; i < c->nr_in; i++) {
		const struct iovec *v = &c->iov[c->nr_out + i];

		guest_mem_discard(mem, (uint64_t)((const uint8_t *)v->iov_base - base), v->iov_len);
	}
}

static void serve(struct balloon *b, uint32_t index)
{
	struct virtq *q = virtio_queue(b->kind.transport, index);
	struct virtq_chain chain;

	do {
		virtq_kicks_off(q);
		while (virtq_pop(q, &chain) > 0) {
			if (index == QUEUE_INFLATE)
				inflate(virtio_mem(b->kind.transport), &chain);
			else if (index == reporting_queue(&b->kind))
				take_report(b, &chain);
			/* Deflated pages are there again as soon as they are touched. */
			virtq_push(q, &chain, 0);
			virtq_flush(q); /* each by itself: the guest waits for it */
		}
	} while (virtq_kicks_on(q));
}

/* ---- Statistics: one buffer, which the device keeps until it wants to know more ---- */

const char *balloon_stat_name(uint32_t i)
{
	static const char *const names[] = VIRTIO_BALLOON_S_NAMES_WITH_PREFIX("stat-");

	return i < BALLOON_NR_STATS ? names[i] : NULL;
}

static void read_stats(struct balloon *b, const struct virtq_chain *c)
{
	struct virtio_balloon_stat s;

	pthread_mutex_lock(&b->lock);
	for (uint32_t i = 0; i < 2 * BALLOON_NR_STATS; i++) {
		if (virtq_read(c, i * sizeof(s), &s, sizeof(s)) < sizeof(s))
			break;
		if (le16toh(s.tag) < BALLOON_NR_STATS)
			b->stats.value[le16toh(s.tag)] = le64toh(s.val);
	}
	pthread_mutex_unlock(&b->lock);
}

/* The buffer stays in the ring, so that nothing is held when the machine is paused; it goes back,
 * which asks for new numbers, when somebody has taken these (@ask). */
static void serve_stats(struct balloon *b, bool ask)
{
	struct virtq *q = virtio_queue(b->kind.transport, stats_queue(&b->kind));
	struct virtq_chain chain;

	if (!q || virtq_pop(q, &chain) <= 0)
		return;
	read_stats(b, &chain);
	if (!ask) {
		virtq_unpop(q);
		virtq_kicks_on(q);
		return;
	}
	virtq_push(q, &chain, 0);
	virtq_flush(q);
	virtq_kicks_on(q);
}

static void balloon_handle_queue(struct virtio_kind *k, uint32_t index)
{
	if (index == stats_queue(k))
		serve_stats(self(k), false);
	else
		serve(self(k), index);
}

/* ---- Configuration ---- */

static void balloon_config_read(struct virtio_kind *k, uint32_t offset, void *data, uint32_t len)
{
	struct balloon *b = self(k);
	struct virtio_balloon_config c = {.num_pages = htole32(atomic_load(&b->target_pages)),
					  .actual = htole32(atomic_load(&b->actual_pages)),
					  .poison_val = htole32(atomic_load(&b->poison))};

	memcpy(data, (const uint8_t *)&c + offset, len);
}

static void balloon_config_write(struct virtio_kind *k, uint32_t offset, const void *data,
				 uint32_t len)
{
	struct balloon *b = self(k);
	uint32_t value;

	if (len != sizeof(value))
		return;
	memcpy(&value, data, sizeof(value));
	if (offset == offsetof(struct virtio_balloon_config, actual))
		atomic_store(&b->actual_pages, le32toh(value));
	if (offset == offsetof(struct virtio_balloon_config, poison_val))
		atomic_store(&b->poison, le32toh(value));
}

/* ---- From the outside ---- */

void virtio_balloon_set_target(struct virtio_kind *k, uint32_t pages)
{
	atomic_store(&self(k)->target_pages, pages);
	virtio_config_changed(k->transport);
}

uint32_t virtio_balloon_actual(const struct virtio_kind *k)
{
	return atomic_load(&self(k)->actual_pages);
}

static int ask(void *ctx, struct err *e)
{
	struct balloon *b = ctx;

	(void)e;
	if (b->started)
		serve_stats(b, true);
	return 0;
}

void virtio_balloon_stats(struct virtio_kind *k, struct balloon_stats *out)
{
	struct balloon *b = self(k);
	struct err e = ERR_INIT;

	pthread_mutex_lock(&b->lock);
	*out = b->stats;
	pthread_mutex_unlock(&b->lock);
	io_thread_call(virtio_io(k->transport), ask, b, &e);
}

/* ---- Life ---- */

static void forget_stats(struct balloon *b)
{
	pthread_mutex_lock(&b->lock);
	memset(&b->stats, 0xff, sizeof(b->stats));
	pthread_mutex_unlock(&b->lock);
}

static void balloon_start(struct virtio_kind *k)
{
	self(k)->started = true;
}

static int balloon_stop(struct virtio_kind *k, struct err *e)
{
	(void)e;
	self(k)->started = false;
	return 0;
}

/* The target stays: it is the host's wish, and the guest that comes up next learns of it. */
static void balloon_reset(struct virtio_kind *k)
{
	atomic_store(&self(k)->actual_pages, 0);
	atomic_store(&self(k)->poison, 0);
	forget_stats(self(k));
}

static int balloon_save(const struct virtio_kind *k, struct buf *out, struct err *e)
{
	Godwit__VirtioBalloonState m = GODWIT__VIRTIO_BALLOON_STATE__INIT;
	struct balloon *b = self(k);

	m.has_target_pages = m.has_actual_pages = m.has_poison = true;
	m.target_pages = atomic_load(&b->target_pages);
	m.actual_pages = atomic_load(&b->actual_pages);
	m.poison = atomic_load(&b->poison);
	return state_message_pack(&m.base, out, e);
}

static int balloon_load(struct virtio_kind *k, uint32_t version, const uint8_t *data, size_t len,
			struct err *e)
{
	static const struct state_limit limits[] = {{NULL, 0}};
	const Godwit__VirtioBalloonState *m;
	struct balloon *b = self(k);
	ProtobufCMessage *message;
	int ret = state_message_unpack(k->ops->type, &godwit__virtio_balloon_state__descriptor,
				       limits, data, len, &message, e);

	(void)version;
	if (ret < 0)
		return ret;
	m = (const Godwit__VirtioBalloonState *)message;
	atomic_store(&b->target_pages, m->target_pages);
	atomic_store(&b->actual_pages, m->actual_pages);
	atomic_store(&b->poison, m->poison);
	forget_stats(b);
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}

static void balloon_free(struct virtio_kind *k)
{
	pthread_mutex_destroy(&self(k)->lock);
	free(k);
}

static const struct virtio_ops balloon_ops = {
	.type = "virtio-balloon",
	.device_id = VIRTIO_ID_BALLOON,
	.queue_size = 128,
	.state_version = 1,
	.oldest_loadable = 1,
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.start = balloon_start,
	.stop = balloon_stop,
	.handle_queue = balloon_handle_queue,
	.reset = balloon_reset,
	.save = balloon_save,
	.load = balloon_load,
	.free = balloon_free,
};

int virtio_balloon_new(const char *spec, uint32_t instance, const struct virtio_face *face,
		       struct virtio_kind **out, struct err *e)
{
	struct balloon *b;

	(void)face;
	if (spec[0])
		return err_set(e, ERR_USAGE, EINVAL, "virtio-balloon takes no argument: '%.40s'",
			       spec);
	if (instance)
		return err_set(e, ERR_USAGE, EINVAL, "a guest has at most one balloon");
	b = calloc(1, sizeof(*b));
	if (!b)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for virtio-balloon");
	/* Deflating needs no permission, so the guest may also do it when it runs out of memory. */
	b->kind = (struct virtio_kind){.ops = &balloon_ops,
				       .features = VIRTIO_BIT(VIRTIO_BALLOON_F_STATS_VQ) |
						   VIRTIO_BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
						   VIRTIO_BIT(VIRTIO_BALLOON_F_PAGE_POISON) |
						   VIRTIO_BIT(VIRTIO_BALLOON_F_REPORTING),
				       .nr_queues = NR_QUEUES,
				       .config_bytes = CONFIG_BYTES};
	pthread_mutex_init(&b->lock, NULL);
	forget_stats(b);
	*out = &b->kind;
	return 0;
}
