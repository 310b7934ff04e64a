/* Both ends of an RDMA channel over a fake provider, for tests: memory, the rig, rounds. */
#pragma once

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/pagechan.h"
#include "migration/rdma/placement_rdma.h"
#include "migration/receiver.h"
#include "tests/rig/fake_verbs.h"
#include "tests/unit/cmocka_all.h"
#include "vmm/base/clock.h"

#define MEM_CHUNKS 12u
#define MEM_BYTES  (MEM_CHUNKS * (2ull << 20))
#define BUDGET     (4ull << 20)
#define PORT       "4321"

#define PATIENCE_NS (60 * NS_PER_S) /* for what must come */

struct pair {
	struct fake_verbs *fake;
	struct guest_mem *from;
	struct guest_mem *to;
	struct migration_params params;
	struct uri uri;
	uint8_t id[16];
	uint64_t pin_bytes;
	struct cancel *source_cancel;
	struct cancel *destination_cancel;
	struct rate_limit *limit;
	struct link *links[2];
	struct rdma_listener *listener;
	struct bitmap written;
	pthread_t accepting;
	struct receiver *receiver;
	struct pagechan *chan;
	struct fault *fault;        /* the destination's, or NULL */
	struct fault *source_fault; /* or NULL */
	uint32_t round;
	uint32_t nr_fallbacks; /* as the channel counts them, in the rounds so far */
};

/* ---- the rig ---- */

static inline void make_pair(struct pair *p, uint32_t seed, bool fallback)
{
	struct err e = ERR_INIT;
	int fds[2];

	*p = (struct pair){
		.fake = fake_verbs_new(seed), .pin_bytes = BUDGET, .id = "sixteen bytes..."};
	migration_params_init(&p->params);
	p->params.rdma_fallback = fallback;
	p->params.verbs = fake_verbs_ops(p->fake);
	p->params.stall_timeout_ns = PATIENCE_NS;
	p->params.connect_timeout_ns = PATIENCE_NS;
	assert_int_equal(uri_parse("rdma:127.0.0.1:" PORT, &p->uri, &e), 0);
	assert_int_equal(guest_mem_new(MEM_BYTES, &p->from, &e), 0);
	assert_int_equal(guest_mem_new(MEM_BYTES, &p->to, &e), 0);
	assert_int_equal(cancel_new(&p->source_cancel, &e), 0);
	assert_int_equal(cancel_new(&p->destination_cancel, &e), 0);
	assert_int_equal(rate_limit_new(0, p->source_cancel, &p->limit, &e), 0);
	assert_int_equal(bitmap_init(&p->written, guest_mem_nr_gfns(p->to), &e), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(link_from_fd(fds[0], p->source_cancel, &p->links[0], &e), 0);
	assert_int_equal(link_from_fd(fds[1], p->destination_cancel, &p->links[1], &e), 0);
	link_set_stall_timeout(p->links[0], PATIENCE_NS);
	assert_int_equal(rdma_listener_new(p->params.verbs, &p->uri, &p->listener, &e), 0);
}

/* What the destination's engine does for a channel. */
static inline void *accept_main(void *arg)
{
	struct pair *p = arg;
	struct receiver_config config = {.nr_channels = 1,
					 .mem = p->to,
					 .written = &p->written,
					 .abort = p->destination_cancel,
					 .fault = p->fault};
	struct placement_rdma_config rdma = {.link = p->links[1],
					     .mem = p->to,
					     .pin_bytes = p->pin_bytes,
					     .cancel = p->destination_cancel};
	struct rdma_greeting greeting = {.index = 0};
	struct placement *placement = NULL;
	struct err e = ERR_INIT;

	memcpy(greeting.migration_id, p->id, sizeof(p->id));
	if (rdma_listener_accept(p->listener, &greeting, link_fd(p->links[1]), PATIENCE_NS,
				 p->destination_cancel, &rdma.conn, &e) < 0 ||
	    (rdma.conn && placement_rdma_new(&rdma, &placement, &e) < 0) ||
	    receiver_new(&config, p->links[1], placement, &p->receiver, &e) < 0)
		p->receiver = NULL;
	if (e.kind != ERR_NONE) { /* as an engine that fails closes everything */
		link_shutdown(p->links[1]);
		rdma_listener_free(p->listener);
		p->listener = NULL;
	}
	return NULL;
}

static inline struct pagechan_source source_of(const struct pair *p)
{
	return (struct pagechan_source){.uri = &p->uri,
					.params = &p->params,
					.migration_id = p->id,
					.mem = p->from,
					.limit = p->limit,
					.cancel = p->source_cancel,
					.fault = p->source_fault,
					.pin_bytes = p->pin_bytes};
}

static inline int open_pair(struct pair *p, struct err *e)
{
	struct pagechan_source src = source_of(p);
	struct link *link = p->links[0];

	assert_int_equal(pthread_create(&p->accepting, NULL, accept_main, p), 0);
	p->links[0] = NULL;
	return pagechan_open(&src, link, &p->chan, e);
}

static inline void await_receiver(struct pair *p)
{
	if (p->accepting)
		pthread_join(p->accepting, NULL);
	p->accepting = 0;
}

static inline void destination_error(struct pair *p, struct err *e)
{
	await_receiver(p);
	if (p->receiver)
		receiver_failure(p->receiver, e);
}

/* Everything down; nothing may be left. */
static inline void break_pair(struct pair *p)
{
	if (p->chan)
		p->chan->ops->free(p->chan);
	link_free(p->links[0]);
	await_receiver(p);
	if (p->receiver)
		receiver_free(p->receiver);
	else
		link_free(p->links[1]);
	rdma_listener_free(p->listener);
	assert_int_equal(fake_verbs_pinned(p->fake, false), 0);
	assert_int_equal(fake_verbs_pinned(p->fake, true), 0);
	if (fake_verbs_alive(p->fake))
		fail_msg("%u objects left after %s", fake_verbs_alive(p->fake),
			 fake_verbs_fired(p->fake));
	fake_verbs_free(p->fake);
	bitmap_fini(&p->written);
	rate_limit_free(p->limit);
	fault_free(p->fault);
	fault_free(p->source_fault);
	cancel_free(p->source_cancel);
	cancel_free(p->destination_cancel);
	guest_mem_free(p->from);
	guest_mem_free(p->to);
}

/* ---- memory ---- */

static inline uint64_t *page_of(struct guest_mem *m, uint64_t gfn)
{
	return guest_mem_at_rw(m, gfn * PAGE_BYTES, PAGE_BYTES);
}

static inline bool has_data(uint64_t gfn, uint32_t version)
{
	return (gfn * 7 + version) % 5 != 0;
}

static inline void fill(struct pair *p, uint64_t gfn, uint32_t version)
{
	uint64_t *page = page_of(p->from, gfn);

	for (size_t i = 0; i < PAGE_BYTES / 8; i++)
		page[i] = has_data(gfn, version) ? gfn << 20 | (uint64_t)version << 12 | i : 0;
}

static inline void assert_same(struct pair *p)
{
	for (uint64_t gfn = 0; gfn < MEM_BYTES / PAGE_BYTES; gfn++)
		if (memcmp(page_of(p->from, gfn), page_of(p->to, gfn), PAGE_BYTES))
			fail_msg("gfn %llu differs", (unsigned long long)gfn);
}

/* ---- rounds, as a sender makes them ---- */

static inline int add_page(struct pair *p, struct page_batch *b, uint64_t gfn,
			   struct send_stats *stats, struct err *e)
{
	enum run_kind kind = has_data(gfn, p->round) ? RUN_DATA : RUN_ZERO;
	struct batch_run *last = b->nr_runs ? &b->runs[b->nr_runs - 1] : NULL;

	b->nr_data_pages += kind == RUN_DATA;
	if (last && last->kind == kind && last->gfn + last->nr_pages == gfn && gfn % CHUNK_PAGES)
		last->nr_pages++;
	else
		b->runs[b->nr_runs++] =
			(struct batch_run){.gfn = gfn, .nr_pages = 1, .kind = (uint8_t)kind};
	if (b->nr_runs < BATCH_MAX_RUNS && b->nr_data_pages < p->chan->batch_pages)
		return 0;
	if (p->chan->ops->send(p->chan, b, stats, e) < 0)
		return -e->code;
	b->nr_runs = b->nr_data_pages = 0;
	return 0;
}

/* Every @stride-th page anew, and a barrier. */
static inline int send_round(struct pair *p, uint32_t stride, struct err *e)
{
	struct page_batch b = {.round = ++p->round};
	struct send_stats stats = {0};

	for (uint64_t gfn = 0; gfn < MEM_BYTES / PAGE_BYTES; gfn += stride) {
		fill(p, gfn, p->round);
		if (add_page(p, &b, gfn, &stats, e) < 0)
			return -e->code;
	}
	if (b.nr_runs && p->chan->ops->send(p->chan, &b, &stats, e) < 0)
		return -e->code;
	if (p->chan->ops->barrier(p->chan, p->round, &stats, e) < 0)
		return -e->code;
	p->nr_fallbacks += stats.nr_fallbacks;
	return 0;
}

static inline int send_all(struct pair *p, struct err *e)
{
	static const uint32_t strides[] = {1, 3, 701, 64};

	for (size_t i = 0; i < sizeof(strides) / sizeof(strides[0]); i++)
		if (send_round(p, strides[i], e) < 0)
			return -e->code;
	return 0;
}

static inline void must_send_all(struct pair *p)
{
	struct err e = ERR_INIT;

	if (send_all(p, &e) < 0) {
		struct err theirs = ERR_INIT;

		destination_error(p, &theirs);
		fail_msg("%s (the destination: %s)", e.msg, theirs.msg);
	}
	assert_same(p);
}

static inline void must_open(struct pair *p)
{
	struct err e = ERR_INIT;

	if (open_pair(p, &e) < 0)
		fail_msg("%s", e.msg);
}
