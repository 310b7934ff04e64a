#include "vmm/virtio/blk.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "vmm/base/log.h"
#include "vmm/block/disk_queue.h"
#include "vmm/block/disk_spec.h"
#include "vmm/virtio/blk_face.h"

#define QUEUE_SIZE 256

/* How many of the host's I/O errors are told to people; the guest is told all. */
#define MAX_ERRORS_LOGGED 10

_Static_assert(DISK_SERIAL_BYTES == VIRTIO_BLK_ID_BYTES, "virtio 1.2, 5.2.6");

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

static struct virtio_blk *of(struct virtio_kind *k)
{
	return (struct virtio_blk *)k;
}

static const struct virtio_blk *of_const(const struct virtio_kind *k)
{
	return (const struct virtio_blk *)k;
}

/* ---- Answering ---- */

static uint8_t status_of(int error)
{
	if (!error)
		return VIRTIO_BLK_S_OK;
	return error == EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

/* The status is the last byte that the driver left for us, wherever the descriptors end. */
static void answer(struct blk_request *r, uint8_t status)
{
	struct blk_queue *q = r->queue;
	struct virtq *vq = virtio_queue(q->blk->kind.transport, q->index);

	virtq_write(&r->chain, r->chain.in_bytes - 1, &status, 1);
	virtq_push(vq, &r->chain, r->chain.in_bytes);
	r->next_idle = q->idle;
	q->idle = r;
}

static void complain(struct virtio_blk *b, const struct disk_request *d, int error)
{
	static const char *const verbs[] = {"read", "write", "flush", "discard", "write zeroes"};

	if (b->nr_errors++ >= MAX_ERRORS_LOGGED)
		return;
	log_warning("%s: cannot %s disk image %s at byte %llu: %s; the guest is told", //
		    virtio_name(b->kind.transport), verbs[d->op], disk_path(b->disk),
		    (unsigned long long)(d->offset - d->moved), strerror(error));
}

static void on_done(struct disk_request *d, int error)
{
	struct blk_request *r = (struct blk_request *)d;
	struct virtio_blk *b = r->queue->blk;

	if (error && error != EOPNOTSUPP)
		complain(b, d, error);
	if (!error && b->write_through && d->op != DISK_READ && d->op != DISK_FLUSH) {
		d->op = DISK_FLUSH;
		if (disk_queue_submit(r->queue->io, d) == 0)
			return;
	}
	answer(r, status_of(error));
}

/* ---- Asking ---- */

/* The bytes [skip, skip + bytes) of @from's descriptors, as r->iov. */
static void gather(struct blk_request *r, const struct iovec *from, uint64_t skip, uint64_t bytes)
{
	r->disk.iov = r->iov;
	r->disk.nr_iov = 0;
	r->disk.bytes = bytes;
	for (; bytes; from++) {
		size_t len = from->iov_len;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		len -= skip;
		len = len < bytes ? len : (size_t)bytes;
		r->iov[r->disk.nr_iov++] =
			(struct iovec){.iov_base = (char *)from->iov_base + skip, .iov_len = len};
		bytes -= len;
		skip = 0;
	}
}

static int submit(struct blk_request *r, enum disk_op op)
{
	r->disk.op = op;
	r->disk.done = on_done;
	return disk_queue_submit(r->queue->io, &r->disk) < 0 ? VIRTIO_BLK_S_IOERR : -1;
}

static int read_or_write(struct blk_request *r, const struct virtio_blk_outhdr *head)
{
	bool write = head->type == VIRTIO_BLK_T_OUT;

	if (head->sector > UINT64_MAX / DISK_SECTOR_BYTES)
		return VIRTIO_BLK_S_IOERR;
	r->disk.offset = head->sector * DISK_SECTOR_BYTES;
	if (write)
		gather(r, virtq_out(&r->chain), sizeof(*head), r->chain.out_bytes - sizeof(*head));
	else
		gather(r, virtq_in(&r->chain), 0, r->chain.in_bytes - 1);
	return submit(r, write ? DISK_WRITE : DISK_READ);
}

/* One segment, as the configuration says (5.2.6.1: more than max_..._seg may be refused). */
static int discard_or_zero(struct blk_request *r, const struct virtio_blk_outhdr *head)
{
	bool zero = head->type == VIRTIO_BLK_T_WRITE_ZEROES;
	struct virtio_blk_discard_write_zeroes range;
	uint32_t allowed = zero ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
	uint32_t max = zero ? BLK_MAX_ZERO_SECTORS : BLK_MAX_DISCARD_SECTORS;

	if (r->chain.out_bytes != sizeof(*head) + sizeof(range))
		return VIRTIO_BLK_S_UNSUPP;
	virtq_read(&r->chain, sizeof(*head), &range, sizeof(range));
	if (range.flags & ~allowed)
		return VIRTIO_BLK_S_UNSUPP;
	if (range.num_sectors > max || range.sector > UINT64_MAX / DISK_SECTOR_BYTES)
		return VIRTIO_BLK_S_IOERR;
	r->disk.offset = range.sector * DISK_SECTOR_BYTES;
	r->disk.bytes = (uint64_t)range.num_sectors * DISK_SECTOR_BYTES;
	r->disk.unmap = range.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	return submit(r, zero ? DISK_WRITE_ZEROES : DISK_DISCARD);
}

static int get_id(struct blk_request *r)
{
	const struct virtio_blk *b = r->queue->blk;
	size_t room = r->chain.in_bytes - 1;

	virtq_write(&r->chain, 0, b->serial, room < sizeof(b->serial) ? room : sizeof(b->serial));
	return VIRTIO_BLK_S_OK;
}

/* The status to answer with, or -1: it is with the disk. */
static int begin(struct blk_request *r)
{
	struct virtio_blk_outhdr head;

	virtq_read(&r->chain, 0, &head, sizeof(head));
	switch (head.type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		return read_or_write(r, &head);
	case VIRTIO_BLK_T_FLUSH:
		return submit(r, DISK_FLUSH);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return discard_or_zero(r, &head);
	case VIRTIO_BLK_T_GET_ID:
		return get_id(r);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

static struct blk_request *take_idle(struct blk_queue *q)
{
	struct blk_request *r = q->idle;

	if (r)
		q->idle = r->next_idle;
	else
		r = calloc(1, sizeof(*r));
	if (r) {
		r->queue = q;
		r->disk = (struct disk_request){.nr_iov = 0};
	}
	return r;
}

static void put_idle(struct blk_request *r)
{
	r->next_idle = r->queue->idle;
	r->queue->idle = r;
}

/* False: nothing is waiting, or nothing can be done about it now. */
static bool take_one(struct blk_queue *q, struct virtq *vq)
{
	struct blk_request *r = take_idle(q);
	int status;

	if (!r)
		return false; /* out of memory: again when something has finished */
	if (virtq_pop(vq, &r->chain) <= 0) {
		put_idle(r);
		return false;
	}
	if (r->chain.out_bytes < sizeof(struct virtio_blk_outhdr) || !r->chain.in_bytes) {
		put_idle(r);
		virtio_broken(q->blk->kind.transport,
			      "a request without a header, or without a byte for its status");
		return false;
	}
	status = begin(r);
	if (status >= 0)
		answer(r, (uint8_t)status);
	return true;
}

static void blk_handle_queue(struct virtio_kind *k, uint32_t index)
{
	struct blk_queue *q = &of(k)->queues[index];
	struct virtq *vq = virtio_queue(k->transport, index);

	if (!vq)
		return;
	do {
		virtq_kicks_off(vq);
		while (take_one(q, vq))
			;
		disk_queue_kick(q->io);
		disk_queue_reap(q->io); /* what the page cache had is there already */
	} while (virtq_kicks_on(vq));
	virtq_flush(vq);
}

/* Something has finished. The driver may have had to wait for that: look for more. */
static void on_finished(void *ctx, uint32_t events)
{
	struct blk_queue *q = ctx;

	(void)events;
	disk_queue_reap(q->io);
	disk_queue_kick(q->io); /* what finishing has submitted */
	blk_handle_queue(&q->blk->kind, q->index);
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
