/*
 * The whole RDMA channel, source and destination, over a fake provider: pages arrive whatever the
 * order of completions, the budget holds on both sides, and after any failure nothing is left: no
 * error without a cause in words, no page wrong after a fallback, no object, no pinned byte.
 */
#include "tests/unit/rdma/channel_pair.h"

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
		assert_int_equal(p.nr_fallbacks, 0);
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

/* A later round of a Linux guest: a page here and a page there, in more chunks than are looked
 * ahead: nothing has been asked for yet when there is no place for the next. */
static void test_one_batch_of_more_chunks_than_are_looked_ahead(void **state)
{
	struct page_batch b = {.round = 1, .nr_runs = BATCH_MAX_RUNS};
	struct send_stats stats = {0};
	struct err e = ERR_INIT;
	struct pair p;

	(void)state;
	make_pair(&p, 1, false);
	must_open(&p);
	for (uint32_t i = 0; i < BATCH_MAX_RUNS; i++) {
		uint64_t gfn = i % MEM_CHUNKS * CHUNK_PAGES + i / MEM_CHUNKS;

		memset(page_of(p.from, gfn), 0x5a, PAGE_BYTES);
		b.runs[i] = (struct batch_run){.gfn = gfn, .nr_pages = 1, .kind = RUN_DATA};
	}
	b.nr_data_pages = BATCH_MAX_RUNS;
	if (p.chan->ops->send(p.chan, &b, &stats, &e) < 0 ||
	    p.chan->ops->barrier(p.chan, 1, &stats, &e) < 0)
		fail_msg("%s", e.msg);
	assert_same(&p);
	break_pair(&p);
}

/* Every chunk as a batch of its own; how many batches the destination hears, these included. */
static uint64_t send_chunks(uint64_t bytes_per_s)
{
	struct page_batch b = {.round = 1, .nr_runs = 1, .nr_data_pages = CHUNK_PAGES};
	struct send_stats stats = {0};
	struct err e = ERR_INIT;
	uint64_t nr_heard;
	struct pair p;

	make_pair(&p, 1, false);
	p.pin_bytes = MEM_BYTES;
	rate_limit_set(p.limit, bytes_per_s);
	assert_int_equal(fault_new(&p.fault, &e), 0);
	must_open(&p);
	for (uint64_t gfn = 0; gfn < MEM_BYTES / PAGE_BYTES; gfn += CHUNK_PAGES) {
		b.runs[0] =
			(struct batch_run){.gfn = gfn, .nr_pages = CHUNK_PAGES, .kind = RUN_DATA};
		memset(page_of(p.from, gfn), 0x5a, CHUNK_PAGES * PAGE_BYTES);
		assert_int_equal(p.chan->ops->send(p.chan, &b, &stats, &e), 0);
	}
	assert_int_equal(p.chan->ops->barrier(p.chan, 1, &stats, &e), 0);
	assert_same(&p);
	nr_heard = fault_passed(p.fault);
	break_pair(&p);
	return nr_heard;
}

/* Half of what the budget holds in a WINDOW: a message for each chunk would wake each thread for
 * each. */
static void test_regions_are_asked_for_in_groups(void **state)
{
	(void)state;
	assert_int_equal(send_chunks(0), MEM_CHUNKS + 2 + 1);
}

/* Where the rate is limited, a chunk that was paid for goes out and waits for no others. */
static void test_a_limited_rate_has_no_bursts(void **state)
{
	(void)state;
	assert_int_equal(send_chunks(100ull << 30), MEM_CHUNKS + MEM_CHUNKS + 1);
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

/* What a sweep is over. */
struct swept {
	int code; /* what the call fails with */
	bool fallback;
	bool wide; /* all of memory fits into the window: many regions are asked for together */
};

#define SETUP_CALLS 34 /* at both ends, about */

/* Fail the @nth call; false when there were fewer. */
static bool fail_call(uint64_t nth, const struct swept *how, uint32_t *nr_completed)
{
	struct err e = ERR_INIT;
	const char *fired;
	struct pair p;

	make_pair(&p, (uint32_t)nth, how->fallback);
	p.pin_bytes = how->wide ? MEM_BYTES : BUDGET;
	fake_verbs_fail_call(p.fake, nth, how->code);
	if (open_pair(&p, &e) == 0 && (how->wide ? send_round(&p, 1, &e) : send_all(&p, &e)) == 0) {
		assert_same(&p);
		(*nr_completed)++;
	} else if (strlen(e.msg) < 20) {
		fail_msg("call %llu: '%s' is no message", (unsigned long long)nth, e.msg);
	}
	fired = fake_verbs_fired(p.fake);
	break_pair(&p);
	return fired;
}

/* The first calls set up, which is the same with any window; then the same few come again and
 * again, so steps may grow. */
static uint32_t sweep(const struct swept *how, uint32_t *nr_completed)
{
	uint32_t nr = 0;

	*nr_completed = 0;
	for (uint64_t nth = how->wide ? SETUP_CALLS : 1; fail_call(nth, how, nr_completed);
	     nth += nth < 80 ? 1 : nth / 12)
		nr++;
	return nr;
}

static void test_any_call_may_fail(void **state)
{
	static const struct swept hows[] = {{EIO, false, false},
					    {ENOMEM, false, false},
					    {EIO, false, true},
					    {ENOMEM, false, true}};

	(void)state;
	for (size_t i = 0; i < sizeof(hows) / sizeof(hows[0]); i++) {
		uint32_t nr_completed;
		uint32_t nr = sweep(&hows[i], &nr_completed);

		print_message("  %s%s: %u of %u completed all the same\n",
			      hows[i].code == EIO ? "EIO" : "ENOMEM", hows[i].wide ? ", wide" : "",
			      nr_completed, nr);
		assert_true(nr > (hows[i].wide ? 30 : 90));
	}
}

static void test_any_call_may_fail_and_tcp_goes_on(void **state)
{
	static const struct swept hows[] = {
		{EIO, true, false}, {EIO, true, true}, {ENOMEM, true, true}};

	(void)state;
	for (size_t i = 0; i < sizeof(hows) / sizeof(hows[0]); i++) {
		uint32_t nr_completed;
		uint32_t nr = sweep(&hows[i], &nr_completed);

		print_message("  %u of %u completed\n", nr_completed, nr);
		/* What fails at the destination after its adapter has taken the mark ends the
		 * migration. */
		assert_true(nr_completed > nr * 9 / 10);
	}
}

static const enum ibv_wc_status statuses[] = {
	IBV_WC_RETRY_EXC_ERR, IBV_WC_RNR_RETRY_EXC_ERR, IBV_WC_REM_ACCESS_ERR,
	IBV_WC_REM_OP_ERR,    IBV_WC_REM_INV_REQ_ERR,   IBV_WC_LOC_PROT_ERR,
	IBV_WC_LOC_QP_OP_ERR, IBV_WC_WR_FLUSH_ERR,      IBV_WC_GENERAL_ERR,
};

/* Refused at once here, and granted there: the grants come together, and the first of them ends the
 * pipeline. The others are not waited for when the channel goes on over TCP. */
static void test_grants_that_come_with_a_failure_count(void **state)
{
	struct page_batch b = {.round = 1, .nr_runs = MEM_CHUNKS, .nr_data_pages = MEM_CHUNKS};
	struct send_stats stats = {0};
	struct err e = ERR_INIT;
	struct pair p;

	(void)state;
	make_pair(&p, 1, true);
	p.pin_bytes = MEM_BYTES;
	assert_int_equal(fault_new(&p.source_fault, &e), 0);
	fault_arm_name(p.source_fault, "src.rdma_pin");
	must_open(&p);
	for (uint32_t i = 0; i < MEM_CHUNKS; i++) {
		b.runs[i] =
			(struct batch_run){.gfn = i * CHUNK_PAGES, .nr_pages = 1, .kind = RUN_DATA};
		memset(page_of(p.from, b.runs[i].gfn), 0x5a, PAGE_BYTES);
	}
	if (p.chan->ops->send(p.chan, &b, &stats, &e) < 0 ||
	    p.chan->ops->barrier(p.chan, 1, &stats, &e) < 0)
		fail_msg("%s", e.msg);
	assert_int_equal(stats.nr_fallbacks, 1);
	assert_same(&p);
	break_pair(&p);
}

struct counted {
	struct fault *fault;
	uint32_t nr_regions;
};

static void fail_third_region(void *ctx, const char *name)
{
	struct counted *c = ctx;

	if (!strcmp(name, "src.rdma_region") && ++c->nr_regions == 3)
		fault_arm_name(c->fault, "src.rdma_region");
}

/* Two are asked for and the third cannot be: their grants are owed, so the destination has to hear
 * of them before the channel goes on over TCP, or would be waited for in vain. */
static void test_what_was_asked_for_before_a_failure_is_answered(void **state)
{
	struct counted counted = {.nr_regions = 0};
	struct err e = ERR_INIT;
	struct pair p;

	(void)state;
	make_pair(&p, 1, true);
	p.pin_bytes = MEM_BYTES;
	assert_int_equal(fault_new(&p.source_fault, &e), 0);
	counted.fault = p.source_fault;
	fault_observe(p.source_fault, fail_third_region, &counted);
	must_open(&p);
	must_send_all(&p);
	assert_string_equal(fault_fired(p.source_fault), "src.rdma_region");
	assert_int_equal(p.nr_fallbacks, 1);
	break_pair(&p);
}

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
	if (what == fake_verbs_hang)
		p.params.stall_timeout_ns = NS_PER_S;
	must_open(&p);
	assert_int_equal(send_round(&p, 1, &e), 0);
	what(p.fake);
	if (fallback) {
		must_send_all(&p);
		assert_int_equal(p.nr_fallbacks, 1);
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
	assert_true(rdma_listener_accept(p.listener, NULL, link_fd(p.links[1]), PATIENCE_NS,
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
	assert_int_equal(p.nr_fallbacks, 1);
	break_pair(&p);
}

static void test_an_address_without_a_device(void **state)
{
	struct err e = ERR_INIT;
	struct pair p;

	(void)state;
	make_pair(&p, 1, false);
	fake_verbs_no_route(p.fake);
	assert_true(open_pair(&p, &e) < 0);
	assert_non_null(strstr(e.msg, "no device here leads to 127.0.0.1"));
	assert_non_null(strstr(e.msg, "godwit doctor"));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_arrive_in_any_order_of_completions),
		cmocka_unit_test(test_never_more_than_the_budget),
		cmocka_unit_test(test_regions_are_kept_while_there_is_room),
		cmocka_unit_test(test_pins_only_where_data_is),
		cmocka_unit_test(test_one_batch_of_more_chunks_than_are_looked_ahead),
		cmocka_unit_test(test_regions_are_asked_for_in_groups),
		cmocka_unit_test(test_a_limited_rate_has_no_bursts),
		cmocka_unit_test(test_on_demand_paging_pins_nothing),
		cmocka_unit_test(test_a_limit_on_regions_shrinks_the_budget),
		cmocka_unit_test(test_a_limit_below_the_budget_shrinks_it),
		cmocka_unit_test(test_a_limit_below_anything_is_an_error_that_says_what_to_set),
		cmocka_unit_test(test_any_call_may_fail),
		cmocka_unit_test(test_any_call_may_fail_and_tcp_goes_on),
		cmocka_unit_test(test_grants_that_come_with_a_failure_count),
		cmocka_unit_test(test_what_was_asked_for_before_a_failure_is_answered),
		cmocka_unit_test(test_any_completion_may_fail),
		cmocka_unit_test(test_the_device_is_removed),
		cmocka_unit_test(test_an_idle_listener_hears_that_the_device_goes),
		cmocka_unit_test(test_the_completion_queue_overruns),
		cmocka_unit_test(test_nothing_happens_any_more),
		cmocka_unit_test(test_no_device),
		cmocka_unit_test(test_an_address_without_a_device),
		cmocka_unit_test(test_cancelled_while_writes_hang),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
