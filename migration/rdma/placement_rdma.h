/* The destination's half of a channel's RDMA: it pins what the source asks for, within the budget,
 * hands out the keys, and hears the marks that end rounds. */
#pragma once

#include "migration/placement.h"
#include "migration/rdma/conn.h"
#include "vmm/base/fault.h"
#include "vmm/base/link.h"
#include "vmm/mem.h"

struct placement_rdma_config {
	struct rdma_conn *conn; /* taken over, also on failure */
	struct link *link;      /* for grants; outlives it, as does the rest */
	struct guest_mem *mem;
	uint64_t pin_bytes; /* for this channel */
	const struct cancel *cancel;
	struct fault *fault;
};

int placement_rdma_new(const struct placement_rdma_config *config, struct placement **out,
		       struct err *e);
