/*
 * The RDMA channel (proto/STREAM.md, section 6): what the pages are goes over the channel's
 * connection, the pages themselves through the pipeline. When RDMA fails and the user has allowed
 * it, the channel goes on as a stream over the same connection, in mid-round, from what may not
 * have arrived.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/pagechan.h"
#include "migration/rdma/pipeline.h"
#include "vmm/base/log.h"

struct rdma_chan {
	struct pagechan base; /* first */
	struct batch_out out; /* its link is the stream's once there is one */
	struct pagechan_source src;
	struct pipeline *pipeline; /* NULL: RDMA never came to be */
	struct pagechan *stream;   /* NULL: pages go by RDMA */
	uint32_t round;
	bool told; /* of having fallen back */
};

static struct rdma_chan *self(struct pagechan *c)
{
	return (struct rdma_chan *)c;
}

/* ---- falling back ---- */

static int close_rdma(struct rdma_chan *r, struct err *e)
{
	struct batch_head head = {.kind = BATCH_CLOSE, .round = r->round};

	if (r->pipeline)
		pipeline_stop(r->pipeline);
	if (batch_out_send(&r->out, &head, NULL, 0, e) < 0)
		return -e->code;
	if (r->pipeline && pipeline_skip_grants(r->pipeline, e) < 0)
		return -e->code;
	return batch_out_await_back(&r->out, r->round, e);
}

/* The stream takes over our link even if it does not come to be. */
static int open_stream(struct rdma_chan *r, struct err *e)
{
	struct batch_out out = r->out;

	r->out.link = NULL;
	return pagechan_stream_resume(&out, r->src.mem, r->src.params->codec, r->src.limit,
				      &r->stream, e);
}

static int send_again(struct rdma_chan *r, struct send_stats *stats, struct err *e)
{
	struct page_batch b = {.nr_runs = 0};
	struct send_stats again = {0};
	uint32_t nth = 0;

	while (r->pipeline && pipeline_unfinished(r->pipeline, nth++, r->round, &b))
		if (r->stream->ops->send(r->stream, &b, &again, e) < 0)
			return -e->code;
	stats->wire_bytes += again.wire_bytes;
	return 0;
}

/* The stream that goes on, with all that may not have arrived sent again; NULL: none does, and @e
 * says why. */
static struct pagechan *fall_back(struct rdma_chan *r, struct send_stats *stats, struct err *e)
{
	struct err cause = *e;

	/* Neither is RDMA's fault: a cancellation, and a peer that breaks the rules. */
	if (!r->src.params->rdma_fallback || e->kind == ERR_CANCELLED || e->kind == ERR_STREAM)
		return NULL;
	log_warning("channel %u goes on over TCP: %s", r->src.index, cause.msg);
	err_clear(e);
	if (close_rdma(r, e) < 0 || open_stream(r, e) < 0 || send_again(r, stats, e) < 0)
		return NULL;
	pipeline_free(r->pipeline);
	r->pipeline = NULL;
	r->base.batch_pages = r->stream->batch_pages;
	return r->stream;
}

/* ---- sending ---- */

/* Nobody needs it before the barrier: it may travel with what comes next. */
static int announce(struct rdma_chan *r, const struct page_batch *b, struct err *e)
{
	struct batch_head head = {.kind = BATCH_PLACED, .round = b->round, .more = true};

	return batch_out_send(&r->out, &head, b->runs, b->nr_runs, e);
}

static int send_by_stream(struct rdma_chan *r, const struct page_batch *b, struct send_stats *stats,
			  struct err *e)
{
	int ret = r->stream->ops->send(r->stream, b, stats, e);

	r->base.batch_pages = r->stream->batch_pages;
	return ret;
}

static int rdma_send(struct pagechan *c, const struct page_batch *b, struct send_stats *stats,
		     struct err *e)
{
	struct rdma_chan *r = self(c);
	uint64_t wire = batch_out_bytes(b->nr_runs) + b->nr_data_pages * PAGE_BYTES;

	if (r->stream)
		return send_by_stream(r, b, stats, e);
	r->round = b->round;
	if (rate_limit_take(r->src.limit, wire, e) < 0 || announce(r, b, e) < 0)
		return -e->code;
	stats->wire_bytes += wire;
	stats->raw_pages += b->nr_data_pages;
	/* Whoever limits the rate wants no bursts. */
	if (pipeline_add(r->pipeline, b, rate_limit_is_set(r->src.limit), e) == 0)
		return 0;
	/* The whole batch again: how much of it the pipeline had taken does not matter. */
	if (!fall_back(r, stats, e))
		return -e->code;
	return send_by_stream(r, b, &(struct send_stats){0}, e);
}

static int finish_by_rdma(struct rdma_chan *r, uint32_t round, struct send_stats *stats,
			  struct err *e)
{
	struct batch_head head = {.kind = BATCH_BARRIER, .round = round};

	if (batch_out_send(&r->out, &head, NULL, 0, e) < 0 ||
	    batch_out_await_back(&r->out, round, e) < 0)
		return -e->code;
	stats->wire_bytes += batch_out_bytes(0);
	return 0;
}

static int rdma_barrier(struct pagechan *c, uint32_t round, struct send_stats *stats, struct err *e)
{
	struct rdma_chan *r = self(c);
	struct pagechan *stream = r->stream;

	r->round = round;
	if (!stream && pipeline_finish(r->pipeline, round, e) == 0)
		return finish_by_rdma(r, round, stats, e);
	if (!stream)
		stream = fall_back(r, stats, e);
	if (!stream)
		return -e->code;
	stats->nr_fallbacks += !r->told;
	r->told = true;
	return stream->ops->barrier(stream, round, stats, e);
}

static void rdma_free(struct pagechan *c)
{
	struct rdma_chan *r = self(c);

	pipeline_free(r->pipeline);
	guest_mem_release(r->src.mem);
	if (r->stream)
		r->stream->ops->free(r->stream);
	link_free(r->out.link);
	free(r);
}

static const struct pagechan_ops rdma_ops = {
	.name = "rdma",
	.send = rdma_send,
	.barrier = rdma_barrier,
	.free = rdma_free,
};

/* ---- opening ---- */

static int connect_pipeline(struct rdma_chan *r, struct err *e)
{
	const struct migration_params *params = r->src.params;
	const struct verbs_ops *verbs = params->verbs ? params->verbs : &verbs_system;
	struct pipeline_config config = {.out = &r->out,
					 .mem = r->src.mem,
					 .pin_bytes = r->src.pin_bytes,
					 .stall_ns = params->stall_timeout_ns,
					 .cancel = r->src.cancel,
					 .fault = r->src.fault};
	struct rdma_greeting greeting = {.index = r->src.index};

	memcpy(greeting.migration_id, r->src.migration_id, sizeof(greeting.migration_id));
	if (fault_point(r->src.fault, "src.rdma_connect", e) < 0 ||
	    rdma_conn_connect(verbs, r->src.uri, &greeting, params->connect_timeout_ns,
			      r->src.cancel, &config.conn, e) < 0)
		return -e->code;
	return pipeline_new(&config, &r->pipeline, e);
}

int pagechan_rdma_open(const struct pagechan_source *src, struct link *link, struct pagechan **out,
		       struct err *e)
{
	struct rdma_chan *r = calloc(1, sizeof(*r));
	struct send_stats none = {0};

	if (!r) {
		link_free(link);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a page channel");
	}
	r->base.ops = &rdma_ops;
	r->base.batch_pages = BATCH_MAX_PAGES;
	r->src = *src;
	r->out.link = link;
	/* A registration goes on with the pages it has found, even once they are the guest's no
	 * more. */
	guest_mem_hold(r->src.mem);
	if (connect_pipeline(r, e) < 0 && !fall_back(r, &none, e)) {
		rdma_free(&r->base);
		return -e->code;
	}
	*out = &r->base;
	return 0;
}
