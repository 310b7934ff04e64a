/* How RDMA connections come to be, from the side that listens. */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "migration/rdma/conn_internal.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"

struct rdma_listener {
	const struct verbs_ops *v;
	struct rdma_event_channel *events;
	struct rdma_cm_id *id;
};

static int bind_and_listen(struct rdma_listener *l, const struct uri *uri, struct err *e)
{
	struct addrinfo *list;
	int ret;

	if (uri_resolve(uri, AI_PASSIVE, &list, e) < 0)
		return -e->code;
	ret = l->v->bind(l->v, l->id, list->ai_addr);
	freeaddrinfo(list);
	if (ret == -ENODEV || ret == -EADDRNOTAVAIL)
		return err_set(
			e, ERR_UNSUPPORTED, -ret,
			"%s: no RDMA device has the address of '%s'; 'godwit doctor' lists the "
			"devices and how to make one",
			uri->text, uri->host[0] ? uri->host : "127.0.0.1");
	if (ret == 0)
		ret = l->v->listen(l->v, l->id);
	if (ret < 0)
		return err_set(e, ERR_SYS, -ret, "%s: cannot listen for RDMA: %s", uri->text,
			       strerrordesc_np(-ret));
	return 0;
}

int rdma_listener_new(const struct verbs_ops *v, const struct uri *uri, struct rdma_listener **out,
		      struct err *e)
{
	struct rdma_listener *l = calloc(1, sizeof(*l));
	int ret;

	if (!l)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a listener");
	l->v = v;
	ret = rdma_open_events(v, &l->events, e);
	if (ret == 0) {
		ret = v->id_new(v, l->events, &l->id);
		ret = ret < 0 ? rdma_failed("create a listener", ret, e)
			      : bind_and_listen(l, uri, e);
	}
	if (ret < 0) {
		rdma_listener_free(l);
		return ret;
	}
	*out = l;
	return 0;
}

void rdma_listener_free(struct rdma_listener *l)
{
	if (!l)
		return;
	if (l->id)
		l->v->id_free(l->v, l->id);
	if (l->events)
		l->v->channel_free(l->v, l->events);
	free(l);
}

static void turn_away(const struct verbs_ops *v, struct rdma_cm_id *id, const char *why)
{
	size_t len = strlen(why);

	v->reject(v, id, why, (uint8_t)(len < RDMA_REASON_BYTES ? len : RDMA_REASON_BYTES));
}

static int accept_id(struct rdma_conn *c, struct err *e)
{
	struct rdma_conn_param param = rdma_conn_param(NULL);
	int ret = c->v->id_move(c->v, c->id, c->events);

	if (ret < 0)
		return rdma_failed("take over a connection", ret, e);
	if (rdma_conn_prepare(c, e) < 0)
		return -e->code;
	ret = c->v->accept(c->v, c->id, &param);
	if (ret < 0)
		return rdma_failed("accept", ret, e);
	/* No waiting for ESTABLISHED: the queue pair receives from here on, and the source may
	 * speak on the channel before that event is out. */
	c->connected = true;
	return 0;
}

/* Ours but not possible: the source hears why and decides what becomes of the channel. */
static struct rdma_conn *welcome(struct rdma_listener *l, struct rdma_cm_id *id)
{
	struct err e = ERR_INIT;
	struct rdma_conn *c = rdma_conn_new(l->v, &e);

	if (c) {
		c->id = id;
		if (accept_id(c, &e) == 0)
			return c;
		turn_away(l->v, id, e.msg);
		rdma_conn_free(c);
	} else {
		turn_away(l->v, id, e.msg);
		l->v->id_free(l->v, id);
	}
	log_warning("an RDMA connection could not be accepted: %s", e.msg);
	return NULL;
}

/* One event of the listener; the connection if it was the one that is awaited. */
static int hear(struct rdma_listener *l, const struct rdma_greeting *g, struct rdma_conn **out,
		struct err *e)
{
	struct rdma_cm_event *event;
	enum rdma_cm_event_type type;
	struct rdma_cm_id *id;
	bool ours;
	int ret = l->v->get_event(l->v, l->events, &event);

	if (ret == -EAGAIN)
		return 0;
	if (ret < 0)
		return rdma_failed("hear from the connection manager", ret, e);
	type = event->event;
	id = event->id;
	ours = g && type == RDMA_CM_EVENT_CONNECT_REQUEST &&
	       event->param.conn.private_data_len >= sizeof(*g) &&
	       !memcmp(event->param.conn.private_data, g, sizeof(*g));
	l->v->ack_event(l->v, event);
	if (type == RDMA_CM_EVENT_DEVICE_REMOVAL)
		return err_set(e, ERR_SYS, ENODEV, "RDMA: %s", verbs_cm_event_text(type));
	if (ours) {
		*out = welcome(l, id);
	} else if (type == RDMA_CM_EVENT_CONNECT_REQUEST) {
		turn_away(l->v, id, "no channel of this migration");
		l->v->id_free(l->v, id);
	}
	return 0;
}

int rdma_listener_accept(struct rdma_listener *l, const struct rdma_greeting *g, int other_fd,
			 uint64_t timeout_ns, const struct cancel *cancel, struct rdma_conn **out,
			 struct err *e)
{
	uint64_t deadline_ns = clock_now_ns() + timeout_ns;
	struct pollfd fds[] = {{.fd = l->events->fd, .events = POLLIN},
			       {.fd = other_fd, .events = POLLIN},
			       {.fd = cancel ? cancel_fd(cancel) : -1, .events = POLLIN}};

	*out = NULL;
	while (!*out) {
		uint64_t now = clock_now_ns();
		uint64_t left_ns = now < deadline_ns ? deadline_ns - now : 0;
		struct timespec left = {.tv_sec = (time_t)(left_ns / NS_PER_S),
					.tv_nsec = (long)(left_ns % NS_PER_S)};
		int nr = ppoll(fds, 3, &left, NULL);

		if (nr < 0 && errno != EINTR)
			return err_sys(e, "poll");
		if (cancel && cancel_check(cancel, e) < 0)
			return -e->code;
		if (nr == 0)
			return err_set(e, ERR_PEER, ETIMEDOUT,
				       "RDMA: the source has not connected within %.0f s",
				       (double)timeout_ns / 1e9);
		if (nr > 0 && fds[0].revents) {
			if (hear(l, g, out, e) < 0)
				return -e->code;
		} else if (nr > 0 && fds[1].revents) {
			return 0;
		}
	}
	return 0;
}
