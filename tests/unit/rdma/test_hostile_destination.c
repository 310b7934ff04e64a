/*
 * A destination that answers what nobody asked, or what cannot be: the source says so, does not
 * fall back for it, pins nothing any more and stands where it stood.
 */
#include "tests/unit/rdma/channel_pair.h"

#define NOBODYS_GFN (1ull << 30)
#define ALL_REFUSED 0x1000 /* one more than any errno */

enum lie {
	LIE_MAGIC,
	LIE_GFN,
	LIE_UNASKED,
	LIE_ERRNO,
	LIE_KEY,
	LIE_MARK
};

struct liar {
	struct pair *p;
	enum lie lie;
};

static void grant_one(struct liar *l, const struct batch_run *run)
{
	struct batch_grant grant = {.magic = GRANT_MAGIC, .gfn = run->gfn, .key = 0xbad};
	struct err gone = ERR_INIT;

	grant.magic += l->lie == LIE_MAGIC;
	grant.gfn += l->lie == LIE_GFN;
	if (l->lie == LIE_ERRNO)
		grant.refused = ALL_REFUSED;
	link_send(l->p->links[1], &grant, sizeof(grant), &gone);
}

static void answer(struct liar *l, struct rdma_conn *conn, const struct batch_run *runs,
		   uint32_t nr)
{
	const int fds[2] = {-1, -1};
	struct err gone = ERR_INIT;

	if (l->lie == LIE_MARK && rdma_conn_mark(conn, 1, 0, &gone) == 0)
		rdma_conn_wait(conn, fds, PATIENCE_NS, NULL,
			       &gone); /* the fake works while we wait */
	for (uint32_t i = 0; i < nr && l->lie != LIE_MARK && l->lie != LIE_UNASKED; i++)
		grant_one(l, &runs[i]);
}

static void *liar_main(void *arg)
{
	struct liar *l = arg;
	struct rdma_greeting greeting = {.index = 0};
	struct batch_run runs[BATCH_MAX_RUNS];
	struct batch_header head;
	struct rdma_conn *conn;
	struct err gone = ERR_INIT;

	memcpy(greeting.migration_id, l->p->id, sizeof(l->p->id));
	assert_int_equal(rdma_listener_accept(l->p->listener, &greeting, -1, PATIENCE_NS, NULL,
					      &conn, &gone),
			 0);
	if (l->lie == LIE_UNASKED)
		grant_one(l, &(struct batch_run){.gfn = NOBODYS_GFN});
	while (link_recv(l->p->links[1], &head, sizeof(head), &gone) == 0 &&
	       link_recv(l->p->links[1], runs, head.nr_runs * sizeof(runs[0]), &gone) == 0)
		if (head.kind == BATCH_WINDOW)
			answer(l, conn, runs, head.nr_runs);
	rdma_conn_free(conn);
	return NULL;
}

static void open_to(struct pair *p, struct liar *l)
{
	struct pagechan_source src = source_of(p);
	struct link *link = p->links[0];
	struct err e = ERR_INIT;

	assert_int_equal(pthread_create(&p->accepting, NULL, liar_main, l), 0);
	p->links[0] = NULL;
	assert_int_equal(pagechan_open(&src, link, &p->chan, &e), 0);
}

/* With all of memory in the window, so that many grants are under way. */
static void hear(enum lie lie, bool fallback, enum err_kind kind, const char *words)
{
	struct err e = ERR_INIT;
	struct pair p;
	struct liar l = {&p, lie};

	make_pair(&p, 1, fallback);
	p.pin_bytes = MEM_BYTES;
	open_to(&p, &l);
	assert_true(send_round(&p, 1, &e) < 0);
	if (e.kind != kind || !strstr(e.msg, words))
		fail_msg("lie %d: expected '%s' in: %s (kind %d)", lie, words, e.msg, e.kind);
	assert_int_equal(p.nr_fallbacks, 0);
	break_pair(&p);
}

static void test_what_breaks_the_rules_ends_it(void **state)
{
	(void)state;
	hear(LIE_MAGIC, true, ERR_STREAM, "the destination said 0x");
	hear(LIE_GFN, true, ERR_STREAM, "was due");
	hear(LIE_ERRNO, true, ERR_STREAM, "refused for a reason that is none");
	hear(LIE_MARK, true, ERR_STREAM, "a completion of nothing");
}

/* Whether it comes before anything was asked, or in the place of the first answer. */
static void test_a_grant_that_nobody_asked_for_ends_it(void **state)
{
	(void)state;
	hear(LIE_UNASKED, true, ERR_STREAM, "the destination ");
}

/* The adapter there refuses, whatever its program says. */
static void test_a_key_that_opens_nothing(void **state)
{
	(void)state;
	hear(LIE_KEY, false, ERR_SYS, "not open to us");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_breaks_the_rules_ends_it),
		cmocka_unit_test(test_a_grant_that_nobody_asked_for_ends_it),
		cmocka_unit_test(test_a_key_that_opens_nothing),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
