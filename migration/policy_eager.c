/* The limit is a permission: the first round that leaves little enough is the last. It moves the
 * least, and is what QEMU's rule can be compared with. */
#include "migration/policy.h"

static struct policy_decision eager_decide(const struct policy_params *params,
					   const struct policy_round *rounds, uint32_t nr_rounds,
					   uint64_t pending_pages)
{
	struct policy_decision d = policy_predict(params, rounds, nr_rounds, pending_pages);

	if (policy_within_limit(params, &d)) {
		d.verdict = POLICY_SWITCH_OVER;
		d.why = "the rest fits the downtime limit";
	} else {
		policy_not_yet(params, rounds, nr_rounds, &d);
	}
	return d;
}

const struct policy_ops policy_eager = {.name = "eager", .decide = eager_decide};
