/*
 * A virtio device of each kind with a back end of its own, on a machine that has nothing else, and
 * the driver's end of its registers: what the fuzz targets of virtio devices share. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/virtio/kinds.h"
#include "vmm/virtio/mmio.h"

/* In the order of bench_init()'s @which; seeds depend on it. */
enum bench_kind {
	BENCH_RNG,
	BENCH_CONSOLE,
	BENCH_BALLOON,
	BENCH_BLK, /* two queues, an image of 64 KiB */
	BENCH_NET,
	BENCH_NR_KINDS
};

#define BENCH_MEMORY_BYTES (4ull << 20)

struct bench_back_ends {
	int image; /* what the disk is on: zeroes */
	int near;  /* the card's end of its cable, a datagram socket */
	int cable; /* and ours */
};

struct bench {
	struct machine m;
	struct bench_back_ends ends;
	struct device *d;
	struct virtio_kind *kind;
};

void must(bool ok); /* else abort: a finding */

void bench_open_back_ends(struct bench_back_ends *ends);
void bench_close_back_ends(struct bench_back_ends *ends);
/* As a user asks for it. */
struct virtio_spec bench_spec(const struct bench_back_ends *ends, enum bench_kind which);
/* In slot 0 of @m, whose bus and memory it uses. */
struct device *bench_device_new(const struct machine *m, const struct bench_back_ends *ends,
				enum bench_kind which);

void bench_init(struct bench *b, enum bench_kind which);
void bench_fini(struct bench *b);

/* A 32-bit register, VIRTIO_MMIO_... */
void bench_set_reg(const struct bench *b, uint32_t offset, uint32_t value);
/* From a reset to FEATURES_OK, with these features and VERSION_1. */
void bench_negotiate(const struct bench *b, uint64_t features);
/* Queue @index of @size with its available ring at @rings, descriptors 0x40 and used ring @used
 * behind. */
void bench_set_up_queue(const struct bench *b, uint32_t index, uint32_t size, uint32_t rings,
			uint32_t used);
/* Every queue, and return when the device has looked. */
void bench_kick_all(const struct bench *b);
/* As a migration to itself: what was saved loads, and saves to the same bytes. */
void bench_move(const struct bench *b);
