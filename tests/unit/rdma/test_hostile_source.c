/*
 * A source that wants more than its window: refused by name, and nothing outside the window is ever
 * written, nor anything at all once the guest may run.
 */
#include "tests/unit/rdma/channel_pair.h"

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
		rdma_conn_connect(p.params.verbs, &p.uri, &greeting, PATIENCE_NS, NULL, &conn, &e),
		0);
	while (head.nr_runs < 3 && a->runs[head.nr_runs].nr_pages)
		head.nr_runs++;
	assert_int_equal(link_send(p.links[0], &head, sizeof(head), &e), 0);
	assert_int_equal(link_send(p.links[0], a->runs, head.nr_runs * sizeof(a->runs[0]), &e), 0);
	assert_int_equal(link_poll(cancel_fd(p.destination_cancel), POLLIN, NULL, PATIENCE_NS, &e),
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
		struct rdma_piece piece = {
			.gpa = tries[i].gpa, .bytes = tries[i].bytes, .last = true, .tag = 5};
		struct batch_grant grant;
		struct rdma_done done;
		struct err e = ERR_INIT;
		struct rdma_conn *conn;
		struct ibv_mr *mr;
		struct pair p;

		make_pair(&p, 1, false);
		memcpy(greeting.migration_id, p.id, sizeof(p.id));
		assert_int_equal(pthread_create(&p.accepting, NULL, accept_main, &p), 0);
		assert_int_equal(rdma_conn_connect(p.params.verbs, &p.uri, &greeting, PATIENCE_NS,
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
		assert_int_equal(rdma_conn_write(conn, &piece, 1, &e), 0);
		assert_int_equal(rdma_conn_wait(conn, fds, PATIENCE_NS, NULL, &e), 0);
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
	assert_true(rdma_conn_connect(p.params.verbs, &p.uri, &stranger, PATIENCE_NS, NULL, &conn,
				      &e) < 0);
	assert_non_null(strstr(e.msg, "no channel of this migration"));
	cancel_request(p.destination_cancel);
	break_pair(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_hostile_source_is_refused),
		cmocka_unit_test(test_keys_open_the_window_and_nothing_else),
		cmocka_unit_test(test_sealed_memory_cannot_be_written),
		cmocka_unit_test(test_a_stranger_is_turned_away),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
