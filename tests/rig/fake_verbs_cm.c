/* The fake provider's connection manager: ids, events, who is connected with whom. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "tests/rig/fake_verbs_internal.h"

void fake_tell(struct fake_verbs *f, struct id *id, enum rdma_cm_event_type type,
	       struct rdma_cm_id *child, const void *data, size_t len)
{
	struct channel *ch = (struct channel *)id->pub.channel;
	struct event *e = fake_make(f, sizeof(*e));
	struct event **at = &ch->events;

	e->pub.event = type;
	e->pub.id = child ? child : &id->pub;
	if (len > sizeof(e->data))
		len = sizeof(e->data);
	if (len)
		memcpy(e->data, data, len);
	e->pub.param.conn.private_data = e->data;
	e->pub.param.conn.private_data_len = (uint8_t)len;
	while (*at)
		at = &(*at)->next;
	*at = e;
	fake_ring(ch->pub.fd);
}

static int channel_new(const struct verbs_ops *v, struct rdma_event_channel **out)
{
	struct channel *ch;
	ENTER(v);

	ch = fake_make(f, sizeof(*ch));
	ch->pub.fd = fake_bell();
	*out = &ch->pub;
	return fake_leave(f, 0);
}

static int get_event(const struct verbs_ops *v, struct rdma_event_channel *pub,
		     struct rdma_cm_event **out)
{
	struct channel *ch = (struct channel *)pub;
	struct event *e;
	ENTER(v);

	e = ch->events;
	if (!e)
		return fake_leave(f, -EAGAIN);
	if (!fake_rang(ch->pub.fd))
		abort();
	ch->events = e->next;
	*out = &e->pub;
	return fake_leave(f, 0);
}

static void ack_event(const struct verbs_ops *v, struct rdma_cm_event *event)
{
	struct fake_verbs *f = fake_self(v);

	pthread_mutex_lock(&f->lock);
	fake_unmake(f, event);
	pthread_mutex_unlock(&f->lock);
}

static struct id *new_id(struct fake_verbs *f, struct rdma_event_channel *ch)
{
	struct id *id = fake_make(f, sizeof(*id));

	id->pub.channel = ch;
	id->pub.verbs = &f->context;
	for (int i = 0; i < MAX_OBJECTS; i++)
		if (!f->ids[i]) {
			f->ids[i] = id;
			return id;
		}
	abort();
}

static int id_new(const struct verbs_ops *v, struct rdma_event_channel *ch, struct rdma_cm_id **out)
{
	ENTER(v);
	*out = &new_id(f, ch)->pub;
	return fake_leave(f, 0);
}

void fake_drop_held(struct fake_verbs *f, struct id *id)
{
	while (id->held) {
		struct held *h = id->held;

		id->held = h->next;
		fake_unmake(f, h);
	}
}

static void forget_events(struct fake_verbs *f, struct id *id)
{
	struct channel *ch = (struct channel *)id->pub.channel;
	struct event **at = &ch->events;

	while (*at) {
		struct event *e = *at;

		if (e->pub.id != &id->pub) {
			at = &e->next;
			continue;
		}
		*at = e->next;
		if (!fake_rang(ch->pub.fd))
			abort();
		fake_unmake(f, e);
	}
}

static void end_connection(struct fake_verbs *f, struct id *id)
{
	struct id *both[2] = {id, id->peer};

	for (int i = 0; i < 2; i++) {
		if (!both[i] || !both[i]->connected || both[i]->told)
			continue;
		both[i]->told = true;
		both[i]->broken = true;
		fake_tell(f, both[i], RDMA_CM_EVENT_DISCONNECTED, NULL, NULL, 0);
	}
}

static void turn_away(struct fake_verbs *f, struct id *id, const void *data, uint8_t len)
{
	if (id->peer && !id->connected && !id->told)
		fake_tell(f, id->peer, RDMA_CM_EVENT_REJECTED, NULL, data, len);
	id->told = true;
}

static void free_id(struct fake_verbs *f, struct id *id)
{
	turn_away(f, id, NULL, 0);
	end_connection(f, id);
	if (id->peer)
		id->peer->peer = NULL;
	forget_events(f, id);
	fake_drop_held(f, id);
	for (int i = 0; i < MAX_OBJECTS; i++)
		if (f->ids[i] == id)
			f->ids[i] = NULL;
	fake_unmake(f, id);
}

static void id_free(const struct verbs_ops *v, struct rdma_cm_id *pub)
{
	struct fake_verbs *f = fake_self(v);

	pthread_mutex_lock(&f->lock);
	free_id(f, (struct id *)pub);
	pthread_mutex_unlock(&f->lock);
}

/* As in the kernel: requests that nobody has taken go with it. */
static void channel_free(const struct verbs_ops *v, struct rdma_event_channel *pub)
{
	struct channel *ch = (struct channel *)pub;
	struct fake_verbs *f = fake_self(v);

	pthread_mutex_lock(&f->lock);
	while (ch->events) {
		struct event *e = ch->events;

		if (e->pub.event == RDMA_CM_EVENT_CONNECT_REQUEST) {
			free_id(f, (struct id *)e->pub.id); /* and its events, this one too */
			continue;
		}
		ch->events = e->next;
		fake_unmake(f, e);
	}
	close(ch->pub.fd);
	fake_unmake(f, ch);
	pthread_mutex_unlock(&f->lock);
}

static int id_move(const struct verbs_ops *v, struct rdma_cm_id *id, struct rdma_event_channel *to)
{
	ENTER(v);
	id->channel = to;
	return fake_leave(f, 0);
}

static uint16_t port_of(const struct sockaddr *sa)
{
	const struct sockaddr_in *in = (const void *)sa;

	return in->sin_port;
}

static int bind_id(const struct verbs_ops *v, struct rdma_cm_id *id, struct sockaddr *sa)
{
	ENTER(v);
	((struct id *)id)->port = port_of(sa);
	return fake_leave(f, f->no_device ? -ENODEV : 0);
}

static int listen_id(const struct verbs_ops *v, struct rdma_cm_id *id)
{
	ENTER(v);
	((struct id *)id)->listens = true;
	return fake_leave(f, 0);
}

static int resolve_addr(const struct verbs_ops *v, struct rdma_cm_id *id, struct sockaddr *to,
			int timeout_ms)
{
	ENTER(v);
	(void)timeout_ms;
	((struct id *)id)->port = port_of(to);
	fake_tell(f, (struct id *)id,
		  f->no_device ? RDMA_CM_EVENT_ADDR_ERROR : RDMA_CM_EVENT_ADDR_RESOLVED, NULL, NULL,
		  0);
	return fake_leave(f, 0);
}

static int resolve_route(const struct verbs_ops *v, struct rdma_cm_id *id, int timeout_ms)
{
	ENTER(v);
	(void)timeout_ms;
	if (!f->no_route)
		fake_tell(f, (struct id *)id, RDMA_CM_EVENT_ROUTE_RESOLVED, NULL, NULL, 0);
	return fake_leave(f, f->no_route ? -ENODEV : 0);
}

static int connect_id(const struct verbs_ops *v, struct rdma_cm_id *pub, struct rdma_conn_param *p)
{
	struct id *id = (struct id *)pub;
	struct id *child = NULL;
	ENTER(v);

	for (int i = 0; i < MAX_OBJECTS && !child; i++)
		if (f->ids[i] && f->ids[i]->listens && f->ids[i]->port == id->port) {
			child = new_id(f, f->ids[i]->pub.channel);
			child->peer = id;
			id->peer = child;
			fake_tell(f, f->ids[i], RDMA_CM_EVENT_CONNECT_REQUEST, &child->pub,
				  p->private_data, p->private_data_len);
		}
	if (!child)
		fake_tell(f, id, RDMA_CM_EVENT_REJECTED, NULL, NULL, 0);
	return fake_leave(f, 0);
}

static int accept_id(const struct verbs_ops *v, struct rdma_cm_id *pub, struct rdma_conn_param *p)
{
	struct id *id = (struct id *)pub;
	ENTER(v);

	(void)p;
	if (!id->peer)
		return fake_leave(f, -ECONNRESET);
	id->connected = id->peer->connected = true;
	fake_tell(f, id->peer, RDMA_CM_EVENT_ESTABLISHED, NULL, NULL, 0);
	fake_tell(f, id, RDMA_CM_EVENT_ESTABLISHED, NULL, NULL, 0);
	return fake_leave(f, 0);
}

static int reject(const struct verbs_ops *v, struct rdma_cm_id *pub, const void *data, uint8_t len)
{
	ENTER(v);
	turn_away(f, (struct id *)pub, data, len);
	return fake_leave(f, 0);
}

static int disconnect(const struct verbs_ops *v, struct rdma_cm_id *pub)
{
	ENTER(v);
	end_connection(f, (struct id *)pub);
	return fake_leave(f, 0);
}

void fake_cm_install(struct verbs_ops *ops)
{
	ops->channel_new = channel_new;
	ops->channel_free = channel_free;
	ops->get_event = get_event;
	ops->ack_event = ack_event;
	ops->id_new = id_new;
	ops->id_free = id_free;
	ops->id_move = id_move;
	ops->bind = bind_id;
	ops->listen = listen_id;
	ops->resolve_addr = resolve_addr;
	ops->resolve_route = resolve_route;
	ops->connect = connect_id;
	ops->accept = accept_id;
	ops->reject = reject;
	ops->disconnect = disconnect;
}
