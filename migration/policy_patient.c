/* Once the limit is met, further rounds still buy a shorter blackout as long as each of them is
 * cheap and more than halves what is left. */
#include "migration/policy.h"

#define POLISH_FACTOR 2
#define POLISH_MAX    6

/* How many rounds in a row, up to now, ended within the limit already: those were polish. */
static uint32_t polish_rounds(const struct policy_params *params, const struct policy_round *rounds,
			      uint32_t nr_rounds)
{
	uint32_t nr = 0;

	while (nr < nr_rounds && rounds[nr_rounds - 1 - nr].duration_ns + params->switchover_ns <=
					 params->downtime_limit_ns)
		nr++;
	return nr;
}

static bool worth_polishing(const struct policy_params *params, const struct policy_round *rounds,
			    uint32_t nr_rounds, uint64_t pending_ns, uint64_t page_ns)
{
	uint64_t rate = rounds[nr_rounds - 1].dirty_pages_per_s;
	double next_pages = (double)rate * (double)(pending_ns + POLICY_NOT_WORTH_IT_NS) / 1e9;
	double next_ns = next_pages * (double)page_ns;

	return pending_ns > POLICY_NOT_WORTH_IT_NS &&
	       next_ns * POLISH_FACTOR < (double)pending_ns &&
	       polish_rounds(params, rounds, nr_rounds) < POLISH_MAX;
}

static struct policy_decision patient_decide(const struct policy_params *params,
					     const struct policy_round *rounds, uint32_t nr_rounds,
					     uint64_t pending_pages)
{
	struct policy_decision d = policy_predict(params, rounds, nr_rounds, pending_pages);

	if (!policy_within_limit(params, &d)) {
		policy_not_yet(params, rounds, nr_rounds, &d);
	} else if (worth_polishing(params, rounds, nr_rounds, pending_pages * d.ns_per_page,
				   d.ns_per_page)) {
		d.verdict = POLICY_AGAIN;
		d.why = "another cheap round shortens the blackout";
	} else {
		d.verdict = POLICY_SWITCH_OVER;
		d.why = "the rest fits the downtime limit";
	}
	return d;
}

const struct policy_ops policy_patient = {.name = "patient", .decide = patient_decide};
