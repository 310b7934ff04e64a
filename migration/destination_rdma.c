/* RDMA at the destination: listening for it, and the connection of each channel. */
#include <string.h>

#include "migration/destination_internal.h"
#include "migration/rdma/pin_limit.h"
#include "migration/rdma/placement_rdma.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"

#define CONNECT_NS (10 * NS_PER_S)
#define FOR_EVER   (1ull << 62) /* in ns, a hundred years */

static int set_budget(struct migration_destination *d, struct err *e)
{
	uint64_t want = d->config.rdma_pin_bytes ? d->config.rdma_pin_bytes : MIGRATION_RDMA_PIN;
	struct pin_limit limit;
	bool shrunk = false;

	/* How many channels there will be, the source says later; it checks that this is enough. */
	if (pin_limit_probe(&limit, e) < 0 ||
	    pin_limit_apply(&limit, want, 1, &d->pin_bytes, &shrunk, e) < 0)
		return -e->code;
	if (shrunk)
		log_warning("RDMA: RLIMIT_MEMLOCK allows %llu KiB of the budget: raise it with "
			    "'ulimit -l' or LimitMEMLOCK= to pin more",
			    (unsigned long long)d->pin_bytes / 1024);
	return 0;
}

/* After a failure of RDMA: go on without, if the user has allowed that. */
static int go_without(struct migration_destination *d, struct err *e)
{
	struct err cause = *e;

	if (!d->config.rdma_fallback)
		return err_set(e, cause.kind, cause.code,
			       "%s; with --rdma-fallback tcp this side takes guests without RDMA",
			       cause.msg);
	log_warning("taking guests over TCP only: %s", cause.msg);
	err_clear(e);
	return 0;
}

int destination_listen_rdma(struct migration_destination *d, struct err *e)
{
	const struct verbs_ops *verbs = d->config.verbs ? d->config.verbs : &verbs_system;
	struct uri uri;

	if (uri_parse(link_listener_address(d->listener), &uri, e) < 0)
		return -e->code;
	if (uri.scheme != URI_RDMA)
		return 0;
	if (set_budget(d, e) == 0 && rdma_listener_new(verbs, &uri, &d->rdma, e) == 0)
		return 0;
	return go_without(d, e);
}

int destination_await_source(struct migration_destination *d, struct err *e)
{
	uint64_t timeout_ns = d->config.accept_timeout_ns ? d->config.accept_timeout_ns : FOR_EVER;
	struct rdma_conn *nobody;

	if (!d->rdma || rdma_listener_accept(d->rdma, NULL, link_listener_fd(d->listener),
					     timeout_ns, d->cancel, &nobody, e) == 0)
		return 0;
	if (e->kind == ERR_CANCELLED)
		return -e->code;
	rdma_listener_free(d->rdma);
	d->rdma = NULL;
	return go_without(d, e);
}

int destination_accept_rdma(struct migration_destination *d, struct link *link, uint32_t index,
			    struct placement **out, struct err *e)
{
	struct placement_rdma_config config = {.link = link,
					       .mem = vm_mem(d->vm),
					       .pin_bytes = d->pin_bytes / d->nr_channels,
					       .cancel = d->cancel,
					       .fault = d->config.fault};
	struct rdma_greeting greeting = {.index = index};

	*out = NULL;
	memcpy(greeting.migration_id, d->id, sizeof(greeting.migration_id));
	if (fault_point(d->config.fault, "dst.rdma_accept", e) < 0 ||
	    rdma_listener_accept(d->rdma, &greeting, link_fd(link), CONNECT_NS, d->cancel,
				 &config.conn, e) < 0)
		return err_prefix(e, "channel %u", index);
	return config.conn ? placement_rdma_new(&config, out, e) : 0;
}
