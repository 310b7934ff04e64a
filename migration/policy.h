/*
 * When to stop copying and switch over: a pure function of parameters and round history.
 *
 * No clocks, no I/O, no state: it can be tested as a table and replayed from a report. Any thread.
 * A policy is one file and one line in policy.c's table.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"

#define POLICY_DEFAULT "patient"

/* A round's own fixed cost: with less than that to send, another round wins nothing. */
#define POLICY_NOT_WORTH_IT_NS 300000ull

enum policy_verdict {
	POLICY_AGAIN,       /* send another round while the guest runs */
	POLICY_SWITCH_OVER, /* pause now */
	POLICY_THROTTLE,    /* send another round, and hold the vCPUs back this much (see below) */
	POLICY_GIVE_UP,     /* it will not converge within what the user allowed */
};

struct policy_params {
	uint64_t downtime_limit_ns;
	uint32_t max_rounds;    /* 0: no bound */
	uint64_t switchover_ns; /* what pausing costs beside memory: state, round trips */
	/* Auto-converge: percent of its time that a guest which writes too fast must rest, at first
	 * and at each further step, up to the maximum. QEMU's cpu-throttle-* parameters. A first
	 * step of 0: never. */
	uint32_t throttle_initial;
	uint32_t throttle_increment;
	uint32_t throttle_max;
};

/* One finished round. */
struct policy_round {
	uint64_t duration_ns;
	uint64_t sent_pages;        /* pages that took wire time (not skipped) */
	uint64_t dirty_pages_per_s; /* measured over this round */
	uint32_t throttle_percent;  /* what the guest rested during it */
};

struct policy_decision {
	enum policy_verdict verdict;
	uint64_t predicted_downtime_ns; /* if the guest were paused now */
	uint64_t ns_per_page;           /* the measured cost behind the prediction */
	uint32_t throttle_percent;      /* from now on */
	const char *why;                /* a literal, for logs and reports */
};

/* @rounds[0..nr_rounds) is the history, oldest first (at least one); @pending_pages is what is
 * dirty now. */
struct policy_ops {
	const char *name; /* under 16 characters */
	struct policy_decision (*decide)(const struct policy_params *params,
					 const struct policy_round *rounds, uint32_t nr_rounds,
					 uint64_t pending_pages);
};

extern const struct policy_ops policy_patient; /* uses the time it is given to shorten the pause */
extern const struct policy_ops policy_eager;   /* pauses as soon as it may, as QEMU does */

/* NULL and ERR_USAGE, which lists the names, when there is none. */
const struct policy_ops *policy_by_name(const char *name, struct err *e);

/* ---- What policies are made of ---- */

/* How long the pause would be now, by the speed of the last rounds; no verdict yet. */
struct policy_decision policy_predict(const struct policy_params *params,
				      const struct policy_round *rounds, uint32_t nr_rounds,
				      uint64_t pending_pages);

/* Does the predicted pause keep the limit? One that nothing could keep is kept as well as it can.
 */
bool policy_within_limit(const struct policy_params *params, const struct policy_decision *d);

/* The verdict for a pause that would be too long: again, throttle or give up. */
void policy_not_yet(const struct policy_params *params, const struct policy_round *rounds,
		    uint32_t nr_rounds, struct policy_decision *d);
