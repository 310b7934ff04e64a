/* The policy is a pure function, so its test is a table. */
#include "migration/policy.h"
#include "tests/unit/cmocka_all.h"

#define MS 1000000ull

struct row {
	const char *name;
	struct policy_params params;
	struct policy_round rounds[8];
	uint32_t nr_rounds;
	uint64_t pending_pages;
	enum policy_verdict want;
	uint32_t want_throttle;
};

#define AUTO_CONVERGE .throttle_initial = 20, .throttle_increment = 30, .throttle_max = 60

/* One page costs 1000 ns in all of these (the measured cost is rounded up by 1 ns). */
#define FAST_ROUND(pages, dirty) THROTTLED_ROUND(pages, dirty, 0)
#define THROTTLED_ROUND(pages, dirty, percent)                              \
	{                                                                   \
		.duration_ns = (pages)*1000ull, .sent_pages = (pages),      \
		.dirty_pages_per_s = (dirty), .throttle_percent = (percent) \
	}

static const struct row rows[] = {
	{"nothing is dirty: switch over",
	 {.downtime_limit_ns = 20 * MS},
	 {FAST_ROUND(100000, 0)},
	 1,
	 0,
	 POLICY_SWITCH_OVER,
	 0},
	{"the rest exceeds the limit: again",
	 {.downtime_limit_ns = 20 * MS},
	 {FAST_ROUND(100000, 200000)},
	 1,
	 40000,
	 POLICY_AGAIN,
	 0},
	{"the rest fits and the guest dirties as fast as we send: no polish helps",
	 {.downtime_limit_ns = 20 * MS},
	 {FAST_ROUND(10000, 900000)},
	 1,
	 10000,
	 POLICY_SWITCH_OVER,
	 0},
	{"the rest fits and another round would more than halve it: polish",
	 {.downtime_limit_ns = 300 * MS},
	 {FAST_ROUND(1000000, 50000)},
	 1,
	 100000,
	 POLICY_AGAIN,
	 0},
	{"polish ends after six rounds that were within the limit",
	 {.downtime_limit_ns = 300 * MS},
	 {FAST_ROUND(5000, 10), FAST_ROUND(5000, 10), FAST_ROUND(5000, 10), FAST_ROUND(5000, 10),
	  FAST_ROUND(5000, 10), FAST_ROUND(5000, 10)},
	 6,
	 5000,
	 POLICY_SWITCH_OVER,
	 0},
	{"too little left to be worth a round",
	 {.downtime_limit_ns = 300 * MS},
	 {FAST_ROUND(1000000, 10)},
	 1,
	 250,
	 POLICY_SWITCH_OVER,
	 0},
	{"switch-over cost counts against the limit",
	 {.downtime_limit_ns = 20 * MS, .switchover_ns = 15 * MS},
	 {FAST_ROUND(100000, 900000)},
	 1,
	 8000,
	 POLICY_AGAIN,
	 0},
	{"a limit below the fixed cost is met as well as it can be",
	 {.downtime_limit_ns = MS, .switchover_ns = 2 * MS},
	 {FAST_ROUND(100000, 0)},
	 1,
	 100,
	 POLICY_SWITCH_OVER,
	 0},
	{"... but not while there is something to send",
	 {.downtime_limit_ns = MS, .switchover_ns = 2 * MS},
	 {FAST_ROUND(100000, 900000)},
	 1,
	 5000,
	 POLICY_AGAIN,
	 0},
	{"allowed rounds are over: give up",
	 {.downtime_limit_ns = 20 * MS, .max_rounds = 2},
	 {FAST_ROUND(100000, 900000), FAST_ROUND(90000, 900000)},
	 2,
	 81000,
	 POLICY_GIVE_UP,
	 0},
	{"allowed rounds are over, but the rest fits: switch over",
	 {.downtime_limit_ns = 100 * MS, .max_rounds = 2},
	 {FAST_ROUND(100000, 900000), FAST_ROUND(90000, 900000)},
	 2,
	 81000,
	 POLICY_SWITCH_OVER,
	 0},
	{"an idle round with nothing sent tells no speed, an older one does",
	 {.downtime_limit_ns = 20 * MS},
	 {FAST_ROUND(100000, 900000), {.duration_ns = 100}},
	 2,
	 50000,
	 POLICY_AGAIN,
	 0},
	{"it writes as fast as we send: not held back unless allowed",
	 {.downtime_limit_ns = 20 * MS},
	 {FAST_ROUND(100000, 900000), FAST_ROUND(90000, 900000)},
	 2,
	 81000,
	 POLICY_AGAIN,
	 0},
	{"... once may be an accident",
	 {.downtime_limit_ns = 20 * MS, AUTO_CONVERGE},
	 {FAST_ROUND(100000, 900000)},
	 1,
	 90000,
	 POLICY_AGAIN,
	 0},
	{"... twice is not: hold it back",
	 {.downtime_limit_ns = 20 * MS, AUTO_CONVERGE},
	 {FAST_ROUND(100000, 900000), FAST_ROUND(90000, 900000)},
	 2,
	 81000,
	 POLICY_THROTTLE,
	 20},
	{"a new step is given two rounds to show",
	 {.downtime_limit_ns = 20 * MS, AUTO_CONVERGE},
	 {FAST_ROUND(90000, 900000), THROTTLED_ROUND(81000, 900000, 20)},
	 2,
	 73000,
	 POLICY_AGAIN,
	 20},
	{"not enough: more",
	 {.downtime_limit_ns = 20 * MS, AUTO_CONVERGE},
	 {THROTTLED_ROUND(81000, 900000, 20), THROTTLED_ROUND(73000, 900000, 20)},
	 2,
	 65000,
	 POLICY_THROTTLE,
	 50},
	{"up to the maximum",
	 {.downtime_limit_ns = 20 * MS, AUTO_CONVERGE},
	 {THROTTLED_ROUND(81000, 900000, 50), THROTTLED_ROUND(73000, 900000, 50)},
	 2,
	 65000,
	 POLICY_THROTTLE,
	 60},
	{"and not beyond",
	 {.downtime_limit_ns = 20 * MS, AUTO_CONVERGE},
	 {THROTTLED_ROUND(81000, 900000, 60), THROTTLED_ROUND(73000, 900000, 60)},
	 2,
	 65000,
	 POLICY_AGAIN,
	 60},
	{"enough: it is left as it is",
	 {.downtime_limit_ns = 20 * MS, AUTO_CONVERGE},
	 {THROTTLED_ROUND(81000, 400000, 50), THROTTLED_ROUND(73000, 400000, 50)},
	 2,
	 29000,
	 POLICY_AGAIN,
	 50},
	{"an empty guest: nothing was ever sent",
	 {.downtime_limit_ns = 20 * MS},
	 {{.duration_ns = 1000}},
	 1,
	 0,
	 POLICY_SWITCH_OVER,
	 0},
};

static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];
		struct policy_decision d = policy_patient.decide(&r->params, r->rounds,
								 r->nr_rounds, r->pending_pages);

		if (d.verdict != r->want)
			fail_msg("%s: verdict %d (%s)", r->name, d.verdict, d.why);
		if (d.throttle_percent != r->want_throttle)
			fail_msg("%s: throttle %u %%", r->name, d.throttle_percent);
		assert_non_null(d.why);
	}
}

static void test_prediction(void **state)
{
	const struct policy_params params = {.downtime_limit_ns = 20 * MS, .switchover_ns = 3 * MS};
	const struct policy_round round = FAST_ROUND(100000, 0);
	struct policy_decision d = policy_patient.decide(&params, &round, 1, 4000);

	(void)state;
	assert_int_equal(d.ns_per_page, 1001);
	assert_int_equal(d.predicted_downtime_ns, 4000 * 1001 + 3 * MS);
}

/* It converges: simulate a guest that dirties half as fast as the link sends. */
static void test_simulated_migration_ends(void **state)
{
	const struct policy_params params = {.downtime_limit_ns = 20 * MS};
	struct policy_round rounds[64];
	uint64_t pending = 1000000;
	uint32_t nr = 0;

	(void)state;
	for (;;) {
		struct policy_decision d;

		assert_true(nr < 64);
		rounds[nr++] = (struct policy_round)FAST_ROUND(pending, 500000);
		pending /= 2;
		d = policy_patient.decide(&params, rounds, nr, pending);
		if (d.verdict == POLICY_SWITCH_OVER) {
			assert_true(d.predicted_downtime_ns <= params.downtime_limit_ns);
			return;
		}
		assert_int_equal(d.verdict, POLICY_AGAIN);
	}
}

static void test_eager_does_not_polish(void **state)
{
	const struct policy_params params = {.downtime_limit_ns = 300 * MS};
	const struct policy_round round = FAST_ROUND(1000000, 50000);

	(void)state;
	assert_int_equal(policy_patient.decide(&params, &round, 1, 100000).verdict, POLICY_AGAIN);
	assert_int_equal(policy_eager.decide(&params, &round, 1, 100000).verdict,
			 POLICY_SWITCH_OVER);
	assert_int_equal(policy_eager.decide(&params, &round, 1, 400000).verdict, POLICY_AGAIN);
}

static void test_names(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_ptr_equal(policy_by_name(POLICY_DEFAULT, &e), &policy_patient);
	assert_ptr_equal(policy_by_name("eager", &e), &policy_eager);
	assert_null(policy_by_name("hasty", &e));
	assert_string_equal(e.msg, "there is no policy 'hasty'; choose patient or eager");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_prediction),
		cmocka_unit_test(test_simulated_migration_ends),
		cmocka_unit_test(test_eager_does_not_polish),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
