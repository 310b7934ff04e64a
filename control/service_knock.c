#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/service_state.h"
#include "proto/record.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"

#define PATIENCE_NS (10 * NS_PER_S)
#define TICK_MS     20
#define MOST_BYTES  (RECORD_HEADER_BYTES + (64u << 10))

struct knock {
	struct knock *next;
	struct knock **link; /* what points here */
	struct service *service;
	int fd;
	uint64_t deadline_ns;
	uv_poll_t readable;
	/* While half a record is there the descriptor is readable without news: then time tells. */
	uv_timer_t tick;
	unsigned int nr_open;
};

static void on_closed(uv_handle_t *handle)
{
	struct knock *k = handle->data;

	if (--k->nr_open)
		return;
	if (k->fd >= 0)
		close(k->fd);
	service_on_knock_gone(k->service);
	free(k);
}

static void end(struct knock *k)
{
	*k->link = k->next;
	if (k->next)
		k->next->link = k->link;
	uv_close((uv_handle_t *)&k->readable, on_closed);
	uv_close((uv_handle_t *)&k->tick, on_closed);
}

/* Whose is it? 1 when @first says so, 0 when more must come. What has come stays in the socket. */
static int peek(int fd, struct first_record *first, struct err *e)
{
	uint8_t *bytes = malloc(MOST_BYTES);
	size_t need;
	ssize_t nr;
	int ret;

	if (!bytes)
		return err_set(e, ERR_SYS, ENOMEM, "no memory to look at a connection");
	nr = recv(fd, bytes, MOST_BYTES, MSG_PEEK | MSG_DONTWAIT);
	if (nr < 0)
		ret = errno == EAGAIN || errno == EINTR ? 0 : err_sys(e, "recv");
	else if (nr == 0)
		ret = err_set(e, ERR_PEER, ECONNRESET, "it went away without a word");
	else
		ret = first_record_parse(bytes, (size_t)nr, first, &need, e);
	if (ret == 0 && nr > 0)
		ret = need <= (size_t)nr;
	free(bytes);
	return ret;
}

/* A stranger is nothing to trouble the user with: anybody may connect to a port. */
static void look(struct knock *k)
{
	struct err e = ERR_INIT;
	struct first_record first;
	int known = peek(k->fd, &first, &e);

	if (known == 0) {
		uv_poll_stop(&k->readable);
		return;
	}
	if (known > 0) {
		int fd = k->fd;

		k->fd = -1;
		uv_poll_stop(&k->readable);
		service_take(k->service, fd, &first);
	} else {
		log_info("a connection that is no migration: %s", e.msg);
	}
	end(k);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	look(poll->data);
}

static void on_tick(uv_timer_t *timer)
{
	struct knock *k = timer->data;

	if (clock_now_ns() < k->deadline_ns)
		look(k);
	else
		end(k);
}

void knock_new(struct service *s, int fd)
{
	struct knock *k = calloc(1, sizeof(*k));

	if (!k || uv_poll_init(&s->loop, &k->readable, fd) < 0) {
		log_warning("no resources for another connection");
		close(fd);
		free(k);
		return;
	}
	k->service = s;
	k->fd = fd;
	k->deadline_ns = clock_now_ns() + PATIENCE_NS;
	uv_timer_init(&s->loop, &k->tick);
	k->nr_open = 2;
	k->readable.data = k;
	k->tick.data = k;
	k->next = s->knocks;
	k->link = &s->knocks;
	if (k->next)
		k->next->link = &k->next;
	s->knocks = k;
	s->nr_knocks++;
	uv_poll_start(&k->readable, UV_READABLE, on_readable);
	uv_timer_start(&k->tick, on_tick, TICK_MS, TICK_MS);
}

void knock_close_all(struct service *s)
{
	while (s->knocks)
		end(s->knocks);
}
