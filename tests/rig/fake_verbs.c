#include "tests/rig/fake_verbs.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MAX_OBJECTS 64
#define MAX_WCS     1024

struct event {
	struct rdma_cm_event pub; /* first */
	uint8_t data[64];
	struct event *next;
};

struct channel {
	struct rdma_event_channel pub; /* first */
	struct event *events;
};

struct comp {
	struct ibv_comp_channel pub; /* first */
};

struct cq {
	struct ibv_cq pub; /* first */
	struct ibv_wc wcs[MAX_WCS];
	uint32_t nr;
	bool armed;
};

struct mr {
	struct ibv_mr pub; /* first */
	uint64_t iova;
	int access;
	struct mr *next;
};

struct held {
	struct ibv_send_wr wr;
	struct ibv_sge sge;
	struct held *next;
};

struct id {
	struct rdma_cm_id pub; /* first */
	struct ibv_qp qp;
	struct id *peer;
	uint16_t port;
	bool listens;
	bool connected;
	bool broken; /* the queue pair is in the error state */
	uint32_t nr_recvs;
	struct held *held; /* posted, not carried out */
	bool told;         /* of the end */
};

struct fake_verbs {
	struct verbs_ops ops; /* first */
	struct ibv_device device;
	struct ibv_context context;

	pthread_mutex_t lock; /* guards the rest */
	uint32_t random;
	struct id *ids[MAX_OBJECTS];
	struct cq *cqs[MAX_OBJECTS];
	struct mr *mrs;
	uint32_t nr_alive;
	uint32_t next_key;
	uint64_t pinned[2];
	uint64_t most_pinned[2];
	uint64_t limit[2];
	uint32_t nr_regions[2];
	uint32_t max_regions[2]; /* 0: no limit */
	uint64_t written_bytes;
	uint64_t nr_registered;
	bool on_demand;
	bool no_device;
	bool hangs;
	uint64_t nr_calls;
	uint64_t fail_call;
	int fail_code;
	uint64_t nr_completions;
	uint64_t fail_completion;
	enum ibv_wc_status fail_status;
	const char *fired;
	struct cq *overrun[MAX_OBJECTS];
	uint32_t nr_overrun;
};

static struct fake_verbs *self(const struct verbs_ops *v)
{
	return (struct fake_verbs *)(uintptr_t)
		v; /* first member; the table is const, its owner not */
}

static uint32_t dice(struct fake_verbs *f, uint32_t sides)
{
	f->random = f->random * 1664525 + 1013904223;
	return (f->random >> 8) % sides;
}

static void *make(struct fake_verbs *f, size_t bytes)
{
	void *p = calloc(1, bytes);

	if (!p)
		abort();
	f->nr_alive++;
	return p;
}

static void unmake(struct fake_verbs *f, void *p)
{
	f->nr_alive--;
	free(p);
}

/* Enter a call: 0 with the lock held, or the failure that was asked for. */
static int enter(struct fake_verbs *f, const char *name)
{
	pthread_mutex_lock(&f->lock);
	if (++f->nr_calls != f->fail_call)
		return 0;
	f->fired = name;
	pthread_mutex_unlock(&f->lock);
	return -f->fail_code;
}

static int leave(struct fake_verbs *f, int ret)
{
	pthread_mutex_unlock(&f->lock);
	return ret;
}

#define ENTER(v)                          \
	struct fake_verbs *f = self(v);   \
	int refused = enter(f, __func__); \
	if (refused)                      \
	return refused

static void ring(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) < 0)
		abort();
}

static bool rang(int fd)
{
	uint64_t count;

	return read(fd, &count, sizeof(count)) == sizeof(count);
}

static int bell(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
}

/* ---- the connection manager ---- */

static void tell(struct fake_verbs *f, struct id *id, enum rdma_cm_event_type type,
		 struct rdma_cm_id *child, const void *data, size_t len)
{
	struct channel *ch = (struct channel *)id->pub.channel;
	struct event *e = make(f, sizeof(*e));
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
	ring(ch->pub.fd);
}

static int channel_new(const struct verbs_ops *v, struct rdma_event_channel **out)
{
	struct channel *ch;
	ENTER(v);

	ch = make(f, sizeof(*ch));
	ch->pub.fd = bell();
	*out = &ch->pub;
	return leave(f, 0);
}

static int get_event(const struct verbs_ops *v, struct rdma_event_channel *pub,
		     struct rdma_cm_event **out)
{
	struct channel *ch = (struct channel *)pub;
	struct event *e;
	ENTER(v);

	e = ch->events;
	if (!e)
		return leave(f, -EAGAIN);
	if (!rang(ch->pub.fd))
		abort();
	ch->events = e->next;
	*out = &e->pub;
	return leave(f, 0);
}

static void ack_event(const struct verbs_ops *v, struct rdma_cm_event *event)
{
	struct fake_verbs *f = self(v);

	pthread_mutex_lock(&f->lock);
	unmake(f, event);
	pthread_mutex_unlock(&f->lock);
}

static struct id *new_id(struct fake_verbs *f, struct rdma_event_channel *ch)
{
	struct id *id = make(f, sizeof(*id));

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
	return leave(f, 0);
}

static void drop_held(struct fake_verbs *f, struct id *id)
{
	while (id->held) {
		struct held *h = id->held;

		id->held = h->next;
		unmake(f, h);
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
		if (!rang(ch->pub.fd))
			abort();
		unmake(f, e);
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
		tell(f, both[i], RDMA_CM_EVENT_DISCONNECTED, NULL, NULL, 0);
	}
}

static void turn_away(struct fake_verbs *f, struct id *id, const void *data, uint8_t len)
{
	if (id->peer && !id->connected && !id->told)
		tell(f, id->peer, RDMA_CM_EVENT_REJECTED, NULL, data, len);
	id->told = true;
}

static void free_id(struct fake_verbs *f, struct id *id)
{
	turn_away(f, id, NULL, 0);
	end_connection(f, id);
	if (id->peer)
		id->peer->peer = NULL;
	forget_events(f, id);
	drop_held(f, id);
	for (int i = 0; i < MAX_OBJECTS; i++)
		if (f->ids[i] == id)
			f->ids[i] = NULL;
	unmake(f, id);
}

static void id_free(const struct verbs_ops *v, struct rdma_cm_id *pub)
{
	struct fake_verbs *f = self(v);

	pthread_mutex_lock(&f->lock);
	free_id(f, (struct id *)pub);
	pthread_mutex_unlock(&f->lock);
}

/* As in the kernel: requests that nobody has taken go with it. */
static void channel_free(const struct verbs_ops *v, struct rdma_event_channel *pub)
{
	struct channel *ch = (struct channel *)pub;
	struct fake_verbs *f = self(v);

	pthread_mutex_lock(&f->lock);
	while (ch->events) {
		struct event *e = ch->events;

		if (e->pub.event == RDMA_CM_EVENT_CONNECT_REQUEST) {
			free_id(f, (struct id *)e->pub.id); /* and its events, this one too */
			continue;
		}
		ch->events = e->next;
		unmake(f, e);
	}
	close(ch->pub.fd);
	unmake(f, ch);
	pthread_mutex_unlock(&f->lock);
}

static int id_move(const struct verbs_ops *v, struct rdma_cm_id *id, struct rdma_event_channel *to)
{
	ENTER(v);
	id->channel = to;
	return leave(f, 0);
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
	return leave(f, f->no_device ? -ENODEV : 0);
}

static int listen_id(const struct verbs_ops *v, struct rdma_cm_id *id)
{
	ENTER(v);
	((struct id *)id)->listens = true;
	return leave(f, 0);
}

static int resolve_addr(const struct verbs_ops *v, struct rdma_cm_id *id, struct sockaddr *to,
			int timeout_ms)
{
	ENTER(v);
	(void)timeout_ms;
	((struct id *)id)->port = port_of(to);
	tell(f, (struct id *)id,
	     f->no_device ? RDMA_CM_EVENT_ADDR_ERROR : RDMA_CM_EVENT_ADDR_RESOLVED, NULL, NULL, 0);
	return leave(f, 0);
}

static int resolve_route(const struct verbs_ops *v, struct rdma_cm_id *id, int timeout_ms)
{
	ENTER(v);
	(void)timeout_ms;
	tell(f, (struct id *)id, RDMA_CM_EVENT_ROUTE_RESOLVED, NULL, NULL, 0);
	return leave(f, 0);
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
			tell(f, f->ids[i], RDMA_CM_EVENT_CONNECT_REQUEST, &child->pub,
			     p->private_data, p->private_data_len);
		}
	if (!child)
		tell(f, id, RDMA_CM_EVENT_REJECTED, NULL, NULL, 0);
	return leave(f, 0);
}

static int accept_id(const struct verbs_ops *v, struct rdma_cm_id *pub, struct rdma_conn_param *p)
{
	struct id *id = (struct id *)pub;
	ENTER(v);

	(void)p;
	if (!id->peer)
		return leave(f, -ECONNRESET);
	id->connected = id->peer->connected = true;
	tell(f, id->peer, RDMA_CM_EVENT_ESTABLISHED, NULL, NULL, 0);
	tell(f, id, RDMA_CM_EVENT_ESTABLISHED, NULL, NULL, 0);
	return leave(f, 0);
}

static int reject(const struct verbs_ops *v, struct rdma_cm_id *pub, const void *data, uint8_t len)
{
	ENTER(v);
	turn_away(f, (struct id *)pub, data, len);
	return leave(f, 0);
}

static int disconnect(const struct verbs_ops *v, struct rdma_cm_id *pub)
{
	ENTER(v);
	end_connection(f, (struct id *)pub);
	return leave(f, 0);
}

/* ---- the device ---- */

static int query(const struct verbs_ops *v, struct ibv_context *ctx, struct ibv_device_attr_ex *out)
{
	ENTER(v);
	(void)ctx;
	out->orig_attr.max_mr = 1 << 20;
	out->orig_attr.max_qp_wr = 16384;
	out->orig_attr.max_cqe = 16384;
	if (f->on_demand) {
		out->odp_caps.general_caps = IBV_ODP_SUPPORT;
		out->odp_caps.per_transport_caps.rc_odp_caps = IBV_ODP_SUPPORT_WRITE;
	}
	return leave(f, 0);
}

static int async_event(const struct verbs_ops *v, struct ibv_context *ctx,
		       struct ibv_async_event *out)
{
	ENTER(v);
	if (!f->nr_overrun)
		return leave(f, -EAGAIN);
	if (!rang(ctx->async_fd))
		abort();
	out->event_type = IBV_EVENT_CQ_ERR;
	out->element.cq = &f->overrun[--f->nr_overrun]->pub;
	return leave(f, 0);
}

static void async_ack(const struct verbs_ops *v, struct ibv_async_event *event)
{
	(void)v;
	(void)event;
}

static int pd_new(const struct verbs_ops *v, struct ibv_context *ctx, struct ibv_pd **out)
{
	ENTER(v);
	*out = make(f, sizeof(**out));
	(*out)->context = ctx;
	return leave(f, 0);
}

static void free_object(const struct verbs_ops *v, void *object)
{
	struct fake_verbs *f = self(v);

	pthread_mutex_lock(&f->lock);
	unmake(f, object);
	pthread_mutex_unlock(&f->lock);
}

static void pd_free(const struct verbs_ops *v, struct ibv_pd *pd)
{
	free_object(v, pd);
}

static int comp_new(const struct verbs_ops *v, struct ibv_context *ctx,
		    struct ibv_comp_channel **out)
{
	ENTER(v);
	(void)ctx;
	*out = make(f, sizeof(struct comp));
	(*out)->fd = bell();
	return leave(f, 0);
}

static void comp_free(const struct verbs_ops *v, struct ibv_comp_channel *comp)
{
	close(comp->fd);
	free_object(v, comp);
}

static int cq_new(const struct verbs_ops *v, struct ibv_context *ctx, int depth, void *cookie,
		  struct ibv_comp_channel *comp, struct ibv_cq **out)
{
	struct cq *cq;
	ENTER(v);

	(void)ctx;
	(void)depth;
	cq = make(f, sizeof(*cq));
	cq->pub.channel = comp;
	cq->pub.cq_context = cookie;
	for (int i = 0; i < MAX_OBJECTS; i++)
		if (!f->cqs[i]) {
			f->cqs[i] = cq;
			break;
		}
	*out = &cq->pub;
	return leave(f, 0);
}

static void cq_free(const struct verbs_ops *v, struct ibv_cq *cq)
{
	struct fake_verbs *f = self(v);

	pthread_mutex_lock(&f->lock);
	for (int i = 0; i < MAX_OBJECTS; i++)
		if (f->cqs[i] == (struct cq *)cq)
			f->cqs[i] = NULL;
	unmake(f, cq);
	pthread_mutex_unlock(&f->lock);
}

/* ---- carrying out ---- */

static void complete(struct id *id, const struct ibv_wc *wc)
{
	struct cq *cq = (struct cq *)id->qp.send_cq;

	if (cq->nr == MAX_WCS)
		abort(); /* the one who sized the queue was wrong */
	cq->wcs[cq->nr++] = *wc;
	if (cq->armed)
		ring(cq->pub.channel->fd);
	cq->armed = false;
}

/* The memory that (@key, @addr, @len) names in @pd, or NULL as an adapter would say. */
static uint8_t *reach(struct fake_verbs *f, const struct ibv_pd *pd, uint32_t key, uint64_t addr,
		      uint64_t len, int need_access)
{
	for (struct mr *m = f->mrs; m; m = m->next)
		if (m->pub.pd == pd && m->pub.lkey == key && addr >= m->iova &&
		    addr + len <= m->iova + m->pub.length &&
		    (m->access & need_access) == need_access)
			return (uint8_t *)m->pub.addr + (addr - m->iova);
	return NULL;
}

static enum ibv_wc_status write_out(struct fake_verbs *f, struct id *id, const struct held *h)
{
	const uint8_t *from = reach(f, id->qp.pd, h->sge.lkey, h->sge.addr, h->sge.length, 0);
	uint8_t *to;

	if (!from)
		return IBV_WC_LOC_PROT_ERR;
	to = reach(f, id->peer->qp.pd, h->wr.wr.rdma.rkey, h->wr.wr.rdma.remote_addr, h->sge.length,
		   IBV_ACCESS_REMOTE_WRITE);
	if (!to)
		return IBV_WC_REM_ACCESS_ERR;
	memcpy(to, from, h->sge.length);
	f->written_bytes += h->sge.length;
	return IBV_WC_SUCCESS;
}

static enum ibv_wc_status send_out(struct id *id, const struct held *h)
{
	struct ibv_wc wc = {.wr_id = 1ull << 32,
			    .opcode = IBV_WC_RECV,
			    .wc_flags = IBV_WC_WITH_IMM,
			    .imm_data = h->wr.imm_data};

	if (!id->peer->nr_recvs)
		return IBV_WC_RNR_RETRY_EXC_ERR;
	id->peer->nr_recvs--;
	complete(id->peer, &wc);
	return IBV_WC_SUCCESS;
}

static enum ibv_wc_status carry_out(struct fake_verbs *f, struct id *id, const struct held *h)
{
	if (id->broken)
		return IBV_WC_WR_FLUSH_ERR;
	if (++f->nr_completions == f->fail_completion) {
		f->fired = "completion";
		return f->fail_status;
	}
	if (!id->peer || id->peer->broken || !id->peer->qp.pd)
		return IBV_WC_RETRY_EXC_ERR;
	return h->wr.opcode == IBV_WR_RDMA_WRITE ? write_out(f, id, h) : send_out(id, h);
}

/* One of the writes that may go next: any of those before the first message. */
static struct held **pick(struct fake_verbs *f, struct id *id)
{
	struct held **at = &id->held;
	uint32_t nr = 0;

	for (struct held *h = id->held; h && h->wr.opcode == IBV_WR_RDMA_WRITE; h = h->next)
		nr++;
	for (uint32_t i = nr ? dice(f, nr) : 0; i; i--)
		at = &(*at)->next;
	return at;
}

static void carry_out_all(struct fake_verbs *f, struct id *id)
{
	while (id->held && !f->hangs) {
		struct held **at = pick(f, id);
		struct held *h = *at;
		struct ibv_wc wc = {.wr_id = h->wr.wr_id, .status = carry_out(f, id, h)};

		*at = h->next;
		if (wc.status != IBV_WC_SUCCESS || h->wr.send_flags & IBV_SEND_SIGNALED)
			complete(id, &wc);
		if (wc.status != IBV_WC_SUCCESS)
			id->broken = true;
		unmake(f, h);
	}
}

/* Somebody is about to wait: now things happen. Until then they pile up, to be shuffled. */
static int cq_arm(const struct verbs_ops *v, struct ibv_cq *cq)
{
	ENTER(v);
	((struct cq *)cq)->armed = true;
	for (int i = 0; i < MAX_OBJECTS; i++)
		if (f->ids[i] && f->ids[i]->qp.send_cq == cq)
			carry_out_all(f, f->ids[i]);
	return leave(f, 0);
}

static int cq_event(const struct verbs_ops *v, struct ibv_comp_channel *comp)
{
	ENTER(v);
	return leave(f, rang(comp->fd) ? 0 : -EAGAIN);
}

static int cq_poll(const struct verbs_ops *v, struct ibv_cq *pub, int nr, struct ibv_wc *out)
{
	struct cq *cq = (struct cq *)pub;
	ENTER(v);

	(void)nr;
	if (!cq->nr)
		return leave(f, 0);
	*out = cq->wcs[0];
	memmove(cq->wcs, cq->wcs + 1, --cq->nr * sizeof(cq->wcs[0]));
	return leave(f, 1);
}

static int qp_new(const struct verbs_ops *v, struct rdma_cm_id *pub, struct ibv_pd *pd,
		  struct ibv_qp_init_attr *attr)
{
	struct id *id = (struct id *)pub;
	ENTER(v);

	id->qp = (struct ibv_qp){.pd = pd,
				 .send_cq = attr->send_cq,
				 .qp_context = attr->qp_context,
				 .srq = (void *)id};
	id->pub.qp = &id->qp;
	f->nr_alive++;
	return leave(f, 0);
}

static void qp_free(const struct verbs_ops *v, struct rdma_cm_id *pub)
{
	struct fake_verbs *f = self(v);
	struct id *id = (struct id *)pub;

	pthread_mutex_lock(&f->lock);
	drop_held(f, id);
	memset(&id->qp, 0, sizeof(id->qp));
	id->pub.qp = NULL;
	f->nr_alive--;
	pthread_mutex_unlock(&f->lock);
}

static struct id *id_of(struct ibv_qp *qp)
{
	return (struct id *)qp->srq; /* a member of the public struct that nobody else uses */
}

static int post_send(const struct verbs_ops *v, struct ibv_qp *qp, struct ibv_send_wr *wr)
{
	struct id *id = id_of(qp);
	struct held **end = &id->held;
	ENTER(v);

	while (*end)
		end = &(*end)->next;
	for (; wr; wr = wr->next) {
		struct held *h = make(f, sizeof(*h));

		h->wr = *wr;
		if (wr->num_sge)
			h->sge = *wr->sg_list;
		*end = h;
		end = &h->next;
	}
	return leave(f, 0);
}

static int post_recv(const struct verbs_ops *v, struct ibv_qp *qp, struct ibv_recv_wr *wr)
{
	ENTER(v);
	(void)wr;
	id_of(qp)->nr_recvs++;
	return leave(f, 0);
}

static int mr_new(const struct verbs_ops *v, struct ibv_pd *pd, void *at, size_t len, uint64_t iova,
		  int access, struct ibv_mr **out)
{
	bool target = access & IBV_ACCESS_REMOTE_WRITE;
	uint64_t pinned = access & IBV_ACCESS_ON_DEMAND ? 0 : len;
	struct mr *m;
	ENTER(v);

	if (f->limit[target] && f->pinned[target] + pinned > f->limit[target])
		return leave(f, -ENOMEM);
	if (f->max_regions[target] && f->nr_regions[target] == f->max_regions[target])
		return leave(f, -EAGAIN);
	m = make(f, sizeof(*m));
	m->pub = (struct ibv_mr){.pd = pd, .addr = at, .length = len, .lkey = ++f->next_key};
	m->pub.rkey = m->pub.lkey;
	m->iova = iova;
	m->access = access;
	m->next = f->mrs;
	f->mrs = m;
	f->nr_registered++;
	f->nr_regions[target]++;
	f->pinned[target] += pinned;
	if (f->pinned[target] > f->most_pinned[target])
		f->most_pinned[target] = f->pinned[target];
	*out = &m->pub;
	return leave(f, 0);
}

/* Never made to fail: there is nothing anybody could do. */
static int mr_free(const struct verbs_ops *v, struct ibv_mr *pub)
{
	struct fake_verbs *f = self(v);
	struct mr *m = (struct mr *)pub;
	struct mr **at = &f->mrs;
	bool target = m->access & IBV_ACCESS_REMOTE_WRITE;

	pthread_mutex_lock(&f->lock);
	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	f->nr_regions[target]--;
	if (!(m->access & IBV_ACCESS_ON_DEMAND))
		f->pinned[target] -= m->pub.length;
	unmake(f, m);
	return leave(f, 0);
}

static const struct verbs_ops fake_ops = {
	.channel_new = channel_new,
	.channel_free = channel_free,
	.get_event = get_event,
	.ack_event = ack_event,
	.id_new = id_new,
	.id_free = id_free,
	.id_move = id_move,
	.bind = bind_id,
	.listen = listen_id,
	.resolve_addr = resolve_addr,
	.resolve_route = resolve_route,
	.connect = connect_id,
	.accept = accept_id,
	.reject = reject,
	.disconnect = disconnect,
	.query = query,
	.async_event = async_event,
	.async_ack = async_ack,
	.pd_new = pd_new,
	.pd_free = pd_free,
	.comp_new = comp_new,
	.comp_free = comp_free,
	.cq_new = cq_new,
	.cq_free = cq_free,
	.cq_arm = cq_arm,
	.cq_event = cq_event,
	.cq_poll = cq_poll,
	.qp_new = qp_new,
	.qp_free = qp_free,
	.post_send = post_send,
	.post_recv = post_recv,
	.mr_new = mr_new,
	.mr_free = mr_free,
};

/* ---- for the test ---- */

struct fake_verbs *fake_verbs_new(uint32_t seed)
{
	struct fake_verbs *f = calloc(1, sizeof(*f));

	if (!f)
		abort();
	f->ops = fake_ops;
	f->random = seed;
	strcpy(f->device.name, "fake0");
	f->context.device = &f->device;
	f->context.async_fd = bell();
	pthread_mutex_init(&f->lock, NULL);
	return f;
}

void fake_verbs_free(struct fake_verbs *f)
{
	close(f->context.async_fd);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

const struct verbs_ops *fake_verbs_ops(struct fake_verbs *f)
{
	return &f->ops;
}

#define READ_LOCKED(type, value)        \
	type result;                    \
	pthread_mutex_lock(&f->lock);   \
	result = (value);               \
	pthread_mutex_unlock(&f->lock); \
	return result

uint32_t fake_verbs_alive(struct fake_verbs *f)
{
	READ_LOCKED(uint32_t, f->nr_alive);
}

uint64_t fake_verbs_pinned(struct fake_verbs *f, bool target)
{
	READ_LOCKED(uint64_t, f->pinned[target]);
}

uint64_t fake_verbs_most_pinned(struct fake_verbs *f, bool target)
{
	READ_LOCKED(uint64_t, f->most_pinned[target]);
}

uint64_t fake_verbs_written_bytes(struct fake_verbs *f)
{
	READ_LOCKED(uint64_t, f->written_bytes);
}

uint64_t fake_verbs_nr_registered(struct fake_verbs *f)
{
	READ_LOCKED(uint64_t, f->nr_registered);
}

const char *fake_verbs_fired(struct fake_verbs *f)
{
	READ_LOCKED(const char *, f->fired);
}

void fake_verbs_fail_call(struct fake_verbs *f, uint64_t nth, int code)
{
	pthread_mutex_lock(&f->lock);
	f->nr_calls = 0;
	f->fail_call = nth;
	f->fail_code = code;
	f->fired = NULL;
	pthread_mutex_unlock(&f->lock);
}

void fake_verbs_fail_completion(struct fake_verbs *f, uint64_t nth, enum ibv_wc_status status)
{
	pthread_mutex_lock(&f->lock);
	f->nr_completions = 0;
	f->fail_completion = nth;
	f->fail_status = status;
	f->fired = NULL;
	pthread_mutex_unlock(&f->lock);
}

void fake_verbs_limit_pinned(struct fake_verbs *f, bool target, uint64_t bytes)
{
	f->limit[target] = bytes;
}

void fake_verbs_limit_regions(struct fake_verbs *f, bool target, uint32_t nr)
{
	f->max_regions[target] = nr;
}

uint32_t fake_verbs_open_ends(struct fake_verbs *f)
{
	uint32_t nr = 0;

	pthread_mutex_lock(&f->lock);
	for (uint32_t i = 0; i < MAX_OBJECTS; i++)
		nr += f->ids[i] && f->ids[i]->connected && !f->ids[i]->broken;
	pthread_mutex_unlock(&f->lock);
	return nr;
}

void fake_verbs_on_demand(struct fake_verbs *f)
{
	f->on_demand = true;
}

void fake_verbs_no_device(struct fake_verbs *f)
{
	f->no_device = true;
}

void fake_verbs_hang(struct fake_verbs *f)
{
	pthread_mutex_lock(&f->lock);
	f->hangs = true;
	pthread_mutex_unlock(&f->lock);
}

void fake_verbs_remove_device(struct fake_verbs *f)
{
	pthread_mutex_lock(&f->lock);
	for (int i = 0; i < MAX_OBJECTS; i++)
		if (f->ids[i]) {
			f->ids[i]->broken = true;
			drop_held(f, f->ids[i]);
			tell(f, f->ids[i], RDMA_CM_EVENT_DEVICE_REMOVAL, NULL, NULL, 0);
		}
	pthread_mutex_unlock(&f->lock);
}

void fake_verbs_overrun_cq(struct fake_verbs *f)
{
	pthread_mutex_lock(&f->lock);
	for (int i = 0; i < MAX_OBJECTS; i++)
		if (f->cqs[i]) {
			f->overrun[f->nr_overrun++] = f->cqs[i];
			ring(f->context.async_fd);
		}
	pthread_mutex_unlock(&f->lock);
}
