/*
 * The source engine's own state, shared by source.c (thread, walking the steps, public API),
 * source_setup.c (negotiate, describe, track), source_precopy.c (rounds) and source_switch.c (pause
 * to commit) and source_disks.c. Private to those files.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "dirty-tracking/dirty.h"
#include "migration/blackout.h"
#include "migration/disk_sender.h"
#include "migration/migration.h"
#include "migration/policy.h"
#include "migration/rate.h"
#include "migration/round.h"
#include "migration/sender.h"
#include "migration/throttle.h"
#include "migration/turn.h"
#include "proto/record.h"
#include "vmm/base/cancel.h"

struct migration_source {
	/* immutable after start */
	struct vm *vm;
	struct uri uri;
	struct migration_params params;
	struct migration_events events;
	struct fault *fault;
	pthread_t thread;

	/* Requested by the user or by a failing sender; wakes every wait of this migration. */
	struct cancel *cancel;
	atomic_bool cancelled_by_user;

	/* owned by the engine's thread */
	struct link *control;
	struct record_stream records;
	uint8_t id[16];
	uint64_t rtt_ns;
	uint64_t pin_bytes; /* for RDMA, all channels together, as both sides allow; 0: no RDMA */
	struct dirty_tracker *tracker;
	bool tracking;
	struct rate_limit *limit;
	struct throttle *throttle; /* NULL: the guest runs freely */
	uint64_t throttled_at_ns;
	struct round round;
	struct turn turn; /* when the last round of pre-copy began */
	const struct policy_ops *policy;
	struct policy_round history[REPORT_MAX_ROUNDS];
	uint32_t nr_history;
	struct disk_set disks;
	uint64_t disk_pending_bytes; /* of copied disks, for the next pass */
	uint64_t disk_settle_ns;     /* what the last pass cost beside its bytes */
	struct blackout_mark began;  /* what the guest had recorded when we began */
	struct buf state;
	bool was_running; /* when we paused it */
	bool paused;
	/* Invariant: true from before the first byte of COMMIT reaches the kernel. Once true,
	 * nothing in this process resumes the guest by itself. */
	bool committed;
	uint64_t paused_at_ns;
	struct err failure; /* why we are undoing; kind NONE after success */

	pthread_mutex_t lock; /* guards the rest */
	struct migration_report report;
	uint32_t nr_senders;
	struct sender *senders[MIGRATION_MAX_CHANNELS];
	struct disk_sender *disk_sender; /* NULL: no disks */
	uint64_t round_started_ns;
};

void source_set_status(struct migration_source *s, enum migration_status status);

/* The steps; each is what its name says (migration/source.c has the table). */
int source_negotiate(struct migration_source *s, struct err *e);
void source_undo_negotiate(struct migration_source *s);
int source_describe(struct migration_source *s, struct err *e);
void source_undo_describe(struct migration_source *s);
int source_track(struct migration_source *s, struct err *e);
void source_undo_track(struct migration_source *s);
int source_disks(struct migration_source *s, struct err *e);
int source_precopy(struct migration_source *s, struct err *e);
/* The guest runs as fast as it can again; does nothing when it does already. */
void source_lift_throttle(struct migration_source *s);
int source_pause(struct migration_source *s, struct err *e);
void source_undo_pause(struct migration_source *s);
int source_capture(struct migration_source *s, struct err *e);
void source_undo_capture(struct migration_source *s);
int source_final_ram(struct migration_source *s, struct err *e);
int source_offer_disks(struct migration_source *s, struct err *e);
void source_undo_offer_disks(struct migration_source *s);
int source_state(struct migration_source *s, struct err *e);
int source_verify(struct migration_source *s, struct err *e);
int source_ready(struct migration_source *s, struct err *e);
int source_commit(struct migration_source *s, struct err *e);

/* A connection of this migration that has introduced itself as channel @index. */
int source_connect_channel(struct migration_source *s, uint32_t index, bool disks,
			   struct link **out, struct err *e);

/* source_disks.c; each does nothing for a guest without disks. look_at, open and close belong to
 * describe; between them collect, begin and finish (migration/disk_sender.h), beside memory's
 * rounds. */
int source_look_at_disks(struct migration_source *s, struct err *e);
int source_open_disks(struct migration_source *s, struct err *e);
void source_close_disks(struct migration_source *s);
uint64_t source_collect_disks(struct migration_source *s);
void source_begin_disk_pass(struct migration_source *s, bool last);
int source_finish_disk_pass(struct migration_source *s, uint64_t *sent_bytes, struct err *e);
/* The guest runs elsewhere. */
void source_release_disks(struct migration_source *s);

/* Send the round that has been prepared, on every channel, to the barrier; fills in its report. */
int source_send_round(struct migration_source *s, bool last, uint64_t skipped_pages, struct err *e);
