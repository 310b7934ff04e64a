#include "vmm/virtio/io_thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/dev/dev_thread.h"

/* More than any device watches (its queues and a few of its own), so that one turn sees all that is
 * ready: what the header promises about calls rests on it. */
#define TURN_EVENTS 64

struct io_call {
	int (*fn)(void *ctx, struct err *e);
	void *ctx;
	struct err *e;
	int result;
	bool done;
};

struct io_thread {
	/* immutable after new */
	int epoll_fd;
	int wake_fd;
	pthread_t thread;

	/* guarded by lock */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* call was taken, or is done */
	struct io_call *call;   /* one at a time; NULL: the mailbox is empty */
	bool stopping;
};

/* ---- The loop ---- */

/* Returns whether to go on. */
static bool serve_mailbox(struct io_thread *t)
{
	struct io_call *call;
	uint64_t count;
	bool stopping;

	if (read(t->wake_fd, &count, sizeof(count)) < 0)
		return true;
	pthread_mutex_lock(&t->lock);
	call = t->call;
	stopping = t->stopping;
	pthread_mutex_unlock(&t->lock);
	if (call) {
		call->result = call->fn(call->ctx, call->e);
		pthread_mutex_lock(&t->lock);
		call->done = true;
		t->call = NULL;
		pthread_cond_broadcast(&t->changed);
		pthread_mutex_unlock(&t->lock);
	}
	return !stopping;
}

/* A watch that an earlier one of this turn ended is not served any more: its events say 0. */
static bool turn(struct io_thread *t)
{
	struct epoll_event ready[TURN_EVENTS];
	int nr = epoll_wait(t->epoll_fd, ready, TURN_EVENTS, -1);
	bool mail = false;

	for (int i = 0; i < nr; i++) {
		struct io_watch *w = ready[i].data.ptr;

		if (!w)
			mail = true;
		else if (w->events)
			w->ready(w->ctx, ready[i].events);
	}
	return mail ? serve_mailbox(t) : true;
}

static void *run(void *arg)
{
	while (turn(arg))
		;
	return NULL;
}

/* ---- Outside ---- */

static int open_fds(struct io_thread *t, struct err *e)
{
	struct epoll_event mail = {.events = EPOLLIN, .data.ptr = NULL};

	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->epoll_fd < 0 || t->wake_fd < 0 ||
	    epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->wake_fd, &mail) < 0)
		return err_sys(e, "cannot make an event loop (raise `ulimit -n`?)");
	return 0;
}

static void destroy(struct io_thread *t)
{
	if (t->epoll_fd >= 0)
		close(t->epoll_fd);
	if (t->wake_fd >= 0)
		close(t->wake_fd);
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

int io_thread_new(const char *name, struct io_thread **out, struct err *e)
{
	struct io_thread *t = calloc(1, sizeof(*t));
	int ret;

	if (!t)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for an I/O thread");
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->changed, NULL);
	t->epoll_fd = t->wake_fd = -1;
	ret = open_fds(t, e);
	if (ret == 0)
		ret = dev_thread_start(&t->thread, name, run, t, e);
	if (ret < 0) {
		destroy(t);
		return ret;
	}
	*out = t;
	return 0;
}

static void wake(struct io_thread *t)
{
	const uint64_t one = 1;
	/* Only a full counter could refuse, and it holds 2^64 - 2. */
	ssize_t ignored = write(t->wake_fd, &one, sizeof(one));

	(void)ignored;
}

void io_thread_free(struct io_thread *t)
{
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	t->stopping = true;
	pthread_mutex_unlock(&t->lock);
	wake(t);
	pthread_join(t->thread, NULL);
	destroy(t);
}

int io_thread_watch(struct io_thread *t, struct io_watch *w, uint32_t events, struct err *e)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};
	int op = !w->events ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;

	if (events == w->events)
		return 0;
	if (epoll_ctl(t->epoll_fd, op, w->fd, &ev) < 0)
		return err_sys(e, "cannot watch descriptor %d", w->fd);
	w->events = events;
	return 0;
}

int io_thread_call(struct io_thread *t, int (*fn)(void *ctx, struct err *e), void *ctx,
		   struct err *e)
{
	struct io_call call = {.fn = fn, .ctx = ctx, .e = e};

	pthread_mutex_lock(&t->lock);
	while (t->call)
		pthread_cond_wait(&t->changed, &t->lock);
	t->call = &call;
	wake(t);
	while (!call.done)
		pthread_cond_wait(&t->changed, &t->lock);
	pthread_mutex_unlock(&t->lock);
	return call.result;
}
