/*
 * Example: a policy (docs/extending.md). `settled` ignores the downtime limit and switches over
 * when rounds stop getting shorter: the shortest blackout this guest and link allow.
 */
#include "migration/policy.h"
#include "tests/unit/cmocka_all.h"

#define SETTLED_PERCENT 90 /* a round that takes more than this of the last one has settled */

static struct policy_decision settled_decide(const struct policy_params *params,
					     const struct policy_round *rounds, uint32_t nr_rounds,
					     uint64_t pending_pages)
{
	const struct policy_round *last = &rounds[nr_rounds - 1];
	uint64_t page_ns = last->sent_pages ? last->duration_ns / last->sent_pages + 1 : 0;
	uint64_t pending_ns = pending_pages * page_ns;
	struct policy_decision d = {.predicted_downtime_ns = pending_ns + params->switchover_ns,
				    .ns_per_page = page_ns};

	if (pending_ns * 100 > last->duration_ns * SETTLED_PERCENT || !pending_pages) {
		d.verdict = POLICY_SWITCH_OVER;
		d.why = "rounds have settled";
	} else if (params->max_rounds && nr_rounds >= params->max_rounds) {
		d.verdict = POLICY_GIVE_UP;
		d.why = "rounds have not settled";
	} else {
		d.verdict = POLICY_AGAIN;
		d.why = "rounds still get shorter";
	}
	return d;
}

static const struct policy_ops policy_settled = {.name = "settled", .decide = settled_decide};

/* ---- The test: a table, because a policy is a pure function ---- */

static void test_table(void **state)
{
	static const struct {
		uint64_t pending_pages;
		uint32_t max_rounds;
		enum policy_verdict want;
	} rows[] = {
		{0, 0, POLICY_SWITCH_OVER},
		{950, 0, POLICY_SWITCH_OVER},
		{100, 0, POLICY_AGAIN},
		{100, 1, POLICY_GIVE_UP},
	};
	const struct policy_round round = {.duration_ns = 1000000, .sent_pages = 1000};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct policy_params params = {.max_rounds = rows[i].max_rounds};

		assert_int_equal(
			policy_settled.decide(&params, &round, 1, rows[i].pending_pages).verdict,
			rows[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
