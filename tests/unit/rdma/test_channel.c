/*
 * The whole RDMA channel, source and destination, over a fake provider: pages arrive whatever the
 * order of completions, the budget holds on both sides, and after any failure nothing is left: no
 * error without a cause in words, no page wrong after a fallback, no object, no pinned byte.
 */
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
	uint32_t round;
};

/* ---- the rig ---- */

static void make_pair(struct pair *p, uint32_t seed, bool fallback)
{
	struct err e = ERR_INIT;
	int fds[2];

	*p = (struct pair){
		.fake = fake_verbs_new(seed), .pin_bytes = BUDGET, .id = "sixteen bytes..."};
	migration_params_init(&p->params);
	p->params.rdma_fallback = fallback;
	p->params.verbs = fake_verbs_ops(p->fake);
	p->params.stall_timeout_ns = 5 * NS_PER_S;
	p->params.connect_timeout_ns = 5 * NS_PER_S;
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
	link_set_stall_timeout(p->links[0], 5 * NS_PER_S);
	assert_int_equal(rdma_listener_new(p->params.verbs, &p->uri, &p->listener, &e), 0);
}

/* What the destination's engine does for a channel. */
static void *accept_main(void *arg)
{
	struct pair *p = arg;
	struct receiver_config config = {.nr_channels = 1,
					 .mem = p->to,
					 .written = &p->written,
					 .abort = p->destination_cancel};
	struct placement_rdma_config rdma = {.link = p->links[1],
					     .mem = p->to,
					     .pin_bytes = BUDGET,
					     .cancel = p->destination_cancel};
	struct rdma_greeting greeting = {.index = 0};
	struct placement *placement = NULL;
	struct err e = ERR_INIT;

	memcpy(greeting.migration_id, p->id, sizeof(p->id));
	if (rdma_listener_accept(p->listener, &greeting, link_fd(p->links[1]), 5 * NS_PER_S,
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

static int open_pair(struct pair *p, struct err *e)
{
	struct pagechan_source src = {.uri = &p->uri,
				      .params = &p->params,
				      .migration_id = p->id,
				      .mem = p->from,
				      .limit = p->limit,
				      .cancel = p->source_cancel,
				      .pin_bytes = p->pin_bytes};
	struct link *link = p->links[0];

	assert_int_equal(pthread_create(&p->accepting, NULL, accept_main, p), 0);
	p->links[0] = NULL;
	return pagechan_open(&src, link, &p->chan, e);
}

static void await_receiver(struct pair *p)
{
	if (p->accepting)
		pthread_join(p->accepting, NULL);
	p->accepting = 0;
}

static void destination_error(struct pair *p, struct err *e)
{
	await_receiver(p);
	if (p->receiver)
		receiver_failure(p->receiver, e);
}

/* Everything down; nothing may be left. */
static void break_pair(struct pair *p)
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
	cancel_free(p->source_cancel);
	cancel_free(p->destination_cancel);
	guest_mem_free(p->from);
	guest_mem_free(p->to);
}

/* ---- memory ---- */

static uint64_t *page_of(struct guest_mem *m, uint64_t gfn)
{
	return guest_mem_at_rw(m, gfn * PAGE_BYTES, PAGE_BYTES);
}

static bool has_data(uint64_t gfn, uint32_t version)
{
	return (gfn * 7 + version) % 5 != 0;
}

static void fill(struct pair *p, uint64_t gfn, uint32_t version)
{
	uint64_t *page = page_of(p->from, gfn);

	for (size_t i = 0; i < PAGE_BYTES / 8; i++)
		page[i] = has_data(gfn, version) ? gfn << 20 | (uint64_t)version << 12 | i : 0;
}

static void assert_same(struct pair *p)
{
	for (uint64_t gfn = 0; gfn < MEM_BYTES / PAGE_BYTES; gfn++)
		if (memcmp(page_of(p->from, gfn), page_of(p->to, gfn), PAGE_BYTES))
			fail_msg("gfn %llu differs", (unsigned long long)gfn);
}

/* ---- rounds, as a sender makes them ---- */

static int add_page(struct pair *p, struct page_batch *b, uint64_t gfn, struct send_stats *stats,
		    struct err *e)
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
static int send_round(struct pair *p, uint32_t stride, struct err *e)
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
	return p->chan->ops->barrier(p->chan, p->round, &stats, e);
}

static int send_all(struct pair *p, struct err *e)
{
	static const uint32_t strides[] = {1, 3, 701, 64};

	for (size_t i = 0; i < sizeof(strides) / sizeof(strides[0]); i++)
		if (send_round(p, strides[i], e) < 0)
			return -e->code;
	return 0;
}

static void must_send_all(struct pair *p)
{
	struct err e = ERR_INIT;

	if (send_all(p, &e) < 0) {
		struct err theirs = ERR_INIT;

		destination_error(p, &theirs);
		fail_msg("%s (the destination: %s)", e.msg, theirs.msg);
	}
	assert_same(p);
}

static void must_open(struct pair *p)
{
	struct err e = ERR_INIT;

	if (open_pair(p, &e) < 0)
		fail_msg("%s", e.msg);
}

/* ---- what works ---- */

static void test_pages_arrive_in_any_order_of_completions(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 20; seed++) {
		struct pair p;

		make_pair(&p, seed, false);
		must_open(&p);
		must_send_all(&p);
		assert_true(fake_verbs_written_bytes(p.fake) > MEM_BYTES / 2);
		break_pair(&p);
	}
}

static void test_never_more_than_the_budget(void **state)
{
	struct pair p;

	(void)state;
	make_pair(&p, 1, false);
	must_open(&p);
	must_send_all(&p);
	assert_in_range(fake_verbs_most_pinned(p.fake, false), BUDGET / 2, BUDGET);
	assert_in_range(fake_verbs_most_pinned(p.fake, true), BUDGET / 2, BUDGET);
	break_pair(&p);
}

/* With room for all, what the first round has pinned serves the others. */
static void test_regions_are_kept_while_there_is_room(void **state)
{
	struct err e = ERR_INIT;
	uint64_t registered;
	struct pair p;

	(void)state;
	make_pair(&p, 1, false);
	must_open(&p);
	assert_int_equal(send_round(&p, 1, &e), 0);
	registered = fake_verbs_nr_registered(p.fake);
	break_pair(&p);
	assert_true(registered >= 2 * MEM_CHUNKS);
}

/* A guest of which little is touched: what is not data is not pinned (but for what lies between).
 */
static void test_pins_only_where_data_is(void **state)
{
	struct page_batch b = {.round = 1, .nr_runs = 2, .nr_data_pages = 3};
	struct send_stats stats = {0};
	struct err e = ERR_INIT;
	struct pair p;

	(void)state;
	make_pair(&p, 1, false);
	must_open(&p);
	b.runs[0] = (struct batch_run){.gfn = 100, .nr_pages = 3, .kind = RUN_DATA};
	b.runs[1] = (struct batch_run){.gfn = 512, .nr_pages = 512, .kind = RUN_ZERO};
	assert_int_equal(p.chan->ops->send(p.chan, &b, &stats, &e), 0);
	assert_int_equal(p.chan->ops->barrier(p.chan, 1, &stats, &e), 0);
	assert_int_equal(fake_verbs_most_pinned(p.fake, false), 3 * PAGE_BYTES);
	assert_int_equal(fake_verbs_most_pinned(p.fake, true), 3 * PAGE_BYTES);
	assert_int_equal(stats.raw_pages, 3);
	break_pair(&p);
}

static void test_on_demand_paging_pins_nothing(void **state)
{
	struct pair p;

	(void)state;
	make_pair(&p, 1, false);
	fake_verbs_on_demand(p.fake);
	must_open(&p);
	must_send_all(&p);
	assert_int_equal(fake_verbs_most_pinned(p.fake, false), 0);
	assert_int_equal(fake_verbs_most_pinned(p.fake, true), 0);
	break_pair(&p);
}

/* ---- limits ---- */

static void limited(bool target, uint64_t bytes, const char *complaint)
{
	struct err e = ERR_INIT;
	struct pair p;

	make_pair(&p, 1, false);
	fake_verbs_limit_pinned(p.fake, target, bytes);
	must_open(&p);
	if (complaint) {
		assert_true(send_all(&p, &e) < 0);
		if (!strstr(e.msg, complaint))
			fail_msg("expected '%s' in: %s", complaint, e.msg);
		assert_non_null(strstr(e.msg, "ulimit -l"));
	} else {
		must_send_all(&p);
		assert_true(fake_verbs_most_pinned(p.fake, target) <= bytes);
	}
	break_pair(&p);
}

/* A control group that allows fewer regions than the budget is worth. */
static void test_a_limit_on_regions_shrinks_the_budget(void **state)
{
	(void)state;
	for (int target = 0; target < 2; target++) {
		struct pair p;

		make_pair(&p, 1, false);
		fake_verbs_limit_regions(p.fake, target, 1);
		must_open(&p);
		must_send_all(&p);
		break_pair(&p);
	}
}

static void test_a_limit_below_the_budget_shrinks_it(void **state)
{
	(void)state;
	limited(false, 2 << 20, NULL);
	limited(true, 2 << 20, NULL);
	limited(true, 3 << 20, NULL);
}

static void test_a_limit_below_anything_is_an_error_that_says_what_to_set(void **state)
{
	(void)state;
	limited(false, 64 << 10, "can be pinned here");
	limited(true, 64 << 10, "can be pinned at the destination");
}

/* ---- failures ---- */

/* Fail the @nth call; false when there were fewer. */
static bool fail_call(uint64_t nth, int code, bool fallback, uint32_t *nr_completed)
{
	struct err e = ERR_INIT;
	const char *fired;
	struct pair p;

	make_pair(&p, (uint32_t)nth, fallback);
	fake_verbs_fail_call(p.fake, nth, code);
	if (open_pair(&p, &e) == 0 && send_all(&p, &e) == 0) {
		assert_same(&p);
		(*nr_completed)++;
	} else if (strlen(e.msg) < 20) {
		fail_msg("call %llu: '%s' is no message", (unsigned long long)nth, e.msg);
	}
	fired = fake_verbs_fired(p.fake);
	break_pair(&p);
	return fired;
}

/* The first calls set up; then the same few come again and again, so steps may grow. */
static uint32_t sweep(int code, bool fallback, uint32_t *nr_completed)
{
	uint32_t nr = 0;

	*nr_completed = 0;
	for (uint64_t nth = 1; fail_call(nth, code, fallback, nr_completed);
	     nth += nth < 80 ? 1 : nth / 12)
		nr++;
	return nr;
}

static void test_any_call_may_fail(void **state)
{
	uint32_t nr_completed;

	(void)state;
	assert_true(sweep(EIO, false, &nr_completed) > 90);
	print_message("  EIO: %u completed all the same\n", nr_completed);
	assert_true(sweep(ENOMEM, false, &nr_completed) > 90);
	print_message("  ENOMEM: %u completed all the same\n", nr_completed);
}

static void test_any_call_may_fail_and_tcp_goes_on(void **state)
{
	uint32_t nr_completed;
	uint32_t nr;

	(void)state;
	nr = sweep(EIO, true, &nr_completed);
	print_message("  %u of %u completed\n", nr_completed, nr);
	/* What fails at the destination after its adapter has taken the mark ends the migration. */
	assert_true(nr_completed > nr * 9 / 10);
}

static const enum ibv_wc_status statuses[] = {
	IBV_WC_RETRY_EXC_ERR, IBV_WC_RNR_RETRY_EXC_ERR, IBV_WC_REM_ACCESS_ERR,
	IBV_WC_REM_OP_ERR,    IBV_WC_REM_INV_REQ_ERR,   IBV_WC_LOC_PROT_ERR,
	IBV_WC_LOC_QP_OP_ERR, IBV_WC_WR_FLUSH_ERR,      IBV_WC_GENERAL_ERR,
};

static void fail_completion(uint64_t nth, enum ibv_wc_status status, bool fallback)
{
	struct err e = ERR_INIT;
	struct pair p;

	make_pair(&p, (uint32_t)nth, fallback);
	fake_verbs_fail_completion(p.fake, nth, status);
	must_open(&p);
	if (fallback) {
		must_send_all(&p);
	} else {
		assert_true(send_all(&p, &e) < 0);
		if (!strstr(e.msg, verbs_status_text(status)))
			fail_msg("'%s' is not in: %s", verbs_status_text(status), e.msg);
	}
	assert_string_equal(fake_verbs_fired(p.fake), "completion");
	break_pair(&p);
}

static void test_any_completion_may_fail(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		for (uint64_t nth = 1; nth < 100; nth += 31) {
			fail_completion(nth, statuses[i], false);
			fail_completion(nth, statuses[i], true);
		}
}

static void something_happens(void (*what)(struct fake_verbs *f), bool fallback, const char *text)
{
	struct err e = ERR_INIT;
	struct pair p;

	make_pair(&p, 1, fallback);
	p.params.stall_timeout_ns = NS_PER_S;
	must_open(&p);
	assert_int_equal(send_round(&p, 1, &e), 0);
	what(p.fake);
	if (fallback) {
		must_send_all(&p);
	} else {
		assert_true(send_all(&p, &e) < 0);
		if (!strstr(e.msg, text))
			fail_msg("expected '%s' in: %s", text, e.msg);
	}
	break_pair(&p);
}

static void test_the_device_is_removed(void **state)
{
	(void)state;
	something_happens(fake_verbs_remove_device, false, "RDMA");
	something_happens(fake_verbs_remove_device, true, NULL);
}

/* A device cannot go while somebody listens on it, so a destination that waits must hear of it. */
static void test_an_idle_listener_hears_that_the_device_goes(void **state)
{
	struct err e = ERR_INIT;
	struct rdma_conn *nobody;
	struct pair p;

	(void)state;
	make_pair(&p, 1, false);
	fake_verbs_remove_device(p.fake);
	assert_true(rdma_listener_accept(p.listener, NULL, link_fd(p.links[1]), 5 * NS_PER_S,
					 p.destination_cancel, &nobody, &e) < 0);
	assert_non_null(strstr(e.msg, "was removed from this host"));
	break_pair(&p);
}

static void test_the_completion_queue_overruns(void **state)
{
	(void)state;
	/* Both sides' queues: the one who looks first says so. */
	something_happens(fake_verbs_overrun_cq, false, "RDMA: the ");
	something_happens(fake_verbs_overrun_cq, true, NULL);
}

static void test_nothing_happens_any_more(void **state)
{
	(void)state;
	something_happens(fake_verbs_hang, false, "no progress for 1.0 s");
	something_happens(fake_verbs_hang, true, NULL);
}

static void test_no_device(void **state)
{
	struct err e = ERR_INIT;
	struct pair p;

	(void)state;
	make_pair(&p, 1, false);
	fake_verbs_no_device(p.fake);
	assert_true(open_pair(&p, &e) < 0);
	assert_non_null(strstr(e.msg, "no RDMA device leads to that address"));
	break_pair(&p);
	make_pair(&p, 1, true);
	fake_verbs_no_device(p.fake);
	must_open(&p);
	must_send_all(&p);
	assert_int_equal(fake_verbs_written_bytes(p.fake), 0);
	break_pair(&p);
}

static void test_cancelled_while_writes_hang(void **state)
{
	struct err e = ERR_INIT;
	struct pair p;

	(void)state;
	make_pair(&p, 1, true); /* a cancellation does not fall back */
	must_open(&p);
	fake_verbs_hang(p.fake);
	cancel_request(p.source_cancel);
	assert_true(send_all(&p, &e) < 0);
	assert_int_equal(e.kind, ERR_CANCELLED);
	break_pair(&p);
}

/* ---- a hostile source ---- */

struct attack {
	const char *what;
	uint8_t kind;
	struct batch_run runs[3];
	const char *answer;
};

#define RUN(gfn_, nr, kind_)                                     \
	{                                                        \
		.gfn = (gfn_), .nr_pages = (nr), .kind = (kind_) \
	}

static const struct attack attacks[] = {
	{"more than the budget",
	 BATCH_WINDOW,
	 {RUN(0, 512, RUN_PIN), RUN(512, 512, RUN_PIN), RUN(1024, 1, RUN_PIN)},
	 "more pinned than the 4096 KiB"},
	{"twice", BATCH_WINDOW, {RUN(0, 9, RUN_PIN), RUN(0, 9, RUN_PIN)}, "pinned already"},
	{"unpins what is not pinned", BATCH_WINDOW, {RUN(0, 9, RUN_UNPIN)}, "not pinned"},
	{"unpins a part",
	 BATCH_WINDOW,
	 {RUN(0, 9, RUN_PIN), RUN(0, 8, RUN_UNPIN)},
	 "8 pages: not pinned"},
	{"no RAM", BATCH_WINDOW, {RUN(1 << 20, 9, RUN_PIN)}, "is not RAM"},
	{"over the end of a chunk", BATCH_WINDOW, {RUN(500, 20, RUN_PIN)}, "leaves its chunk"},
	{"data runs in a window", BATCH_WINDOW, {RUN(0, 9, RUN_DATA)}, "run kind 1"},
	{"pins in a page batch", BATCH_PLACED, {RUN(0, 9, RUN_PIN)}, "run kind 3"},
};

static void play(const struct attack *a)
{
	struct batch_header head = {.magic = BATCH_MAGIC, .kind = a->kind};
	struct rdma_greeting greeting = {.index = 0};
	struct err e = ERR_INIT;
	struct rdma_conn *conn;
	struct pair p;

	make_pair(&p, 1, false);
	memcpy(greeting.migration_id, p.id, sizeof(p.id));
	assert_int_equal(pthread_create(&p.accepting, NULL, accept_main, &p), 0);
	assert_int_equal(
		rdma_conn_connect(p.params.verbs, &p.uri, &greeting, NS_PER_S, NULL, &conn, &e), 0);
	while (head.nr_runs < 3 && a->runs[head.nr_runs].nr_pages)
		head.nr_runs++;
	assert_int_equal(link_send(p.links[0], &head, sizeof(head), &e), 0);
	assert_int_equal(link_send(p.links[0], a->runs, head.nr_runs * sizeof(a->runs[0]), &e), 0);
	assert_int_equal(link_poll(cancel_fd(p.destination_cancel), POLLIN, NULL, 5 * NS_PER_S, &e),
			 0);
	destination_error(&p, &e);
	if (!strstr(e.msg, a->answer))
		fail_msg("%s: expected '%s' in: %s", a->what, a->answer, e.msg);
	assert_int_equal(fake_verbs_pinned(p.fake, true), 0); /* at once, not when it is freed */
	rdma_conn_free(conn);
	break_pair(&p);
}

static void test_a_hostile_source_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++)
		play(&attacks[i]);
}

/* Only what was granted can be written, by key, by range; and nothing once the channel is gone. */
static void test_keys_open_the_window_and_nothing_else(void **state)
{
	static const struct {
		uint64_t gpa;
		uint32_t bytes;
		int wrong_key;
	} tries[] = {{4096, 4096, 1}, {0, 4096, 0}, {8192, 2 * 4096, 0}, {4096ull << 20, 4096, 0}};
	struct batch_header head = {.magic = BATCH_MAGIC, .kind = BATCH_WINDOW, .nr_runs = 1};
	struct batch_run run = RUN(1, 2, RUN_PIN);
	struct rdma_greeting greeting = {.index = 0};

	(void)state;
	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		const int fds[2] = {-1, -1};
		struct rdma_piece piece = {.gpa = tries[i].gpa, .bytes = tries[i].bytes};
		struct batch_grant grant;
		struct rdma_done done;
		struct err e = ERR_INIT;
		struct rdma_conn *conn;
		struct ibv_mr *mr;
		struct pair p;

		make_pair(&p, 1, false);
		memcpy(greeting.migration_id, p.id, sizeof(p.id));
		assert_int_equal(pthread_create(&p.accepting, NULL, accept_main, &p), 0);
		assert_int_equal(rdma_conn_connect(p.params.verbs, &p.uri, &greeting, NS_PER_S,
						   NULL, &conn, &e),
				 0);
		assert_int_equal(link_send(p.links[0], &head, sizeof(head), &e), 0);
		assert_int_equal(link_send(p.links[0], &run, sizeof(run), &e), 0);
		assert_int_equal(link_recv(p.links[0], &grant, sizeof(grant), &e), 0);
		assert_int_equal(grant.refused, 0);
		assert_int_equal(rdma_conn_pin(conn, page_of(p.from, 0), MEM_BYTES,
					       tries[i].gpa & ~0xffffull, false, &mr),
				 0);
		piece.local_key = mr->lkey;
		piece.remote_key = grant.key + (uint32_t)tries[i].wrong_key;
		assert_int_equal(rdma_conn_write(conn, &piece, 1, 5, &e), 0);
		assert_int_equal(rdma_conn_wait(conn, fds, NS_PER_S, NULL, &e), 0);
		assert_true(rdma_conn_poll(conn, &done, &e) < 0);
		assert_non_null(strstr(e.msg, "not open to us"));
		rdma_conn_unpin(conn, mr);
		rdma_conn_free(conn);
		break_pair(&p);
	}
}

/* Sealed, a channel is shut for a source that is not done, and nobody calls that a failure. */
static void test_sealed_memory_cannot_be_written(void **state)
{
	struct err e = ERR_INIT;
	struct pair p;

	(void)state;
	make_pair(&p, 1, false);
	must_open(&p);
	must_send_all(&p);
	await_receiver(&p);
	assert_int_equal(fake_verbs_open_ends(p.fake), 2);
	receiver_seal(p.receiver);
	assert_int_equal(fake_verbs_open_ends(p.fake), 0);
	assert_true(send_round(&p, 1, &e) < 0);
	for (uint64_t gfn = 0; gfn < MEM_BYTES / PAGE_BYTES; gfn++)
		if (has_data(gfn, p.round) && page_of(p.to, gfn)[0] >> 12 == (gfn << 8 | p.round))
			fail_msg("gfn %llu was written", (unsigned long long)gfn);
	receiver_failure(p.receiver, &e);
	assert_int_equal(e.kind, ERR_NONE);
	assert_int_equal(cancel_requested(p.destination_cancel), false);
	break_pair(&p);
}

static void test_a_stranger_is_turned_away(void **state)
{
	struct rdma_greeting stranger = {.index = 7};
	struct err e = ERR_INIT;
	struct rdma_conn *conn;
	struct pair p;

	(void)state;
	make_pair(&p, 1, false);
	assert_int_equal(pthread_create(&p.accepting, NULL, accept_main, &p), 0);
	assert_true(rdma_conn_connect(p.params.verbs, &p.uri, &stranger, NS_PER_S, NULL, &conn,
				      &e) < 0);
	assert_non_null(strstr(e.msg, "no channel of this migration"));
	cancel_request(p.destination_cancel);
	break_pair(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_arrive_in_any_order_of_completions),
		cmocka_unit_test(test_never_more_than_the_budget),
		cmocka_unit_test(test_regions_are_kept_while_there_is_room),
		cmocka_unit_test(test_pins_only_where_data_is),
		cmocka_unit_test(test_on_demand_paging_pins_nothing),
		cmocka_unit_test(test_a_limit_on_regions_shrinks_the_budget),
		cmocka_unit_test(test_sealed_memory_cannot_be_written),
		cmocka_unit_test(test_a_limit_below_the_budget_shrinks_it),
		cmocka_unit_test(test_a_limit_below_anything_is_an_error_that_says_what_to_set),
		cmocka_unit_test(test_any_call_may_fail),
		cmocka_unit_test(test_any_call_may_fail_and_tcp_goes_on),
		cmocka_unit_test(test_any_completion_may_fail),
		cmocka_unit_test(test_the_device_is_removed),
		cmocka_unit_test(test_an_idle_listener_hears_that_the_device_goes),
		cmocka_unit_test(test_the_completion_queue_overruns),
		cmocka_unit_test(test_nothing_happens_any_more),
		cmocka_unit_test(test_no_device),
		cmocka_unit_test(test_cancelled_while_writes_hang),
		cmocka_unit_test(test_a_hostile_source_is_refused),
		cmocka_unit_test(test_keys_open_the_window_and_nothing_else),
		cmocka_unit_test(test_a_stranger_is_turned_away),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
