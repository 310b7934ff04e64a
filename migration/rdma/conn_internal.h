/* The connection's own state, shared by conn.c (work and completions), conn_open.c and
 * conn_listen.c (coming to be). Private to those files. */
#pragma once

#include <stdatomic.h>

#include "migration/rdma/conn.h"

#define RDMA_RECV_DEPTH   4   /* marks that may arrive before we look; one a round does */
#define RDMA_REASON_BYTES 120 /* of a rejection; the private data of one is at most 148 */

struct rdma_conn {
	/* immutable once open */
	const struct verbs_ops *v;
	struct rdma_event_channel *events;
	struct rdma_cm_id *id;
	struct ibv_pd *pd;
	struct ibv_comp_channel *comp;
	struct ibv_cq *cq;
	bool has_qp;
	bool connected;
	struct rdma_device device;
	int wake_fd; /* eventfd: `trouble` has been set */

	/* Set by whichever thread hears of it: asynchronous events are per device. */
	_Atomic int trouble; /* enum ibv_event_type + 1 */

	/* owned by the connection's thread */
	bool has_stash;
	struct ibv_wc stash; /* taken from the queue by wait(), due to poll() */
};

int rdma_conn_post_recv(struct rdma_conn *c);

/* Without an id yet. NULL if it could not be made; @e says why. */
struct rdma_conn *rdma_conn_new(const struct verbs_ops *v, struct err *e);
/* Once the id has its device: everything up to a queue pair that can receive. */
int rdma_conn_prepare(struct rdma_conn *c, struct err *e);
/* What both ends connect with; @g is the private data, NULL: none. */
struct rdma_conn_param rdma_conn_param(const struct rdma_greeting *g);

int rdma_open_events(const struct verbs_ops *v, struct rdma_event_channel **out, struct err *e);
/* "RDMA: cannot WHAT: ..." of a call that returned @ret. */
int rdma_failed(const char *what, int ret, struct err *e);
