/*
 * What a migration did and what it cost, as plain numbers: filled in by the engines, printed by
 * control/ (QMP, --json, text). Times are CLOCK_MONOTONIC nanoseconds of the side that reports.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"

enum migration_status {
	MIGRATION_NONE,
	MIGRATION_SETUP,     /* negotiate, describe, track */
	MIGRATION_ACTIVE,    /* pre-copy rounds */
	MIGRATION_DEVICE,    /* guest paused: final memory, state, ready, commit */
	MIGRATION_COMPLETED, /* the guest runs at the destination */
	MIGRATION_FAILED,    /* the guest runs (or is paused as before) at the source */
	MIGRATION_CANCELLED, /* the same, because somebody asked */
	MIGRATION_UNKNOWN,   /* COMMIT was sent and no answer came: source paused, ask the peer */
};

/* QEMU's MigrationStatus names: "none", "setup", "active", "device", "completed", "failed",
 * "cancelled"; UNKNOWN is "failed" to QMP with an error-desc that says so. */
const char *migration_status_name(enum migration_status status);

/* The steps of the source, in order; each is timed. */
enum migration_phase {
	PHASE_NEGOTIATE,
	PHASE_DESCRIBE,
	PHASE_TRACK,
	PHASE_DISKS, /* the bulk of copied disks */
	PHASE_PRECOPY,
	PHASE_PAUSE,
	PHASE_CAPTURE,
	PHASE_FINAL_RAM,
	PHASE_OFFER, /* shared disks are let go */
	PHASE_STATE,
	PHASE_VERIFY, /* only with --verify */
	PHASE_READY,
	PHASE_COMMIT,
	NR_PHASES,
};
const char *migration_phase_name(enum migration_phase phase);

struct round_report {
	uint32_t number; /* 1 is the first; the last is the final one, with the guest paused */
	uint64_t duration_ns;
	uint64_t dirty_pages;           /* pages this round had to look at */
	uint64_t skipped_pages;         /* never touched: nothing sent (round 1) */
	uint64_t zero_pages;            /* sent as runs, no payload */
	uint64_t raw_pages;             /* sent as they are */
	uint64_t compressed_pages;      /* sent through a codec */
	uint64_t wire_bytes;            /* everything written to the channels */
	uint64_t dirty_pages_per_s;     /* rate at which the guest dirtied during this round */
	uint64_t predicted_downtime_ns; /* what the policy predicted after this round */
};

#define REPORT_MAX_ROUNDS 128 /* later ones are summed into the last entry */

/* What the guest itself felt, read from its report page (vmm/guest_report.h). */
struct guest_blackout {
	bool present;
	bool below;              /* than gap_ns, from which on the guest notes gaps */
	uint64_t gap_ns;         /* the gap that contains the switch-over */
	uint64_t precopy_max_ns; /* the largest other gap since the migration began */
};

/* What became of the guest's disks. */
struct disk_report {
	uint32_t nr;
	uint32_t nr_copied;  /* the rest is shared */
	uint64_t bytes;      /* size of the copied ones, holes included */
	uint32_t nr_passes;  /* over them; several may belong to one phase */
	uint64_t data_bytes; /* sent as they are */
	uint64_t zero_bytes; /* sent as holes */
	uint64_t wire_bytes;
};

struct migration_report {
	enum migration_status status;
	bool ended;       /* nothing in here changes any more; `blackout` may come after `status` */
	struct err error; /* FAILED, CANCELLED, UNKNOWN: why */
	char uri[400];
	char tracker[16];
	char codec[16];
	char policy[16]; /* the source's; "" at the destination */
	uint32_t nr_channels;
	uint32_t nr_fallbacks; /* of them, that go by TCP since RDMA did not work */
	bool verified;         /* digests of RAM and state compared equal */

	uint64_t started_ns;
	uint64_t total_ns; /* up to now, or to the end */
	uint64_t setup_ns;
	uint64_t phase_ns[NR_PHASES];
	enum migration_phase phase; /* the present or last one */

	uint64_t ram_bytes;       /* size of guest RAM */
	struct disk_report disks; /* at the destination, only what was described */
	uint64_t remaining_bytes; /* of the present round, or pass over the disks */
	uint64_t wire_bytes;
	/* Pages of the present round so far; 0 between rounds, and at the destination. */
	uint64_t round_zero_pages;
	uint64_t round_data_pages;
	uint64_t bytes_per_s; /* present throughput */
	uint64_t dirty_pages_per_s;
	uint64_t downtime_limit_ns;
	uint64_t predicted_downtime_ns; /* the last prediction before pausing */
	uint32_t throttle_percent;      /* what the vCPUs rest at present; 0: nothing */
	uint32_t throttle_max_percent;  /* the most they ever did */
	uint64_t throttled_ns;          /* how long they were held back at all */
	uint64_t downtime_ns;           /* claimed: from pause to the destination's RUNNING */
	struct guest_blackout blackout;

	uint32_t nr_rounds;
	struct round_report rounds[REPORT_MAX_ROUNDS];
};
