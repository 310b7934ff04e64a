/* Requests by io_uring: one system call for a batch, page cache hits at once. */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "vmm/block/engine.h"

#define MAX_DEPTH 1024u

struct uring_engine {
	struct disk_engine base;
	struct io_uring ring;
	int fd;
};

static struct uring_engine *of(struct disk_engine *g)
{
	return (struct uring_engine *)g;
}

/* The kernel keeps completions that do not fit, but says EBUSY until some have been taken: what is
 * left unsubmitted goes with the next kick, which follows every reap. */
static void uring_kick(struct disk_engine *g)
{
	struct uring_engine *u = of(g);

	while (io_uring_sq_ready(&u->ring) && io_uring_submit(&u->ring) == -EINTR)
		;
}

static struct io_uring_sqe *get_sqe(struct uring_engine *u)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&u->ring)))
		io_uring_submit_and_wait(&u->ring, 1);
	return sqe;
}

static void uring_submit(struct disk_engine *g, struct disk_request *r)
{
	struct uring_engine *u = of(g);
	struct io_uring_sqe *sqe = get_sqe(u);

	switch (r->op) {
	case DISK_READ:
		io_uring_prep_readv(sqe, u->fd, r->iov, (unsigned int)r->nr_iov, r->offset);
		break;
	case DISK_WRITE:
		io_uring_prep_writev(sqe, u->fd, r->iov, (unsigned int)r->nr_iov, r->offset);
		break;
	case DISK_FLUSH:
		io_uring_prep_fsync(sqe, u->fd, IORING_FSYNC_DATASYNC);
		break;
	case DISK_DISCARD:
	case DISK_WRITE_ZEROES:
		io_uring_prep_fallocate(sqe, u->fd, disk_engine_fallocate_mode(r), (off_t)r->offset,
					(off_t)r->bytes);
		break;
	}
	io_uring_sqe_set_data(sqe, r);
}

static struct disk_request *uring_next(struct disk_engine *g, int64_t *result)
{
	struct uring_engine *u = of(g);
	struct disk_request *r;
	struct io_uring_cqe *cqe;

	if (io_uring_peek_cqe(&u->ring, &cqe) != 0)
		return NULL;
	r = io_uring_cqe_get_data(cqe);
	*result = cqe->res;
	io_uring_cqe_seen(&u->ring, cqe);
	return r;
}

static void uring_wait(struct disk_engine *g)
{
	struct io_uring_cqe *cqe;

	while (io_uring_wait_cqe(&of(g)->ring, &cqe) == -EINTR)
		;
}

static void uring_free(struct disk_engine *g)
{
	io_uring_queue_exit(&of(g)->ring);
	free(g);
}

static const struct disk_engine_ops uring_ops = {
	.name = "io_uring",
	.submit = uring_submit,
	.kick = uring_kick,
	.next = uring_next,
	.wait = uring_wait,
	.free = uring_free,
};

int disk_engine_uring_new(int fd, uint32_t depth, struct disk_engine **out, struct err *e)
{
	struct uring_engine *u = calloc(1, sizeof(*u));
	unsigned int entries = depth < 1 ? 1 : depth > MAX_DEPTH ? MAX_DEPTH : depth;
	int ret;

	if (!u)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a disk queue");
	/* A completion need not interrupt our thread in user space: it looks before it sleeps. */
	ret = io_uring_queue_init(entries, &u->ring, IORING_SETUP_COOP_TASKRUN);
	if (ret == -EINVAL) /* kernels before 5.19 */
		ret = io_uring_queue_init(entries, &u->ring, 0);
	if (ret < 0) {
		free(u);
		return err_set(e, ERR_UNSUPPORTED, -ret, "this host has or allows no io_uring");
	}
	u->base.ops = &uring_ops;
	u->base.poll_fd = u->ring.ring_fd;
	u->fd = fd;
	*out = &u->base;
	return 0;
}
