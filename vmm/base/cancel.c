#include "vmm/base/cancel.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/base/clock.h"

struct cancel {
	atomic_bool requested;
	int fd; /* immutable after new */
};

int cancel_new(struct cancel **out, struct err *e)
{
	struct cancel *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a cancellation token");
	c->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->fd < 0) {
		free(c);
		return err_sys(e, "eventfd");
	}
	*out = c;
	return 0;
}

void cancel_free(struct cancel *c)
{
	if (!c)
		return;
	close(c->fd);
	free(c);
}

void cancel_request(struct cancel *c)
{
	uint64_t one = 1;

	atomic_store(&c->requested, true);
	/* EAGAIN only when the counter is full, and then it is readable already. */
	if (write(c->fd, &one, sizeof(one)) < 0)
		return;
}

bool cancel_requested(const struct cancel *c)
{
	return atomic_load(&c->requested);
}

int cancel_fd(const struct cancel *c)
{
	return c->fd;
}

int cancel_check(const struct cancel *c, struct err *e)
{
	return cancel_requested(c) ? err_set(e, ERR_CANCELLED, ECANCELED, "cancelled") : 0;
}

int cancel_sleep_until(const struct cancel *c, unsigned long long deadline_ns, struct err *e)
{
	struct pollfd pfd = {.fd = c->fd, .events = POLLIN};

	for (uint64_t now = clock_now_ns(); now < deadline_ns; now = clock_now_ns()) {
		struct timespec left = {.tv_sec = (time_t)((deadline_ns - now) / NS_PER_S),
					.tv_nsec = (long)((deadline_ns - now) % NS_PER_S)};

		if (ppoll(&pfd, 1, &left, NULL) > 0)
			break;
	}
	return cancel_check(c, e);
}
