/*
 * The memory balloon (virtio 1.2, 5.5), from the outside: what QMP's balloon and query-balloon do.
 * Any thread.
 */
#pragma once

#include <stdint.h>

#include "vmm/virtio/virtio.h"

#define BALLOON_NR_STATS 10 /* VIRTIO_BALLOON_S_... of linux/virtio_balloon.h */

/* What the guest said about its memory last; UINT64_MAX: nothing. Bytes or counts, as there. */
struct balloon_stats {
	uint64_t value[BALLOON_NR_STATS];
};

/* The name QEMU gives to statistic @i, as in "stat-free-memory". */
const char *balloon_stat_name(uint32_t i);

/* The guest is to give up @pages of 4 KiB (in all), as far as it can. */
void virtio_balloon_set_target(struct virtio_kind *k, uint32_t pages);
/* How many it has given up. */
uint32_t virtio_balloon_actual(const struct virtio_kind *k);
/* What it said last; asks it to say it again, for the next time. */
void virtio_balloon_stats(struct virtio_kind *k, struct balloon_stats *out);
