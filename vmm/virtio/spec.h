/*
 * A virtio device as its user, or the stream, asks for it. Plain data, copied freely.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define VIRTIO_MAX_DEVICES      16 /* see vmm/virtio/mmio.h */
#define VIRTIO_MAX_QUEUES       32
#define VIRTIO_MAX_CONFIG_BYTES 128
#define VIRTIO_TYPE_BYTES       16
#define VIRTIO_SPEC_BYTES       1024

/*
 * What the guest sees of a device and must go on seeing after a migration. It travels in the
 * machine's description; the destination's constructor gets it and makes itself alike or fails,
 * naming what this host lacks.
 */
struct virtio_face {
	uint64_t features; /* offered, transport's included */
	uint32_t nr_queues;
	uint32_t config_bytes;
	uint8_t config[VIRTIO_MAX_CONFIG_BYTES]; /* when it was described: MAC, capacity, ... */
};

/* One device of a machine as its user or the stream asks for it. Plain data. */
struct virtio_spec {
	char type[VIRTIO_TYPE_BYTES]; /* "virtio-blk" */
	char spec[VIRTIO_SPEC_BYTES]; /* the back end: "disk.raw,readonly=on", "tap:tap0", "" */
	bool has_face;
	struct virtio_face face; /* has_face: it arrives from another host and looked like this */
};
