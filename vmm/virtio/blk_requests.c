/* The requests of virtio 1.2, 5.2.6: from a chain of the driver's to the disk, and the answer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/log.h"
#include "vmm/virtio/blk_face.h"
#include "vmm/virtio/blk_private.h"

/* How many of the host's I/O errors are told to people; the guest is told all. */
#define MAX_ERRORS_LOGGED 10

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

void blk_queue_run(struct blk_queue *q)
{
	struct virtq *vq = virtio_queue(q->blk->kind.transport, q->index);

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

/* The driver may have had to wait for what has finished: look for more. */
void blk_queue_finished(struct blk_queue *q)
{
	disk_queue_reap(q->io);
	disk_queue_kick(q->io); /* what finishing has submitted */
	blk_queue_run(q);
}
