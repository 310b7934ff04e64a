#include "vmm/virtio/blk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "vmm/base/log.h"
#include "vmm/virtio/blk_face.h"
#include "vmm/virtio/blk_private.h"

#define QUEUE_SIZE 256

_Static_assert(DISK_SERIAL_BYTES == VIRTIO_BLK_ID_BYTES, "virtio 1.2, 5.2.6");

static struct virtio_blk *of(struct virtio_kind *k)
{
	return (struct virtio_blk *)k;
}

static const struct virtio_blk *of_const(const struct virtio_kind *k)
{
	return (const struct virtio_blk *)k;
}

/* ---- Working ---- */

static void blk_handle_queue(struct virtio_kind *k, uint32_t index)
{
	blk_queue_run(&of(k)->queues[index]);
}

static void on_finished(void *ctx, uint32_t events)
{
	(void)events;
	blk_queue_finished(ctx);
}

/* ---- Starting and stopping ---- */

static void watch(struct virtio_blk *b, uint32_t events)
{
	struct err e = ERR_INIT;

	for (uint32_t i = 0; i < b->nr_queues; i++)
		if (io_thread_watch(virtio_io(b->kind.transport), &b->queues[i].watch, events, &e) <
		    0)
			log_error("%s: %s", virtio_name(b->kind.transport), e.msg);
}

static void blk_start(struct virtio_kind *k)
{
	of(k)->write_through = !virtio_has(k->transport, VIRTIO_BLK_F_FLUSH);
	watch(of(k), EPOLLIN);
}

/* What has been begun is finished: nothing of it needs to travel. */
static int blk_stop(struct virtio_kind *k, struct err *e)
{
	struct virtio_blk *b = of(k);

	(void)e;
	for (uint32_t i = 0; i < b->nr_queues; i++) {
		struct virtq *vq = virtio_queue(k->transport, i);

		disk_queue_drain(b->queues[i].io);
		if (vq)
			virtq_flush(vq);
	}
	watch(b, 0);
	return 0;
}

static void blk_config_read(struct virtio_kind *k, uint32_t offset, void *data, uint32_t len)
{
	memcpy(data, (const char *)&of(k)->config + offset, len);
}

/* ---- State: the serial; the rest is the transport's, or the disk's ---- */

static int blk_save(const struct virtio_kind *k, struct buf *out, struct err *e)
{
	return buf_append(out, of_const(k)->serial, DISK_SERIAL_BYTES, e);
}

static int blk_load(struct virtio_kind *k, uint32_t version, const uint8_t *data, size_t len,
		    struct err *e)
{
	(void)version;
	if (len != DISK_SERIAL_BYTES)
		return err_set(e, ERR_STREAM, EBADMSG, "virtio-blk: %zu bytes of state", len);
	memcpy(of(k)->serial, data, len);
	return 0;
}

/* ---- Making one ---- */

static void free_queue(struct blk_queue *q)
{
	struct blk_request *r;

	disk_queue_free(q->io);
	while ((r = q->idle)) {
		q->idle = r->next_idle;
		free(r);
	}
}

static void blk_free(struct virtio_kind *k)
{
	struct virtio_blk *b = of(k);

	for (uint32_t i = 0; i < b->nr_queues; i++)
		free_queue(&b->queues[i]);
	disk_close(b->disk);
	free(b);
}

static const struct virtio_ops blk_ops = {
	.type = VIRTIO_BLK_TYPE,
	.device_id = VIRTIO_ID_BLOCK,
	.queue_size = QUEUE_SIZE,
	.state_version = 1,
	.oldest_loadable = 1,
	.config_read = blk_config_read,
	.start = blk_start,
	.stop = blk_stop,
	.handle_queue = blk_handle_queue,
	.save = blk_save,
	.load = blk_load,
	.free = blk_free,
};

static int make_queues(struct virtio_blk *b, uint32_t nr, struct err *e)
{
	for (b->nr_queues = 0; b->nr_queues < nr; b->nr_queues++) {
		struct blk_queue *q = &b->queues[b->nr_queues];

		if (disk_queue_new(b->disk, QUEUE_SIZE, &q->io, e) < 0)
			return -e->code;
		q->blk = b;
		q->index = b->nr_queues;
		q->watch = (struct io_watch){
			.fd = disk_queue_fd(q->io), .ready = on_finished, .ctx = q};
	}
	return 0;
}

static int open_disk(struct virtio_blk *b, const struct disk_spec *spec,
		     const struct virtio_face *face, struct err *e)
{
	struct disk_config config = {
		.path = spec->path, .readonly = spec->readonly, .unlocked = spec->unlocked};

	if (face && blk_face_disk(face, spec, &config, e) < 0)
		return -e->code;
	return disk_open(&config, &b->disk, e);
}

/* Filled up with zeroes; not terminated when it is full. */
static void name(struct virtio_blk *b, const char *serial, uint32_t instance)
{
	char text[DISK_SERIAL_BYTES + 1];

	snprintf(text, sizeof(text), "godwit-%u", instance);
	if (*serial)
		snprintf(text, sizeof(text), "%s", serial);
	memcpy(b->serial, text, strlen(text));
}

static int build(struct virtio_blk *b, const struct disk_spec *spec, uint32_t instance,
		 const struct virtio_face *face, struct err *e)
{
	int ret = open_disk(b, spec, face, e);

	if (ret < 0)
		return ret;
	b->kind = (struct virtio_kind){.ops = &blk_ops, .config_bytes = BLK_CONFIG_BYTES};
	blk_face_make(b->disk, spec->nr_queues ? spec->nr_queues : 1, &b->kind, &b->config);
	if (face)
		blk_face_adopt(face, &b->kind, &b->config);
	name(b, spec->serial, instance);
	return make_queues(b, b->kind.nr_queues, e);
}

int virtio_blk_new(const char *text, uint32_t instance, const struct virtio_face *face,
		   struct virtio_kind **out, struct err *e)
{
	struct virtio_blk *b;
	struct disk_spec spec;

	if (face && (!*text || *text == ','))
		return err_set(
			e, ERR_USAGE, EINVAL,
			"the guest has a disk %u, of %llu bytes, and no image for it is named "
			"here: give --disk PATH for every disk, in the source's order",
			instance, (unsigned long long)blk_face_bytes(face));
	if (disk_spec_parse(text, &spec, e) < 0)
		return -e->code;
	b = calloc(1, sizeof(*b));
	if (!b)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a disk");
	if (build(b, &spec, instance, face, e) < 0) {
		blk_free(&b->kind);
		return -e->code;
	}
	*out = &b->kind;
	return 0;
}

struct disk *virtio_blk_disk(const struct virtio_kind *kind)
{
	return kind->ops == &blk_ops ? of_const(kind)->disk : NULL;
}
