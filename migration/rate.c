#include "migration/rate.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "vmm/base/clock.h"

#define BURST_NS (20 * NS_PER_MS)

struct rate_limit {
	const struct cancel *cancel; /* immutable */
	pthread_mutex_t lock;        /* guards the rest */
	uint64_t bytes_per_s;
	uint64_t paid_until_ns; /* everything taken so far is paid for at this time */
};

int rate_limit_new(uint64_t bytes_per_s, const struct cancel *cancel, struct rate_limit **out,
		   struct err *e)
{
	struct rate_limit *r = calloc(1, sizeof(*r));

	if (!r)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a rate limit");
	pthread_mutex_init(&r->lock, NULL);
	r->bytes_per_s = bytes_per_s;
	r->cancel = cancel;
	*out = r;
	return 0;
}

void rate_limit_free(struct rate_limit *r)
{
	if (!r)
		return;
	pthread_mutex_destroy(&r->lock);
	free(r);
}

void rate_limit_set(struct rate_limit *r, uint64_t bytes_per_s)
{
	pthread_mutex_lock(&r->lock);
	r->bytes_per_s = bytes_per_s;
	pthread_mutex_unlock(&r->lock);
}

bool rate_limit_is_set(struct rate_limit *r)
{
	bool set;

	pthread_mutex_lock(&r->lock);
	set = r->bytes_per_s != 0;
	pthread_mutex_unlock(&r->lock);
	return set;
}

int rate_limit_take(struct rate_limit *r, uint64_t bytes, struct err *e)
{
	uint64_t now = clock_now_ns();
	uint64_t due;

	pthread_mutex_lock(&r->lock);
	if (!r->bytes_per_s) {
		pthread_mutex_unlock(&r->lock);
		return 0;
	}
	if (r->paid_until_ns + BURST_NS < now)
		r->paid_until_ns = now - BURST_NS;
	due = r->paid_until_ns;
	r->paid_until_ns += (uint64_t)((double)bytes * (double)NS_PER_S / (double)r->bytes_per_s);
	pthread_mutex_unlock(&r->lock);
	return due > now ? cancel_sleep_until(r->cancel, due, e) : 0;
}
