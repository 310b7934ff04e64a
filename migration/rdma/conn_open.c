/* How RDMA connections come to be, from the side that connects, and how they end. */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migration/rdma/conn_internal.h"
#include "vmm/base/clock.h"
#include "vmm/base/link.h"

int rdma_failed(const char *what, int ret, struct err *e)
{
	/* What the kernel says when a control group is at its limit of objects. */
	return err_set(e, ERR_SYS, -ret, "RDMA: cannot %s: %s", what,
		       ret == -EAGAIN ? "the cgroup's rdma.max allows no more, raise it"
				      : strerrordesc_np(-ret));
}

int rdma_open_events(const struct verbs_ops *v, struct rdma_event_channel **out, struct err *e)
{
	int ret = v->channel_new(v, out);

	if (ret == 0)
		return 0;
	return err_set(
		e, ERR_UNSUPPORTED, -ret,
		"this host has no RDMA: %s (load the kernel module rdma_ucm; 'godwit doctor' "
		"says more)",
		strerrordesc_np(-ret));
}

/* ---- the queue pair ---- */

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* On-demand paging counts only if it covers what we do: WRITE on reliable connections. */
static bool pages_on_demand(const struct ibv_device_attr_ex *attr)
{
	return attr->odp_caps.general_caps & IBV_ODP_SUPPORT &&
	       attr->odp_caps.per_transport_caps.rc_odp_caps & IBV_ODP_SUPPORT_WRITE;
}

static int look_at_device(struct rdma_conn *c, struct ibv_device_attr_ex *attr, struct err *e)
{
	int ret = c->v->query(c->v, c->id->verbs, attr);

	if (ret < 0)
		return rdma_failed("ask the device for its limits", ret, e);
	snprintf(c->device.name, sizeof(c->device.name), "%s", c->id->verbs->device->name);
	c->device.on_demand = pages_on_demand(attr);
	/* Others use the device, too. */
	c->device.max_regions = least((uint32_t)attr->orig_attr.max_mr / 32 + 1, 65536);
	if (attr->orig_attr.max_qp_wr < RDMA_SEND_DEPTH ||
	    attr->orig_attr.max_cqe < RDMA_SEND_DEPTH + RDMA_RECV_DEPTH)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "RDMA: the queues of %s are too short: %d work requests and %d "
			       "completions, %d are needed",
			       c->device.name, attr->orig_attr.max_qp_wr, attr->orig_attr.max_cqe,
			       RDMA_SEND_DEPTH + RDMA_RECV_DEPTH);
	return 0;
}

static int open_queues(struct rdma_conn *c, struct err *e)
{
	int ret = c->v->pd_new(c->v, c->id->verbs, &c->pd);

	if (ret == 0)
		ret = c->v->comp_new(c->v, c->id->verbs, &c->comp);
	if (ret == 0) /* room for all that can be under way: it cannot overrun */
		ret = c->v->cq_new(c->v, c->id->verbs, RDMA_SEND_DEPTH + RDMA_RECV_DEPTH, c,
				   c->comp, &c->cq);
	return ret < 0 ? rdma_failed("create the connection's queues", ret, e) : 0;
}

int rdma_conn_prepare(struct rdma_conn *c, struct err *e)
{
	struct ibv_device_attr_ex attr;
	struct ibv_qp_init_attr qp = {.qp_context = c,
				      .qp_type = IBV_QPT_RC,
				      .cap = {.max_send_wr = RDMA_SEND_DEPTH,
					      .max_recv_wr = RDMA_RECV_DEPTH,
					      .max_send_sge = 1,
					      .max_recv_sge = 1}};
	int ret;

	memset(&attr, 0, sizeof(attr));
	if (look_at_device(c, &attr, e) < 0 || open_queues(c, e) < 0)
		return -e->code;
	qp.send_cq = qp.recv_cq = c->cq;
	ret = c->v->qp_new(c->v, c->id, c->pd, &qp);
	if (ret < 0)
		return rdma_failed("create a queue pair", ret, e);
	c->has_qp = true;
	for (int i = 0; i < RDMA_RECV_DEPTH; i++) {
		ret = rdma_conn_post_recv(c);
		if (ret < 0)
			return rdma_failed("post to the receive queue", ret, e);
	}
	return 0;
}

struct rdma_conn *rdma_conn_new(const struct verbs_ops *v, struct err *e)
{
	struct rdma_conn *c = calloc(1, sizeof(*c));

	if (!c) {
		err_set(e, ERR_SYS, ENOMEM, "out of memory for an RDMA connection");
		return NULL;
	}
	c->v = v;
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake_fd < 0)
		err_sys(e, "eventfd");
	else if (rdma_open_events(v, &c->events, e) == 0)
		return c;
	rdma_conn_free(c);
	return NULL;
}

void rdma_conn_close(struct rdma_conn *c)
{
	if (c->connected)
		c->v->disconnect(c->v, c->id);
	if (c->has_qp)
		c->v->qp_free(c->v, c->id);
	c->connected = c->has_qp = false;
}

void rdma_conn_free(struct rdma_conn *c)
{
	if (!c)
		return;
	rdma_conn_close(c);
	if (c->cq)
		c->v->cq_free(c->v, c->cq);
	if (c->comp)
		c->v->comp_free(c->v, c->comp);
	if (c->pd)
		c->v->pd_free(c->v, c->pd);
	if (c->id)
		c->v->id_free(c->v, c->id);
	if (c->events)
		c->v->channel_free(c->v, c->events);
	if (c->wake_fd >= 0)
		close(c->wake_fd);
	free(c);
}

struct rdma_conn_param rdma_conn_param(const struct rdma_greeting *g)
{
	/* No reads and no atomics: the peer has no use for them here. A message that finds no
	 * receive is tried again without end (7); what must end it is our own stall timeout. */
	return (struct rdma_conn_param){.private_data = g,
					.private_data_len = g ? sizeof(*g) : 0,
					.retry_count = 7,
					.rnr_retry_count = 7};
}

/* ---- connecting ---- */

/* A peer that turned us away may have said why. What it says is only shown. */
static int rejected(const struct rdma_cm_event *event, struct err *e)
{
	const char *said = event->param.conn.private_data;
	size_t len = event->param.conn.private_data_len;
	char reason[RDMA_REASON_BYTES + 1] = "";

	for (size_t i = 0; said && i < len && i < RDMA_REASON_BYTES && said[i]; i++)
		reason[i] = said[i] >= ' ' && said[i] <= '~' ? said[i] : '?';
	return err_set(e, ERR_PEER, ECONNREFUSED, "RDMA: %s",
		       reason[0] ? reason : verbs_cm_event_text(RDMA_CM_EVENT_REJECTED));
}

static int await(struct rdma_conn *c, enum rdma_cm_event_type want, uint64_t deadline_ns,
		 const struct cancel *cancel, struct err *e)
{
	struct rdma_cm_event *event;
	uint64_t now;
	int ret;

	do {
		now = clock_now_ns();
		if (link_poll(c->events->fd, POLLIN, cancel,
			      now < deadline_ns ? deadline_ns - now : 1, e) < 0)
			return err_prefix(e, "RDMA: waiting for the other side");
		ret = c->v->get_event(c->v, c->events, &event);
	} while (ret == -EAGAIN);
	if (ret < 0)
		return rdma_failed("hear from the connection manager", ret, e);
	if (event->event == RDMA_CM_EVENT_REJECTED)
		ret = rejected(event, e);
	else if (event->event != want)
		ret = err_set(e, ERR_PEER, EHOSTUNREACH, "RDMA: %s",
			      verbs_cm_event_text(event->event));
	c->v->ack_event(c->v, event);
	return ret;
}

static int leads_nowhere(const struct uri *uri, int ret, struct err *e)
{
	return err_set(e, ERR_UNSUPPORTED, -ret,
		       "RDMA: no device here leads to %s: %s ('godwit doctor' lists the devices "
		       "and their addresses)",
		       uri->host[0] ? uri->host : "loopback", strerrordesc_np(-ret));
}

static int find_way(struct rdma_conn *c, const struct uri *uri, uint64_t deadline_ns,
		    const struct cancel *cancel, struct err *e)
{
	int timeout_ms = (int)((deadline_ns - clock_now_ns()) / NS_PER_MS) + 1;
	struct addrinfo *list;
	int ret;

	if (uri_resolve(uri, 0, &list, e) < 0)
		return -e->code;
	ret = c->v->resolve_addr(c->v, c->id, list->ai_addr, timeout_ms);
	freeaddrinfo(list);
	if (ret < 0)
		return leads_nowhere(uri, ret, e);
	if (await(c, RDMA_CM_EVENT_ADDR_RESOLVED, deadline_ns, cancel, e) < 0)
		return err_prefix(e, "%s", uri->text);
	ret = c->v->resolve_route(c->v, c->id, timeout_ms);
	if (ret == -ENODEV) /* an address of this host that no device has: loopback's */
		return leads_nowhere(uri, ret, e);
	if (ret < 0)
		return rdma_failed("look for a route", ret, e);
	return await(c, RDMA_CM_EVENT_ROUTE_RESOLVED, deadline_ns, cancel, e);
}

static int connect_to(struct rdma_conn *c, const struct uri *uri, const struct rdma_greeting *g,
		      uint64_t deadline_ns, const struct cancel *cancel, struct err *e)
{
	struct rdma_conn_param param = rdma_conn_param(g);
	int ret = c->v->id_new(c->v, c->events, &c->id);

	if (ret < 0)
		return rdma_failed("create a connection", ret, e);
	if (find_way(c, uri, deadline_ns, cancel, e) < 0 || rdma_conn_prepare(c, e) < 0)
		return -e->code;
	ret = c->v->connect(c->v, c->id, &param);
	if (ret < 0)
		return rdma_failed("connect", ret, e);
	c->connected = true;
	return await(c, RDMA_CM_EVENT_ESTABLISHED, deadline_ns, cancel, e);
}

int rdma_conn_connect(const struct verbs_ops *v, const struct uri *uri,
		      const struct rdma_greeting *g, uint64_t timeout_ns,
		      const struct cancel *cancel, struct rdma_conn **out, struct err *e)
{
	struct rdma_conn *c = rdma_conn_new(v, e);

	if (!c)
		return -e->code;
	if (connect_to(c, uri, g, clock_now_ns() + timeout_ns, cancel, e) < 0) {
		rdma_conn_free(c);
		return -e->code;
	}
	*out = c;
	return 0;
}
