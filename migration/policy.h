/*
 * When to stop copying and switch over: a pure function of parameters and round history.
 *
 * No clocks, no I/O, no state: it can be tested as a table and replayed from a report. Any thread.
 */
#pragma once

#include <stdint.h>

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
struct policy_decision policy_decide(const struct policy_params *params,
				     const struct policy_round *rounds, uint32_t nr_rounds,
				     uint64_t pending_pages);
