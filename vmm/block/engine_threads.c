/* Requests by threads that each wait in a system call: for hosts that forbid io_uring. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/block/engine.h"

#define MAX_THREADS 16

struct list {
	struct disk_request *first;
	struct disk_request **last;
};

struct threads_engine {
	struct disk_engine base;
	/* immutable after new */
	int fd;
	uint32_t nr_threads;
	pthread_t threads[MAX_THREADS];

	/* owned by the queue's thread */
	struct list taken; /* ended, not handed out yet */

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t work;
	pthread_cond_t ended_cond;
	bool stop;
	struct list waiting;
	struct list ended;
};

static struct threads_engine *of(struct disk_engine *g)
{
	return (struct threads_engine *)g;
}

static void list_init(struct list *l)
{
	l->first = NULL;
	l->last = &l->first;
}

static void list_add(struct list *l, struct disk_request *r)
{
	r->next = NULL;
	*l->last = r;
	l->last = &r->next;
}

static struct disk_request *list_take(struct list *l)
{
	struct disk_request *r = l->first;

	if (!r)
		return NULL;
	l->first = r->next;
	if (!l->first)
		l->last = &l->first;
	return r;
}

static int64_t carry_out(int fd, const struct disk_request *r)
{
	ssize_t n = -1;

	switch (r->op) {
	case DISK_READ:
		n = preadv(fd, r->iov, r->nr_iov, (off_t)r->offset);
		break;
	case DISK_WRITE:
		n = pwritev(fd, r->iov, r->nr_iov, (off_t)r->offset);
		break;
	case DISK_FLUSH:
		n = fdatasync(fd);
		break;
	case DISK_DISCARD:
	case DISK_WRITE_ZEROES:
		n = fallocate(fd, disk_engine_fallocate_mode(r), (off_t)r->offset, (off_t)r->bytes);
		break;
	}
	return n < 0 ? -errno : n;
}

static void finish(struct threads_engine *t, struct disk_request *r)
{
	static const uint64_t one = 1;
	bool first = !t->ended.first;

	list_add(&t->ended, r);
	pthread_cond_signal(&t->ended_cond);
	/* One write for all that end before they are looked at. It cannot fail: the counter is
	 * emptied each time. */
	if (first && write(t->base.poll_fd, &one, sizeof(one)) < 0)
		abort();
}

static void *thread_main(void *arg)
{
	struct threads_engine *t = arg;

	pthread_mutex_lock(&t->lock);
	while (!t->stop) {
		struct disk_request *r = list_take(&t->waiting);

		if (!r) {
			pthread_cond_wait(&t->work, &t->lock);
			continue;
		}
		pthread_mutex_unlock(&t->lock);
		r->result = carry_out(t->fd, r);
		pthread_mutex_lock(&t->lock);
		finish(t, r);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void threads_submit(struct disk_engine *g, struct disk_request *r)
{
	struct threads_engine *t = of(g);

	pthread_mutex_lock(&t->lock);
	list_add(&t->waiting, r);
	pthread_cond_signal(&t->work);
	pthread_mutex_unlock(&t->lock);
}

static void threads_kick(struct disk_engine *g)
{
	(void)g;
}

/* Take over all that have ended at once; the event is spent with them. */
static void take_ended(struct threads_engine *t)
{
	uint64_t spent;

	pthread_mutex_lock(&t->lock);
	if (t->ended.first) {
		t->taken.first = t->ended.first;
		t->taken.last = t->ended.last;
		list_init(&t->ended);
		if (read(t->base.poll_fd, &spent, sizeof(spent)) < 0)
			abort();
	}
	pthread_mutex_unlock(&t->lock);
}

static struct disk_request *threads_next(struct disk_engine *g, int64_t *result)
{
	struct threads_engine *t = of(g);
	struct disk_request *r;

	if (!t->taken.first)
		take_ended(t);
	r = list_take(&t->taken);
	if (r)
		*result = r->result;
	return r;
}

static void threads_wait(struct disk_engine *g)
{
	struct threads_engine *t = of(g);

	if (t->taken.first)
		return;
	pthread_mutex_lock(&t->lock);
	while (!t->ended.first)
		pthread_cond_wait(&t->ended_cond, &t->lock);
	pthread_mutex_unlock(&t->lock);
}

static void threads_free(struct disk_engine *g)
{
	struct threads_engine *t = of(g);

	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_broadcast(&t->work);
	pthread_mutex_unlock(&t->lock);
	for (uint32_t i = 0; i < t->nr_threads; i++)
		pthread_join(t->threads[i], NULL);
	pthread_cond_destroy(&t->ended_cond);
	pthread_cond_destroy(&t->work);
	pthread_mutex_destroy(&t->lock);
	if (t->base.poll_fd >= 0)
		close(t->base.poll_fd);
	free(t);
}

static const struct disk_engine_ops threads_ops = {
	.name = "threads",
	.submit = threads_submit,
	.kick = threads_kick,
	.next = threads_next,
	.wait = threads_wait,
	.free = threads_free,
};

static int start(struct threads_engine *t, uint32_t nr_threads, struct err *e)
{
	t->base.poll_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->base.poll_fd < 0)
		return err_sys(e, "cannot make an eventfd for a disk");
	while (t->nr_threads < nr_threads && t->nr_threads < MAX_THREADS) {
		int ret = pthread_create(&t->threads[t->nr_threads], NULL, thread_main, t);

		if (ret)
			return err_set(e, ERR_SYS, ret, "cannot create a thread for a disk");
		t->nr_threads++;
	}
	return 0;
}

int disk_engine_threads_new(int fd, uint32_t nr_threads, struct disk_engine **out, struct err *e)
{
	struct threads_engine *t = calloc(1, sizeof(*t));

	if (!t)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a disk queue");
	t->base.ops = &threads_ops;
	t->fd = fd;
	list_init(&t->taken);
	list_init(&t->waiting);
	list_init(&t->ended);
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->work, NULL);
	pthread_cond_init(&t->ended_cond, NULL);
	if (start(t, nr_threads, e) < 0) {
		threads_free(&t->base);
		return -e->code;
	}
	*out = &t->base;
	return 0;
}
