/*
 * The destination's half of copying disks: the thread that owns the disk connection, writes what
 * comes to the copied disks, and answers barriers when it is durable (proto/STREAM.md, section 8).
 *
 * The source is not trusted: nothing outside those disks is written. On a failure the shared
 * cancellation token is requested, so that the engine stops waiting.
 */
#pragma once

#include "migration/disk_set.h"
#include "vmm/base/cancel.h"
#include "vmm/base/fault.h"
#include "vmm/base/link.h"

struct disk_receiver;

struct disk_receiver_config {
	const struct disk_set *set; /* borrowed */
	struct cancel *abort;       /* requested on failure */
	struct fault *fault;
};

/* Takes over @link (past CHANNEL_ACK), also on failure. */
int disk_receiver_new(const struct disk_receiver_config *config, struct link *link,
		      struct disk_receiver **out, struct err *e);
/* Ends the thread, whatever it waits for; that is no failure. Nothing is written from here on. */
void disk_receiver_free(struct disk_receiver *r);

/* The last pass whose barrier has been answered. Any thread. */
uint32_t disk_receiver_pass(struct disk_receiver *r);
uint64_t disk_receiver_received_bytes(struct disk_receiver *r);
/* Why it failed; kind ERR_NONE while it has not. Any thread. */
void disk_receiver_failure(struct disk_receiver *r, struct err *e);
