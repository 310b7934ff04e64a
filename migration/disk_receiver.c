#include "migration/disk_receiver.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/disk_piece.h"
#include "vmm/block/disk.h"

/* Pieces from here on are given to the storage at once, in the background: otherwise a barrier
 * finds all of memory waiting to be written. */
#define WRITE_BACK_BYTES (256u << 10)

struct disk_receiver {
	/* immutable after new */
	struct disk_receiver_config config;
	struct link *link;
	uint64_t bytes[DISK_SET_MAX]; /* 0: not copied */
	pthread_t thread;

	/* owned by the receiver's thread */
	int pipe_fds[2];
	uint32_t sequence;
	bool written[DISK_SET_MAX]; /* since the last barrier */

	pthread_mutex_t lock; /* guards the rest */
	uint32_t pass;
	bool ending; /* because the engine wants it */
	struct err failure;
};

static struct disk *disk_of(struct disk_receiver *r, const struct disk_piece *p)
{
	return r->config.set->at[p->disk].disk;
}

/* From the socket into the page cache without a copy in between. */
static int empty_pipe(struct disk_receiver *r, struct disk *d, loff_t *at, size_t len,
		      struct err *e)
{
	while (len) {
		ssize_t n = splice(r->pipe_fds[0], NULL, disk_fd(d), at, len, SPLICE_F_MOVE);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(e, "cannot write at byte %llu", (unsigned long long)*at);
		len -= (size_t)n;
	}
	return 0;
}

static int put_data(struct disk_receiver *r, const struct disk_piece *p, struct err *e)
{
	struct disk *d = disk_of(r, p);
	loff_t at = (loff_t)p->offset;
	uint64_t left = p->bytes;

	while (left) {
		ssize_t n = link_recvpipe(r->link, r->pipe_fds[1], left, e);

		if (n < 0 || empty_pipe(r, d, &at, (size_t)n, e) < 0)
			return -e->code;
		left -= (size_t)n;
	}
	if (p->bytes >= WRITE_BACK_BYTES) /* only helps */
		sync_file_range(disk_fd(d), (off_t)p->offset, (off_t)p->bytes,
				SYNC_FILE_RANGE_WRITE);
	return 0;
}

static int put(struct disk_receiver *r, const struct disk_piece *p, struct err *e)
{
	int ret = fault_point(r->config.fault, "dst.disk_piece", e);

	if (ret == 0)
		ret = p->kind == DISK_PIECE_DATA
			      ? put_data(r, p, e)
			      : disk_zero(disk_of(r, p), p->offset, p->bytes, true, e);
	if (ret < 0)
		return err_prefix(e, "disk %u's copy at %s", p->disk, disk_path(disk_of(r, p)));
	r->written[p->disk] = true;
	return 0;
}

static int make_durable(struct disk_receiver *r, struct err *e)
{
	for (uint32_t i = 0; i < r->config.set->nr; i++) {
		if (!r->written[i])
			continue;
		if (disk_flush(r->config.set->at[i].disk, e) < 0)
			return -e->code;
		r->written[i] = false;
	}
	return 0;
}

static int answer(struct disk_receiver *r, const struct disk_piece *p, struct err *e)
{
	struct disk_piece_back back = {.magic = DISK_PIECE_BACK_MAGIC, .pass = p->pass};

	if (fault_point(r->config.fault, "dst.disk_barrier", e) < 0 || make_durable(r, e) < 0)
		return -e->code;
	pthread_mutex_lock(&r->lock);
	r->pass = p->pass;
	pthread_mutex_unlock(&r->lock);
	return link_send(r->link, &back, sizeof(back), e);
}

static int receive(struct disk_receiver *r, struct err *e)
{
	struct disk_piece p;

	for (;;) {
		if (link_recv(r->link, &p, sizeof(p), e) < 0 ||
		    disk_piece_check(&p, r->sequence++, r->bytes, r->config.set->nr, e) < 0)
			return -e->code;
		if (p.kind == DISK_PIECE_BARRIER ? answer(r, &p, e) < 0 : put(r, &p, e) < 0)
			return -e->code;
	}
}

static void conclude(struct disk_receiver *r, const struct err *e)
{
	bool wanted;

	pthread_mutex_lock(&r->lock);
	wanted = r->ending;
	if (!wanted)
		r->failure = *e;
	pthread_mutex_unlock(&r->lock);
	if (!wanted)
		cancel_request(r->config.abort);
}

static void *thread_main(void *arg)
{
	struct disk_receiver *r = arg;
	struct err e = ERR_INIT;

	receive(r, &e);
	err_prefix(&e, "disks");
	conclude(r, &e);
	return NULL;
}

static void release(struct disk_receiver *r)
{
	link_free(r->link);
	for (int i = 0; i < 2; i++)
		if (r->pipe_fds[i] >= 0)
			close(r->pipe_fds[i]);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static int start(struct disk_receiver *r, struct err *e)
{
	int ret;

	if (pipe2(r->pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(e, "cannot make a pipe for the disks");
	fcntl(r->pipe_fds[1], F_SETPIPE_SZ, DISK_PIECE_MAX_BYTES); /* smaller is only slower */
	ret = pthread_create(&r->thread, NULL, thread_main, r);
	return ret ? err_set(e, ERR_SYS, ret, "cannot create a thread for the disks") : 0;
}

int disk_receiver_new(const struct disk_receiver_config *config, struct link *link,
		      struct disk_receiver **out, struct err *e)
{
	struct disk_receiver *r = calloc(1, sizeof(*r));

	if (!r) {
		link_free(link);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a migration's disks");
	}
	r->config = *config;
	r->link = link;
	r->pipe_fds[0] = r->pipe_fds[1] = -1;
	pthread_mutex_init(&r->lock, NULL);
	for (uint32_t i = 0; i < config->set->nr; i++)
		if (config->set->at[i].copy)
			r->bytes[i] = disk_bytes(config->set->at[i].disk);
	if (start(r, e) < 0) {
		release(r);
		return -e->code;
	}
	*out = r;
	return 0;
}

void disk_receiver_free(struct disk_receiver *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->ending = true;
	pthread_mutex_unlock(&r->lock);
	link_shutdown(r->link);
	pthread_join(r->thread, NULL);
	release(r);
}

uint32_t disk_receiver_pass(struct disk_receiver *r)
{
	uint32_t pass;

	pthread_mutex_lock(&r->lock);
	pass = r->pass;
	pthread_mutex_unlock(&r->lock);
	return pass;
}

uint64_t disk_receiver_received_bytes(struct disk_receiver *r)
{
	return link_received_bytes(r->link);
}

void disk_receiver_failure(struct disk_receiver *r, struct err *e)
{
	pthread_mutex_lock(&r->lock);
	*e = r->failure;
	pthread_mutex_unlock(&r->lock);
}
