#include "migration/rdma/verbs.h"

#include <errno.h>
#include <fcntl.h>

/* librdmacm's way: -1 and errno. */
static int from_errno(int ret)
{
	return ret < 0 ? -(errno ? errno : EIO) : 0;
}

/* libibverbs' way for what makes no object: a positive errno (a few providers: -1 and errno). */
static int from_code(int ret)
{
	if (ret == 0)
		return 0;
	return ret > 0 ? -ret : from_errno(ret);
}

static int made(const void *object)
{
	return object ? 0 : from_errno(-1);
}

static int unblock(int fd)
{
	return from_errno(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK));
}

static int channel_new(const struct verbs_ops *v, struct rdma_event_channel **out)
{
	(void)v;
	*out = rdma_create_event_channel();
	return *out ? unblock((*out)->fd) : made(NULL);
}

static void channel_free(const struct verbs_ops *v, struct rdma_event_channel *ch)
{
	(void)v;
	rdma_destroy_event_channel(ch);
}

static int get_event(const struct verbs_ops *v, struct rdma_event_channel *ch,
		     struct rdma_cm_event **out)
{
	(void)v;
	return from_errno(rdma_get_cm_event(ch, out));
}

static void ack_event(const struct verbs_ops *v, struct rdma_cm_event *event)
{
	(void)v;
	rdma_ack_cm_event(event);
}

static int id_new(const struct verbs_ops *v, struct rdma_event_channel *ch, struct rdma_cm_id **out)
{
	(void)v;
	return from_errno(rdma_create_id(ch, out, NULL, RDMA_PS_TCP));
}

static void id_free(const struct verbs_ops *v, struct rdma_cm_id *id)
{
	(void)v;
	rdma_destroy_id(id);
}

static int id_move(const struct verbs_ops *v, struct rdma_cm_id *id, struct rdma_event_channel *to)
{
	(void)v;
	return from_errno(rdma_migrate_id(id, to));
}

static int bind_id(const struct verbs_ops *v, struct rdma_cm_id *id, struct sockaddr *sa)
{
	(void)v;
	return from_errno(rdma_bind_addr(id, sa));
}

static int listen_id(const struct verbs_ops *v, struct rdma_cm_id *id)
{
	(void)v;
	return from_errno(rdma_listen(id, 16));
}

static int resolve_addr(const struct verbs_ops *v, struct rdma_cm_id *id, struct sockaddr *to,
			int timeout_ms)
{
	(void)v;
	return from_errno(rdma_resolve_addr(id, NULL, to, timeout_ms));
}

static int resolve_route(const struct verbs_ops *v, struct rdma_cm_id *id, int timeout_ms)
{
	(void)v;
	return from_errno(rdma_resolve_route(id, timeout_ms));
}

static int connect_id(const struct verbs_ops *v, struct rdma_cm_id *id, struct rdma_conn_param *p)
{
	(void)v;
	return from_errno(rdma_connect(id, p));
}

static int accept_id(const struct verbs_ops *v, struct rdma_cm_id *id, struct rdma_conn_param *p)
{
	(void)v;
	return from_errno(rdma_accept(id, p));
}

static int reject(const struct verbs_ops *v, struct rdma_cm_id *id, const void *data, uint8_t len)
{
	(void)v;
	return from_errno(rdma_reject(id, data, len));
}

static int disconnect(const struct verbs_ops *v, struct rdma_cm_id *id)
{
	(void)v;
	return from_errno(rdma_disconnect(id));
}

static int query(const struct verbs_ops *v, struct ibv_context *ctx, struct ibv_device_attr_ex *out)
{
	(void)v;
	return from_code(ibv_query_device_ex(ctx, NULL, out));
}

static int async_event(const struct verbs_ops *v, struct ibv_context *ctx,
		       struct ibv_async_event *out)
{
	int ret = unblock(ctx->async_fd);

	(void)v;
	return ret < 0 ? ret : from_errno(ibv_get_async_event(ctx, out));
}

static void async_ack(const struct verbs_ops *v, struct ibv_async_event *event)
{
	(void)v;
	ibv_ack_async_event(event);
}

static int pd_new(const struct verbs_ops *v, struct ibv_context *ctx, struct ibv_pd **out)
{
	(void)v;
	*out = ibv_alloc_pd(ctx);
	return made(*out);
}

static void pd_free(const struct verbs_ops *v, struct ibv_pd *pd)
{
	(void)v;
	ibv_dealloc_pd(pd);
}

static int comp_new(const struct verbs_ops *v, struct ibv_context *ctx,
		    struct ibv_comp_channel **out)
{
	(void)v;
	*out = ibv_create_comp_channel(ctx);
	return *out ? unblock((*out)->fd) : made(NULL);
}

static void comp_free(const struct verbs_ops *v, struct ibv_comp_channel *comp)
{
	(void)v;
	ibv_destroy_comp_channel(comp);
}

static int cq_new(const struct verbs_ops *v, struct ibv_context *ctx, int depth, void *cookie,
		  struct ibv_comp_channel *comp, struct ibv_cq **out)
{
	(void)v;
	*out = ibv_create_cq(ctx, depth, cookie, comp, 0);
	return made(*out);
}

static void cq_free(const struct verbs_ops *v, struct ibv_cq *cq)
{
	(void)v;
	ibv_destroy_cq(cq);
}

static int cq_arm(const struct verbs_ops *v, struct ibv_cq *cq)
{
	(void)v;
	return from_code(ibv_req_notify_cq(cq, 0));
}

static int cq_event(const struct verbs_ops *v, struct ibv_comp_channel *comp)
{
	struct ibv_cq *cq;
	void *cookie;

	(void)v;
	if (ibv_get_cq_event(comp, &cq, &cookie) < 0)
		return from_errno(-1);
	ibv_ack_cq_events(cq, 1);
	return 0;
}

static int cq_poll(const struct verbs_ops *v, struct ibv_cq *cq, int nr, struct ibv_wc *out)
{
	int ret = ibv_poll_cq(cq, nr, out);

	(void)v;
	return ret < 0 ? from_code(ret) : ret;
}

static int qp_new(const struct verbs_ops *v, struct rdma_cm_id *id, struct ibv_pd *pd,
		  struct ibv_qp_init_attr *attr)
{
	(void)v;
	return from_errno(rdma_create_qp(id, pd, attr));
}

static void qp_free(const struct verbs_ops *v, struct rdma_cm_id *id)
{
	(void)v;
	rdma_destroy_qp(id);
}

static int post_send(const struct verbs_ops *v, struct ibv_qp *qp, struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad;

	(void)v;
	return from_code(ibv_post_send(qp, wr, &bad));
}

static int post_recv(const struct verbs_ops *v, struct ibv_qp *qp, struct ibv_recv_wr *wr)
{
	struct ibv_recv_wr *bad;

	(void)v;
	return from_code(ibv_post_recv(qp, wr, &bad));
}

static int mr_new(const struct verbs_ops *v, struct ibv_pd *pd, void *at, size_t len, uint64_t iova,
		  int access, struct ibv_mr **out)
{
	(void)v;
	*out = ibv_reg_mr_iova(pd, at, len, iova, (unsigned int)access);
	return made(*out);
}

static int mr_free(const struct verbs_ops *v, struct ibv_mr *mr)
{
	(void)v;
	return from_code(ibv_dereg_mr(mr));
}

const struct verbs_ops verbs_system = {
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
