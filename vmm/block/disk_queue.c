#include "vmm/block/disk_queue.h"

#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>

#include "vmm/base/log.h"
#include "vmm/block/engine.h"

#define NR_THREADS 4

struct disk_queue {
	struct disk *disk;
	struct disk_engine *engine;
	uint32_t in_flight;
};

int disk_engine_fallocate_mode(const struct disk_request *r)
{
	bool unmap = r->op == DISK_DISCARD || r->unmap;

	return (unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
}

int disk_queue_over(struct disk *d, struct disk_engine *g, struct disk_queue **out, struct err *e)
{
	struct disk_queue *q = calloc(1, sizeof(*q));

	if (!q) {
		g->ops->free(g);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a disk queue");
	}
	q->disk = d;
	q->engine = g;
	*out = q;
	return 0;
}

int disk_queue_new(struct disk *d, uint32_t depth, struct disk_queue **out, struct err *e)
{
	struct disk_engine *engine;
	struct err refused = ERR_INIT;

	if (disk_engine_uring_new(disk_fd(d), depth, &engine, &refused) < 0) {
		log_info("%s; disk %s is served by threads", refused.msg, disk_path(d));
		if (disk_engine_threads_new(disk_fd(d), NR_THREADS, &engine, e) < 0)
			return -e->code;
	}
	return disk_queue_over(d, engine, out, e);
}

void disk_queue_free(struct disk_queue *q)
{
	if (!q)
		return;
	q->engine->ops->free(q->engine);
	free(q);
}

static bool is_transfer(const struct disk_request *r)
{
	return r->op == DISK_READ || r->op == DISK_WRITE;
}

static bool changes(const struct disk_request *r)
{
	return r->op != DISK_READ && r->op != DISK_FLUSH;
}

static bool in_range(const struct disk *d, const struct disk_request *r)
{
	uint64_t end = disk_bytes(d);

	if (r->op == DISK_FLUSH)
		return true;
	return r->bytes && r->bytes % DISK_SECTOR_BYTES == 0 &&
	       r->offset % DISK_SECTOR_BYTES == 0 && r->offset < end && r->bytes <= end - r->offset;
}

int disk_queue_submit(struct disk_queue *q, struct disk_request *r)
{
	if (changes(r) && disk_is_readonly(q->disk))
		return -EROFS;
	if (!in_range(q->disk, r))
		return -EINVAL;
	q->in_flight++;
	r->moved = 0;
	q->engine->ops->submit(q->engine, r);
	return 0;
}

void disk_queue_kick(struct disk_queue *q)
{
	q->engine->ops->kick(q->engine);
}

int disk_queue_fd(const struct disk_queue *q)
{
	return q->engine->poll_fd;
}

/* Leave out of @r what has been moved. */
static void advance(struct disk_request *r, uint64_t moved)
{
	r->moved += moved;
	r->offset += moved;
	while (r->nr_iov && moved >= r->iov->iov_len) {
		moved -= r->iov->iov_len;
		r->iov++;
		r->nr_iov--;
	}
	if (moved) {
		r->iov->iov_base = (char *)r->iov->iov_base + moved;
		r->iov->iov_len -= moved;
	}
}

/* Storage that knows no holes: a discard is but a hint, zeroes are written out, by this thread:
 * rare enough. */
static int without_holes(struct disk_queue *q, const struct disk_request *r)
{
	struct err e = ERR_INIT;

	if (r->op == DISK_DISCARD)
		return 0;
	return disk_zero(q->disk, r->offset, r->bytes, r->unmap, &e) < 0 ? e.code : 0;
}

static void finish(struct disk_queue *q, struct disk_request *r, int error)
{
	uint64_t start = r->offset - r->moved;

	/* After the write, and also when it failed: some of it may have been done. */
	if (changes(r))
		disk_mark(q->disk, start, r->bytes);
	q->in_flight--;
	r->done(r, error);
}

/* What one system call achieved; true: there is more to do, and it has been submitted. */
static bool goes_on(struct disk_queue *q, struct disk_request *r, int64_t result)
{
	if (result == -EINTR || result == -EAGAIN) {
		q->engine->ops->submit(q->engine, r);
		return true;
	}
	if (!is_transfer(r) || result <= 0)
		return false;
	advance(r, (uint64_t)result);
	if (r->moved >= r->bytes)
		return false;
	q->engine->ops->submit(q->engine, r);
	return true;
}

static int error_of(struct disk_queue *q, const struct disk_request *r, int64_t result)
{
	if (result == -EOPNOTSUPP && !is_transfer(r) && r->op != DISK_FLUSH)
		return without_holes(q, r);
	if (result < 0)
		return (int)-result;
	/* The file ends before the disk does: somebody has cut it. */
	return is_transfer(r) && r->moved < r->bytes ? EIO : 0;
}

void disk_queue_reap(struct disk_queue *q)
{
	struct disk_request *r;
	int64_t result;
	bool more = false;

	while ((r = q->engine->ops->next(q->engine, &result))) {
		if (goes_on(q, r, result))
			more = true;
		else
			finish(q, r, error_of(q, r, result));
	}
	if (more)
		disk_queue_kick(q);
}

uint32_t disk_queue_in_flight(const struct disk_queue *q)
{
	return q->in_flight;
}

void disk_queue_drain(struct disk_queue *q)
{
	while (q->in_flight) {
		disk_queue_kick(q);
		disk_queue_reap(q);
		if (!q->in_flight)
			return;
		disk_queue_kick(q); /* what reaping has submitted */
		q->engine->ops->wait(q->engine);
	}
}

const char *disk_queue_engine(const struct disk_queue *q)
{
	return q->engine->ops->name;
}
