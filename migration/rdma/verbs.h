/*
 * What godwit uses of librdmacm and libibverbs, as a table, so that tests can put a provider of
 * their own in its place: completions out of order, an error at any call (tests/rig/fake_verbs.h).
 *
 * One row is one library call with the library's own types. What differs is only the result: 0 or a
 * negative errno, objects through @out. Where the library's manual says who may call what from
 * which thread, it holds here. Every row takes the table itself first, so that a provider can have
 * state.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

struct verbs_ops {
	/* librdmacm: rdma_create_event_channel(3) and so on. Event channels are non-blocking:
	 * get_event returns -EAGAIN when there is none. */
	int (*channel_new)(const struct verbs_ops *v, struct rdma_event_channel **out);
	void (*channel_free)(const struct verbs_ops *v, struct rdma_event_channel *ch);
	int (*get_event)(const struct verbs_ops *v, struct rdma_event_channel *ch,
			 struct rdma_cm_event **out);
	void (*ack_event)(const struct verbs_ops *v, struct rdma_cm_event *event);
	int (*id_new)(const struct verbs_ops *v, struct rdma_event_channel *ch,
		      struct rdma_cm_id **out);
	void (*id_free)(const struct verbs_ops *v, struct rdma_cm_id *id);
	int (*id_move)(const struct verbs_ops *v, struct rdma_cm_id *id,
		       struct rdma_event_channel *to);
	int (*bind)(const struct verbs_ops *v, struct rdma_cm_id *id, struct sockaddr *sa);
	int (*listen)(const struct verbs_ops *v, struct rdma_cm_id *id);
	int (*resolve_addr)(const struct verbs_ops *v, struct rdma_cm_id *id, struct sockaddr *to,
			    int timeout_ms);
	int (*resolve_route)(const struct verbs_ops *v, struct rdma_cm_id *id, int timeout_ms);
	int (*connect)(const struct verbs_ops *v, struct rdma_cm_id *id, struct rdma_conn_param *p);
	int (*accept)(const struct verbs_ops *v, struct rdma_cm_id *id, struct rdma_conn_param *p);
	int (*reject)(const struct verbs_ops *v, struct rdma_cm_id *id, const void *data,
		      uint8_t len);
	int (*disconnect)(const struct verbs_ops *v, struct rdma_cm_id *id);

	/* libibverbs: ibv_alloc_pd(3) and so on. Completion channels and the asynchronous events
	 * of a device are non-blocking, too. */
	int (*query)(const struct verbs_ops *v, struct ibv_context *ctx,
		     struct ibv_device_attr_ex *out);
	int (*async_event)(const struct verbs_ops *v, struct ibv_context *ctx,
			   struct ibv_async_event *out);
	void (*async_ack)(const struct verbs_ops *v, struct ibv_async_event *event);
	int (*pd_new)(const struct verbs_ops *v, struct ibv_context *ctx, struct ibv_pd **out);
	void (*pd_free)(const struct verbs_ops *v, struct ibv_pd *pd);
	int (*comp_new)(const struct verbs_ops *v, struct ibv_context *ctx,
			struct ibv_comp_channel **out);
	void (*comp_free)(const struct verbs_ops *v, struct ibv_comp_channel *comp);
	int (*cq_new)(const struct verbs_ops *v, struct ibv_context *ctx, int depth, void *cookie,
		      struct ibv_comp_channel *comp, struct ibv_cq **out);
	void (*cq_free)(const struct verbs_ops *v, struct ibv_cq *cq);
	int (*cq_arm)(const struct verbs_ops *v, struct ibv_cq *cq);
	/* Take one "there are completions" from the channel and acknowledge it; -EAGAIN: none. */
	int (*cq_event)(const struct verbs_ops *v, struct ibv_comp_channel *comp);
	/* How many completions were put into @out, 0 to @nr. */
	int (*cq_poll)(const struct verbs_ops *v, struct ibv_cq *cq, int nr, struct ibv_wc *out);
	int (*qp_new)(const struct verbs_ops *v, struct rdma_cm_id *id, struct ibv_pd *pd,
		      struct ibv_qp_init_attr *attr);
	void (*qp_free)(const struct verbs_ops *v, struct rdma_cm_id *id);
	int (*post_send)(const struct verbs_ops *v, struct ibv_qp *qp, struct ibv_send_wr *wr);
	int (*post_recv)(const struct verbs_ops *v, struct ibv_qp *qp, struct ibv_recv_wr *wr);
	/* @iova: the address by which work requests and the peer name its first byte. */
	int (*mr_new)(const struct verbs_ops *v, struct ibv_pd *pd, void *at, size_t len,
		      uint64_t iova, int access, struct ibv_mr **out);
	int (*mr_free)(const struct verbs_ops *v, struct ibv_mr *mr);
};

/* The libraries themselves. */
extern const struct verbs_ops verbs_system;

/* What happened, and what it usually means, in words for somebody who runs virtual machines. */
const char *verbs_status_text(enum ibv_wc_status status);
const char *verbs_cm_event_text(enum rdma_cm_event_type event);
