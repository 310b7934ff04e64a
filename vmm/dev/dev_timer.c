#include "vmm/dev/dev_timer.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "vmm/base/clock.h"
#include "vmm/dev/dev_thread.h"

struct dev_timer {
	/* immutable after new */
	dev_timer_fn fire;
	void *ctx;
	pthread_t thread;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* guarded by lock */
	uint64_t deadline_ns;
	bool stop;
};

static void wait_for_change(struct dev_timer *t)
{
	struct timespec ts = {.tv_sec = (time_t)(t->deadline_ns / NS_PER_S),
			      .tv_nsec = (long)(t->deadline_ns % NS_PER_S)};

	if (t->deadline_ns == DEV_TIMER_NEVER)
		pthread_cond_wait(&t->changed, &t->lock);
	else
		pthread_cond_timedwait(&t->changed, &t->lock, &ts);
}

static void *timer_thread(void *arg)
{
	struct dev_timer *t = arg;

	pthread_mutex_lock(&t->lock);
	while (!t->stop) {
		if (t->deadline_ns == DEV_TIMER_NEVER || clock_now_ns() < t->deadline_ns) {
			wait_for_change(t);
			continue;
		}
		t->deadline_ns = DEV_TIMER_NEVER;
		pthread_mutex_unlock(&t->lock);
		t->fire(t->ctx);
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void init_sync(struct dev_timer *t)
{
	pthread_condattr_t attr;

	/* Deadlines are on the monotonic clock: a step of the wall clock must not move them. */
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&t->changed, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&t->lock, NULL);
}

static void destroy(struct dev_timer *t)
{
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

int dev_timer_new(const char *name, dev_timer_fn fire, void *ctx, struct dev_timer **out,
		  struct err *e)
{
	struct dev_timer *t = calloc(1, sizeof(*t));
	int ret;

	if (!t)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for timer %s", name);
	t->fire = fire;
	t->ctx = ctx;
	t->deadline_ns = DEV_TIMER_NEVER;
	init_sync(t);
	ret = dev_thread_start(&t->thread, name, timer_thread, t, e);
	if (ret) {
		destroy(t);
		return ret;
	}
	*out = t;
	return 0;
}

void dev_timer_free(struct dev_timer *t)
{
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_signal(&t->changed);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->thread, NULL);
	destroy(t);
}

void dev_timer_set(struct dev_timer *t, uint64_t deadline_ns)
{
	pthread_mutex_lock(&t->lock);
	if (t->deadline_ns != deadline_ns) {
		t->deadline_ns = deadline_ns;
		pthread_cond_signal(&t->changed);
	}
	pthread_mutex_unlock(&t->lock);
}
