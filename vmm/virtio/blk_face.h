/*
 * What a guest sees of a virtio-blk: features and configuration space (virtio 1.2, 5.2.3 and
 * 5.2.4), made from a disk or taken over from where the guest comes from. Pure; private to
 * virtio-blk.
 */
#pragma once

#include <linux/virtio_blk.h>

#include "vmm/block/disk.h"
#include "vmm/block/disk_spec.h"
#include "vmm/virtio/virtio.h"

#define BLK_CONFIG_BYTES offsetof(struct virtio_blk_config, max_secure_erase_sectors)

#define BLK_MAX_DISCARD_SECTORS (1u << 21) /* 1 GiB */
/* 64 MiB: storage that cannot zero a range has them written out, while other requests wait. */
#define BLK_MAX_ZERO_SECTORS (1u << 17)

void blk_face_make(const struct disk *d, uint32_t nr_queues, struct virtio_kind *kind,
		   struct virtio_blk_config *config);

/* How large it says the disk is; unchecked, for messages. */
uint64_t blk_face_bytes(const struct virtio_face *face);

/* What disk is needed behind @face: its size, its way of coming here, read-only or not. ERR_STREAM
 * if that is no face of a disk, ERR_USAGE if @spec asks for another. */
int blk_face_disk(const struct virtio_face *face, const struct disk_spec *spec,
		  struct disk_config *out, struct err *e);

/* Look like @face, which blk_face_disk() has passed: what depends on the host below (its block
 * size), and what the guest was started with (its number of queues). */
void blk_face_adopt(const struct virtio_face *face, struct virtio_kind *kind,
		    struct virtio_blk_config *config);
