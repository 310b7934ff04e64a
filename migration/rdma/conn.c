/* Work requests, completions, events and pinning of one RDMA connection. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "migration/rdma/conn_internal.h"
#include "vmm/base/clock.h"

/* In a work request's id: what kind of post it was; the rest is the caller's tag. */
#define ID_RECV (1ull << 32)

const struct rdma_device *rdma_conn_device(const struct rdma_conn *c)
{
	return &c->device;
}

int rdma_conn_pin(struct rdma_conn *c, const void *at, size_t bytes, uint64_t gpa, bool for_peer,
		  struct ibv_mr **out)
{
	int access = for_peer ? IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE : 0;
	void *start;

	memcpy(&start, &at,
	       sizeof(start)); /* the library takes it non-const; access 0 only reads */
	if (c->device.on_demand)
		access |= IBV_ACCESS_ON_DEMAND;
	return c->v->mr_new(c->v, c->pd, start, bytes, gpa, access, out);
}

void rdma_conn_unpin(struct rdma_conn *c, struct ibv_mr *mr)
{
	c->v->mr_free(c->v, mr);
}

static int post_failed(int ret, const char *what, struct err *e)
{
	return err_set(e, ERR_SYS, -ret, "RDMA: cannot post %s: %s", what, strerrordesc_np(-ret));
}

int rdma_conn_write(struct rdma_conn *c, const struct rdma_piece *pieces, uint32_t nr,
		    struct err *e)
{
	struct ibv_send_wr wr[RDMA_MAX_PIECES];
	struct ibv_sge sge[RDMA_MAX_PIECES];
	int ret;

	memset(wr, 0, sizeof(wr[0]) * nr);
	for (uint32_t i = 0; i < nr; i++) {
		sge[i] = (struct ibv_sge){.addr = pieces[i].gpa,
					  .length = pieces[i].bytes,
					  .lkey = pieces[i].local_key};
		wr[i].wr_id = pieces[i].tag;
		/* The queue pair is ordered, so the last one's completion says it of each. */
		wr[i].send_flags = pieces[i].last ? IBV_SEND_SIGNALED : 0;
		wr[i].sg_list = &sge[i];
		wr[i].num_sge = 1;
		wr[i].opcode = IBV_WR_RDMA_WRITE;
		wr[i].wr.rdma.remote_addr = pieces[i].gpa;
		wr[i].wr.rdma.rkey = pieces[i].remote_key;
		wr[i].next = i + 1 < nr ? &wr[i + 1] : NULL;
	}
	ret = c->v->post_send(c->v, c->id->qp, wr);
	return ret < 0 ? post_failed(ret, "a write", e) : 0;
}

int rdma_conn_mark(struct rdma_conn *c, uint32_t round, uint32_t tag, struct err *e)
{
	struct ibv_send_wr wr = {.wr_id = tag,
				 .opcode = IBV_WR_SEND_WITH_IMM,
				 .send_flags = IBV_SEND_SIGNALED,
				 .imm_data = htobe32(round)};
	int ret = c->v->post_send(c->v, c->id->qp, &wr);

	return ret < 0 ? post_failed(ret, "the end of a round", e) : 0;
}

int rdma_conn_post_recv(struct rdma_conn *c)
{
	struct ibv_recv_wr wr = {.wr_id = ID_RECV}; /* no memory: marks are empty */

	return c->v->post_recv(c->v, c->id->qp, &wr);
}

/* The first thing that fails is the cause: the queue pair then flushes everything behind it. */
static int completion_failed(struct rdma_conn *c, const struct ibv_wc *wc, struct err *e)
{
	/* A flush with no cause before it: the peer has left, and may say why on the control
	 * connection. Of the others we know the cause, which is not to be replaced by what follows
	 * from it there. */
	enum err_kind kind = wc->status == IBV_WC_WR_FLUSH_ERR ? ERR_PEER : ERR_SYS;

	return err_set(e, kind, EIO, "RDMA: %s (device %s)", verbs_status_text(wc->status),
		       c->device.name);
}

static int take_mark(struct rdma_conn *c, const struct ibv_wc *wc, struct rdma_done *out,
		     struct err *e)
{
	int ret;

	if (!(wc->wc_flags & IBV_WC_WITH_IMM))
		return err_set(e, ERR_STREAM, EPROTO, "an RDMA message without a round");
	*out = (struct rdma_done){.is_mark = true, .round = be32toh(wc->imm_data)};
	ret = rdma_conn_post_recv(c);
	return ret < 0 ? post_failed(ret, "a place for the next round's end", e) : 1;
}

int rdma_conn_poll(struct rdma_conn *c, struct rdma_done *out, struct err *e)
{
	struct ibv_wc wc = c->stash;
	int nr = 1;

	if (c->has_stash)
		c->has_stash = false;
	else
		nr = c->v->cq_poll(c->v, c->cq, 1, &wc);
	if (nr < 0)
		return err_set(e, ERR_SYS, -nr, "RDMA: the completion queue of %s failed: %s",
			       c->device.name, strerrordesc_np(-nr));
	if (nr == 0)
		return 0;
	if (wc.status != IBV_WC_SUCCESS)
		return completion_failed(c, &wc, e);
	if (wc.wr_id & ID_RECV)
		return take_mark(c, &wc, out, e);
	*out = (struct rdma_done){.tag = (uint32_t)wc.wr_id};
	return 1;
}

/* ---- events ---- */

static bool is_fatal(enum ibv_event_type type)
{
	return type == IBV_EVENT_CQ_ERR || type == IBV_EVENT_QP_FATAL ||
	       type == IBV_EVENT_QP_REQ_ERR || type == IBV_EVENT_QP_ACCESS_ERR ||
	       type == IBV_EVENT_DEVICE_FATAL;
}

/* Whom an event of the device is about: events of all its connections come out of one file. */
static struct rdma_conn *concerned(struct rdma_conn *c, const struct ibv_async_event *event)
{
	switch (event->event_type) {
	case IBV_EVENT_CQ_ERR:
		return event->element.cq->cq_context;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
		return event->element.qp->qp_context;
	default:
		return c;
	}
}

static void hear_device(struct rdma_conn *c)
{
	struct ibv_async_event event;

	while (c->v->async_event(c->v, c->id->verbs, &event) == 0) {
		struct rdma_conn *whose = concerned(c, &event);
		uint64_t one = 1;

		/* It cannot be freed under us: its queue is destroyed only after our ack. */
		if (is_fatal(event.event_type) && whose) {
			atomic_store(&whose->trouble, (int)event.event_type + 1);
			if (write(whose->wake_fd, &one, sizeof(one)) < 0)
				one = 0; /* full: it is readable already */
		}
		c->v->async_ack(c->v, &event);
	}
}

static const char *trouble_text(enum ibv_event_type type)
{
	switch (type) {
	case IBV_EVENT_CQ_ERR:
		return "the completion queue overran";
	case IBV_EVENT_DEVICE_FATAL:
		return "the RDMA device failed";
	default:
		return "the adapter gave up the connection";
	}
}

static int check_device(struct rdma_conn *c, struct err *e)
{
	int trouble;

	hear_device(c);
	trouble = atomic_load(&c->trouble);
	if (!trouble)
		return 0;
	return err_set(e, ERR_SYS, EIO, "RDMA: %s (device %s)",
		       trouble_text((enum ibv_event_type)(trouble - 1)), c->device.name);
}

static int check_connection(struct rdma_conn *c, struct err *e)
{
	struct rdma_cm_event *event;
	enum rdma_cm_event_type type;

	while (c->v->get_event(c->v, c->events, &event) == 0) {
		type = event->event;
		c->v->ack_event(c->v, event);
		if (type != RDMA_CM_EVENT_DISCONNECTED && type != RDMA_CM_EVENT_DEVICE_REMOVAL &&
		    type != RDMA_CM_EVENT_CONNECT_ERROR && type != RDMA_CM_EVENT_UNREACHABLE)
			continue;
		return err_set(e, type == RDMA_CM_EVENT_DEVICE_REMOVAL ? ERR_SYS : ERR_PEER,
			       ENOTCONN, "RDMA: %s (device %s)", verbs_cm_event_text(type),
			       c->device.name);
	}
	return 0;
}

static bool has_completion(struct rdma_conn *c)
{
	c->has_stash = c->has_stash || c->v->cq_poll(c->v, c->cq, 1, &c->stash) > 0;
	return c->has_stash;
}

static int arm(struct rdma_conn *c, struct err *e)
{
	int ret;

	while (c->v->cq_event(c->v, c->comp) == 0)
		;
	ret = c->v->cq_arm(c->v, c->cq);
	if (ret < 0)
		return err_set(e, ERR_SYS, -ret, "RDMA: cannot wait for completions of %s: %s",
			       c->device.name, strerrordesc_np(-ret));
	return 0;
}

static int sleep_on(struct pollfd *fds, nfds_t nr, uint64_t timeout_ns, struct err *e)
{
	struct timespec t = {.tv_sec = (time_t)(timeout_ns / NS_PER_S),
			     .tv_nsec = (long)(timeout_ns % NS_PER_S)};
	int ret = ppoll(fds, nr, timeout_ns ? &t : NULL, NULL);

	if (ret < 0 && errno != EINTR)
		return err_sys(e, "poll");
	if (ret == 0)
		return err_set(e, ERR_PEER, ETIMEDOUT, "RDMA: no progress for %.1f s",
			       (double)timeout_ns / 1e9);
	return 0;
}

/* Whose file is readable, that has something to say; the others would cost a system call each to be
 * asked, at every completion. */
static int check_readable(struct rdma_conn *c, bool device, bool connection, struct err *e)
{
	if (device && check_device(c, e) < 0)
		return -e->code;
	return connection ? check_connection(c, e) : 0;
}

int rdma_conn_wait(struct rdma_conn *c, const int fds[2], uint64_t timeout_ns,
		   const struct cancel *cancel, struct err *e)
{
	struct pollfd pfds[] = {
		{.fd = cancel ? cancel_fd(cancel) : -1, .events = POLLIN},
		{.fd = fds[0], .events = POLLIN},
		{.fd = fds[1], .events = POLLIN},
		{.fd = c->comp->fd, .events = POLLIN},
		{.fd = c->events->fd, .events = POLLIN},
		{.fd = c->id->verbs->async_fd, .events = POLLIN},
		{.fd = c->wake_fd, .events = POLLIN},
	};

	if (!has_completion(c) && arm(c, e) < 0)
		return -e->code;
	/* What completed before arming rings no bell. */
	if (!has_completion(c) && sleep_on(pfds, sizeof(pfds) / sizeof(pfds[0]), timeout_ns, e) < 0)
		return -e->code;
	if (cancel && cancel_check(cancel, e) < 0)
		return -e->code;
	/* A failed completion says more than the event that comes with it. */
	if (has_completion(c))
		return 0;
	return check_readable(c, pfds[5].revents || pfds[6].revents, pfds[4].revents, e);
}
