#include "migration/policy.h"

#include <errno.h>
#include <string.h>

/* Rounds that the speed estimate looks back over, and how many pages give a round a say: smaller
 * ones tell more about round trips than about speed. */
#define WINDOW        5
#define WEIGHTY_PAGES 64

static const struct policy_ops *const policies[] = {&policy_patient, &policy_eager};

#define NR_POLICIES (sizeof(policies) / sizeof(policies[0]))

const struct policy_ops *policy_by_name(const char *name, struct err *e)
{
	char names[128] = "";

	for (size_t i = 0; i < NR_POLICIES; i++) {
		if (!strcmp(policies[i]->name, name))
			return policies[i];
		strncat(names, i ? " or " : "", sizeof(names) - strlen(names) - 1);
		strncat(names, policies[i]->name, sizeof(names) - strlen(names) - 1);
	}
	err_set(e, ERR_USAGE, EINVAL, "there is no policy '%s'; choose %s", name, names);
	return NULL;
}

/* ---- Predicting ---- */

static uint64_t round_ns_per_page(const struct policy_round *r)
{
	return r->duration_ns / r->sent_pages + 1;
}

/* The median of the last few rounds: one round in which the host had other things to do must not
 * pass for the speed of the link. */
static uint64_t ns_per_page(const struct policy_round *rounds, uint32_t nr_rounds)
{
	uint64_t sorted[WINDOW];
	uint32_t nr = 0;

	for (uint32_t i = nr_rounds; i-- > 0 && nr < WINDOW;) {
		uint64_t sample;
		uint32_t at = nr;

		if (rounds[i].sent_pages < WEIGHTY_PAGES)
			continue;
		sample = round_ns_per_page(&rounds[i]);
		for (; at > 0 && sorted[at - 1] > sample; at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = sample;
		nr++;
	}
	return nr ? sorted[nr / 2] : 0;
}

struct policy_decision policy_predict(const struct policy_params *params,
				      const struct policy_round *rounds, uint32_t nr_rounds,
				      uint64_t pending_pages)
{
	uint64_t page_ns = ns_per_page(rounds, nr_rounds);

	return (struct policy_decision){.predicted_downtime_ns =
						pending_pages * page_ns + params->switchover_ns,
					.ns_per_page = page_ns,
					.throttle_percent = rounds[nr_rounds - 1].throttle_percent};
}

bool policy_within_limit(const struct policy_params *params, const struct policy_decision *d)
{
	uint64_t pending_ns = d->predicted_downtime_ns - params->switchover_ns;

	/* A limit below the fixed cost can never be met; with nothing left to send this is the
	 * best. */
	return d->predicted_downtime_ns <= params->downtime_limit_ns ||
	       (pending_ns <= POLICY_NOT_WORTH_IT_NS &&
		params->switchover_ns > params->downtime_limit_ns);
}

/* ---- Not yet ---- */

/* As QEMU's throttle-trigger-threshold of 50: a round after which more than half as much is dirty
 * as it sent wins too little; twice in a row is no accident. */
#define TOO_FAST_DIVISOR 2
#define TOO_FAST_ROUNDS  2

static bool wins_too_little(const struct policy_round *r)
{
	double dirtied = (double)r->dirty_pages_per_s * (double)r->duration_ns / 1e9;

	return dirtied * TOO_FAST_DIVISOR > (double)r->sent_pages;
}

/* Have enough rounds passed at the present throttle, and did none of them help? */
static bool throttle_more(const struct policy_params *params, const struct policy_round *rounds,
			  uint32_t nr_rounds)
{
	uint32_t percent = rounds[nr_rounds - 1].throttle_percent;

	if (!params->throttle_initial || percent >= params->throttle_max ||
	    nr_rounds < TOO_FAST_ROUNDS)
		return false;
	for (uint32_t i = nr_rounds - TOO_FAST_ROUNDS; i < nr_rounds; i++)
		if (rounds[i].throttle_percent != percent || !wins_too_little(&rounds[i]))
			return false;
	return true;
}

static uint32_t next_throttle(const struct policy_params *params, uint32_t percent)
{
	uint32_t next = percent ? percent + params->throttle_increment : params->throttle_initial;

	return next < params->throttle_max ? next : params->throttle_max;
}

void policy_not_yet(const struct policy_params *params, const struct policy_round *rounds,
		    uint32_t nr_rounds, struct policy_decision *d)
{
	if (params->max_rounds && nr_rounds >= params->max_rounds) {
		d->verdict = POLICY_GIVE_UP;
		d->why = "not converged within the allowed rounds";
	} else if (throttle_more(params, rounds, nr_rounds)) {
		d->verdict = POLICY_THROTTLE;
		d->throttle_percent = next_throttle(params, d->throttle_percent);
		d->why = "the guest writes faster than the link sends";
	} else {
		d->verdict = POLICY_AGAIN;
		d->why = "the rest exceeds the downtime limit";
	}
}
