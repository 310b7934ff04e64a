#include "migration/params.h"

#include <errno.h>
#include <string.h>

#include "dirty-tracking/dirty.h"
#include "migration/codec.h"
#include "migration/disk_set.h"
#include "migration/policy.h"
#include "migration/rdma/pin_limit.h"
#include "vmm/base/clock.h"

void migration_params_init(struct migration_params *p)
{
	*p = (struct migration_params){
		.downtime_limit_ns = 300 * NS_PER_MS,
		.nr_channels = 1,
		.codec = "auto",
		.tracker = "bitmap",
		.policy = POLICY_DEFAULT,
		.rdma_pin_bytes = MIGRATION_RDMA_PIN,
		.throttle_initial = 20,
		.throttle_increment = 10,
		.throttle_max = 99,
		.connect_timeout_ns = 10 * NS_PER_S,
		.stall_timeout_ns = 20 * NS_PER_S,
		.announce = ANNOUNCE_DEFAULTS,
	};
}

static int check_tracker(const char *name, struct err *e)
{
	const struct dirty_ops *kind;

	for (uint32_t i = 0; (kind = dirty_kind(i)); i++)
		if (!strcmp(kind->name, name))
			return 0;
	return err_set(e, ERR_USAGE, EINVAL,
		       "there is no dirty tracker '%s'; choose bitmap or clear-log", name);
}

static int check_throttle(const struct migration_params *p, struct err *e)
{
	if (p->throttle_initial < 1 || p->throttle_increment < 1 || p->throttle_increment > 99 ||
	    p->throttle_max > 99 || p->throttle_initial > p->throttle_max)
		return err_set(e, ERR_USAGE, EINVAL,
			       "throttling from %u %% in steps of %u %% up to %u %%: choose 1 to "
			       "99, and a maximum that is not below the beginning",
			       p->throttle_initial, p->throttle_increment, p->throttle_max);
	return 0;
}

int migration_params_check(const struct migration_params *p, struct err *e)
{
	uint64_t copied;

	if (p->nr_channels < 1 || p->nr_channels > MIGRATION_MAX_CHANNELS)
		return err_set(e, ERR_USAGE, EINVAL, "%u channels: choose 1 to %d", p->nr_channels,
			       MIGRATION_MAX_CHANNELS);
	if (!p->downtime_limit_ns || p->downtime_limit_ns > 2000 * NS_PER_S)
		return err_set(e, ERR_USAGE, EINVAL,
			       "the downtime limit must be over 0 and at most "
			       "2000 s");
	if (p->rdma_pin_bytes < p->nr_channels * PIN_MIN_CHANNEL_BYTES)
		return err_set(
			e, ERR_USAGE, EINVAL,
			"%llu KiB to pin for RDMA are too little for %u channels: at least %llu",
			(unsigned long long)p->rdma_pin_bytes / 1024, p->nr_channels,
			p->nr_channels * PIN_MIN_CHANNEL_BYTES / 1024);
	if (check_throttle(p, e) < 0 || codec_check_name(p->codec, e) < 0 ||
	    !policy_by_name(p->policy, e) || disk_set_parse(p->copy_disks, &copied, e) < 0)
		return -e->code;
	return check_tracker(p->tracker, e);
}
