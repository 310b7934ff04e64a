#include <errno.h>
#include <string.h>

#include "tests/rig/fake_verbs_internal.h"

static uint32_t dice(struct fake_verbs *f, uint32_t sides)
{
	f->random = f->random * 1664525 + 1013904223;
	return (f->random >> 8) % sides;
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
	return fake_leave(f, 0);
}

static int async_event(const struct verbs_ops *v, struct ibv_context *ctx,
		       struct ibv_async_event *out)
{
	ENTER(v);
	if (!f->nr_overrun)
		return fake_leave(f, -EAGAIN);
	if (!fake_rang(ctx->async_fd))
		abort();
	out->event_type = IBV_EVENT_CQ_ERR;
	out->element.cq = &f->overrun[--f->nr_overrun]->pub;
	return fake_leave(f, 0);
}

static void async_ack(const struct verbs_ops *v, struct ibv_async_event *event)
{
	(void)v;
	(void)event;
}

static int pd_new(const struct verbs_ops *v, struct ibv_context *ctx, struct ibv_pd **out)
{
	ENTER(v);
	*out = fake_make(f, sizeof(**out));
	(*out)->context = ctx;
	return fake_leave(f, 0);
}

static void free_object(const struct verbs_ops *v, void *object)
{
	struct fake_verbs *f = fake_self(v);

	pthread_mutex_lock(&f->lock);
	fake_unmake(f, object);
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
	*out = fake_make(f, sizeof(struct comp));
	(*out)->fd = fake_bell();
	return fake_leave(f, 0);
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
	cq = fake_make(f, sizeof(*cq));
	cq->pub.channel = comp;
	cq->pub.cq_context = cookie;
	for (int i = 0; i < MAX_OBJECTS; i++)
		if (!f->cqs[i]) {
			f->cqs[i] = cq;
			break;
		}
	*out = &cq->pub;
	return fake_leave(f, 0);
}

static void cq_free(const struct verbs_ops *v, struct ibv_cq *cq)
{
	struct fake_verbs *f = fake_self(v);

	pthread_mutex_lock(&f->lock);
	for (int i = 0; i < MAX_OBJECTS; i++)
		if (f->cqs[i] == (struct cq *)cq)
			f->cqs[i] = NULL;
	fake_unmake(f, cq);
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
		fake_ring(cq->pub.channel->fd);
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
		fake_unmake(f, h);
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
	return fake_leave(f, 0);
}

static int cq_event(const struct verbs_ops *v, struct ibv_comp_channel *comp)
{
	ENTER(v);
	return fake_leave(f, fake_rang(comp->fd) ? 0 : -EAGAIN);
}

static int cq_poll(const struct verbs_ops *v, struct ibv_cq *pub, int nr, struct ibv_wc *out)
{
	struct cq *cq = (struct cq *)pub;
	ENTER(v);

	(void)nr;
	if (!cq->nr)
		return fake_leave(f, 0);
	*out = cq->wcs[0];
	memmove(cq->wcs, cq->wcs + 1, --cq->nr * sizeof(cq->wcs[0]));
	return fake_leave(f, 1);
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
	return fake_leave(f, 0);
}

static void qp_free(const struct verbs_ops *v, struct rdma_cm_id *pub)
{
	struct fake_verbs *f = fake_self(v);
	struct id *id = (struct id *)pub;

	pthread_mutex_lock(&f->lock);
	fake_drop_held(f, id);
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
		struct held *h = fake_make(f, sizeof(*h));

		h->wr = *wr;
		if (wr->num_sge)
			h->sge = *wr->sg_list;
		*end = h;
		end = &h->next;
	}
	return fake_leave(f, 0);
}

static int post_recv(const struct verbs_ops *v, struct ibv_qp *qp, struct ibv_recv_wr *wr)
{
	ENTER(v);
	(void)wr;
	id_of(qp)->nr_recvs++;
	return fake_leave(f, 0);
}

static int mr_new(const struct verbs_ops *v, struct ibv_pd *pd, void *at, size_t len, uint64_t iova,
		  int access, struct ibv_mr **out)
{
	bool target = access & IBV_ACCESS_REMOTE_WRITE;
	uint64_t pinned = access & IBV_ACCESS_ON_DEMAND ? 0 : len;
	struct mr *m;
	ENTER(v);

	if (f->limit[target] && f->pinned[target] + pinned > f->limit[target])
		return fake_leave(f, -ENOMEM);
	if (f->max_regions[target] && f->nr_regions[target] == f->max_regions[target])
		return fake_leave(f, -EAGAIN);
	m = fake_make(f, sizeof(*m));
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
	return fake_leave(f, 0);
}

/* Never made to fail: there is nothing anybody could do. */
static int mr_free(const struct verbs_ops *v, struct ibv_mr *pub)
{
	struct fake_verbs *f = fake_self(v);
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
	fake_unmake(f, m);
	return fake_leave(f, 0);
}

static const struct verbs_ops device_ops = {
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
	f->ops = device_ops;
	fake_cm_install(&f->ops);
	f->random = seed;
	strcpy(f->device.name, "fake0");
	f->context.device = &f->device;
	f->context.async_fd = fake_bell();
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

void fake_verbs_no_route(struct fake_verbs *f)
{
	f->no_route = true;
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
			fake_drop_held(f, f->ids[i]);
			fake_tell(f, f->ids[i], RDMA_CM_EVENT_DEVICE_REMOVAL, NULL, NULL, 0);
		}
	pthread_mutex_unlock(&f->lock);
}

void fake_verbs_overrun_cq(struct fake_verbs *f)
{
	pthread_mutex_lock(&f->lock);
	for (int i = 0; i < MAX_OBJECTS; i++)
		if (f->cqs[i]) {
			f->overrun[f->nr_overrun++] = f->cqs[i];
			fake_ring(f->context.async_fd);
		}
	pthread_mutex_unlock(&f->lock);
}
