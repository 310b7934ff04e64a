/*
 * virtio-blk (virtio 1.2, 5.2) over a disk (vmm/block/disk.h): what the rest of the VMM needs to
 * know of it.
 */
#pragma once

#include "vmm/virtio/virtio.h"

#define VIRTIO_BLK_TYPE "virtio-blk"

struct disk;

/* @spec as in vmm/block/disk_spec.h. With a face the image is one that a migration brings: opened
 * beside the source, or a copy to be filled in. */
int virtio_blk_new(const char *spec, uint32_t instance, const struct virtio_face *face,
		   struct virtio_kind **out, struct err *e);

/* The disk of @kind; NULL if that is no virtio-blk. Lives as long as the kind. Any thread. */
struct disk *virtio_blk_disk(const struct virtio_kind *kind);
