/*
 * The destination engine's own state, shared by destination.c (thread, steps in order, public API)
 * and destination_steps.c (what each step does) and destination_disks.c. Private to those files.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "migration/blackout.h"
#include "migration/disk_receiver.h"
#include "migration/migration.h"
#include "migration/rdma/conn.h"
#include "migration/receiver.h"
#include "proto/record.h"
#include "proto/stream.pb-c.h"
#include "vmm/base/cancel.h"

struct migration_destination {
	/* immutable after start */
	struct link_listener *listener;
	struct migration_destination_config config;
	struct rdma_listener *rdma; /* NULL: no RDMA here */
	uint64_t pin_bytes;         /* for RDMA, all channels together */
	pthread_t thread;

	/* Requested by the user or by a failing receiver; wakes every wait of this migration. */
	struct cancel *cancel;
	atomic_bool cancelled_by_user;

	/* owned by the engine's thread */
	struct link *control;
	struct record_stream records;
	struct record record; /* the last one received */
	uint8_t id[16];
	uint32_t nr_channels;
	bool verify;
	uint32_t last_round;
	bool last_round_seen;
	uint32_t last_disk_pass; /* that of the last round; 0: none */
	struct disk_set disks;
	struct bitmap written;
	struct vm *vm;
	struct boot_image *image; /* while it arrives; then it is the machine's */
	struct blackout_mark mark;
	/* Invariant: the guest runs here only after this is true, and it becomes true only by a
	 * complete COMMIT record. */
	bool committed;
	bool run; /* the guest was running at the source */
	struct err failure;

	pthread_mutex_t lock; /* guards the rest */
	struct migration_report report;
	uint32_t nr_receivers;
	struct receiver *receivers[MIGRATION_MAX_CHANNELS];
	struct disk_receiver *disk_receiver; /* NULL: nothing is copied, or not yet */
};

/* Listen for RDMA beside the listener's TCP, if its address asks for that: destination_rdma.c. */
int destination_listen_rdma(struct migration_destination *d, struct err *e);
/* Wait until a source connects by TCP, seeing to the RDMA listener meanwhile. */
int destination_await_source(struct migration_destination *d, struct err *e);
/* Wait for channel @index's RDMA connection; @out is NULL when the source has decided against it.
 */
int destination_accept_rdma(struct migration_destination *d, struct link *link, uint32_t index,
			    struct placement **out, struct err *e);

int destination_accept(struct migration_destination *d, struct err *e);
int destination_negotiate(struct migration_destination *d, struct err *e);
int destination_describe(struct migration_destination *d, struct err *e);
int destination_image(struct migration_destination *d, struct err *e);
int destination_channels(struct migration_destination *d, struct err *e);
int destination_receive(struct migration_destination *d, struct err *e);
int destination_load(struct migration_destination *d, struct err *e);
int destination_verify(struct migration_destination *d, struct err *e);
int destination_ready(struct migration_destination *d, struct err *e);
int destination_run(struct migration_destination *d, struct err *e);

/* destination_disks.c. What DESCRIBE says of the disks: before the machine is built, and whether
 * the machine is like that. */
int destination_expect_disks(const Godwit__Describe *m, struct vm_config *config, struct err *e);
int destination_check_disks(struct migration_destination *d, const Godwit__Describe *m,
			    struct err *e);
/* Is the disks' channel still to come? It is taken over by start, also on failure. */
bool destination_wants_disks(const struct migration_destination *d);
int destination_start_disks(struct migration_destination *d, struct link *link, struct err *e);
void destination_stop_disks(struct migration_destination *d);
/* Everything of them is here, and nobody but us may use them as soon as COMMIT comes. */
int destination_accept_disks(struct migration_destination *d, struct err *e);
/* After COMMIT: keep strangers out by ourselves; wait for the source to let go for up to @wait_ns.
 * Never fails: disk_settle(). */
void destination_settle_disks(struct migration_destination *d, uint64_t wait_ns);

/* Tell the source what the guest felt, a moment after it runs again. Never fails. */
void destination_report_blackout(struct migration_destination *d);
