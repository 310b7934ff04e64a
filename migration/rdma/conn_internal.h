/* The connection's own state, shared by conn.c (work and completions) and conn_open.c (coming to
 * be). Private to those files. */
#pragma once

#include <stdatomic.h>

#include "migration/rdma/conn.h"

#define RDMA_RECV_DEPTH 4 /* marks that may arrive before we look; one a round does */

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
