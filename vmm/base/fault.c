#include "vmm/base/fault.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct fault {
	/* immutable once points are passed */
	void (*observer)(void *ctx, const char *name);
	void *observer_ctx;

	pthread_mutex_t lock; /* guards everything below */
	uint64_t passed;
	uint64_t armed_nth;
	const char *armed_name;
	const char *fired;
};

int fault_new(struct fault **out, struct err *e)
{
	struct fault *f = calloc(1, sizeof(*f));

	if (!f)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for fault points");
	pthread_mutex_init(&f->lock, NULL);
	*out = f;
	return 0;
}

void fault_free(struct fault *f)
{
	if (!f)
		return;
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static void arm(struct fault *f, uint64_t nth, const char *name)
{
	pthread_mutex_lock(&f->lock);
	f->passed = 0;
	f->armed_nth = nth;
	f->armed_name = name;
	f->fired = NULL;
	pthread_mutex_unlock(&f->lock);
}

void fault_arm(struct fault *f, uint64_t nth)
{
	arm(f, nth, NULL);
}

void fault_arm_name(struct fault *f, const char *name)
{
	arm(f, 0, name);
}

void fault_observe(struct fault *f, void (*passed)(void *ctx, const char *name), void *ctx)
{
	f->observer = passed;
	f->observer_ctx = ctx;
}

uint64_t fault_passed(const struct fault *f)
{
	return f->passed;
}

const char *fault_fired(const struct fault *f)
{
	return f->fired;
}

int fault_point(struct fault *f, const char *name, struct err *e)
{
	bool fire;

	if (!f)
		return 0;
	if (f->observer)
		f->observer(f->observer_ctx, name);
	pthread_mutex_lock(&f->lock);
	f->passed++;
	fire = !f->fired && ((f->armed_nth && f->passed == f->armed_nth) ||
			     (f->armed_name && !strcmp(f->armed_name, name)));
	if (fire)
		f->fired = name;
	pthread_mutex_unlock(&f->lock);
	return fire ? err_set(e, ERR_INJECTED, EIO, "injected fault at %s", name) : 0;
}
