/*
 * A driver for the network card, as small as a test needs it: it sits where the guest's would, on
 * the device's registers and in guest memory, and the test holds the other end of the cable.
 *
 * Chain @slot of a queue (0 to DRIVER_SLOTS - 1) is its descriptors 4 * slot and on.
 */
#pragma once

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "tests/unit/dev/fake_machine.h"
#include "vmm/net/net_backend.h"
#include "vmm/net/virtio_net.h"
#include "vmm/virtio/mmio.h"

#define DRIVER_RING     256
#define DRIVER_SLOTS    (DRIVER_RING / 4)
#define DRIVER_QUEUES   9
#define DRIVER_QUEUE_AT 0x100000ull /* rings; 64 KiB a queue */
#define DRIVER_BUFFERS  0x800000ull
#define DRIVER_WAIT_NS  (60 * NS_PER_S)

struct driver_queue {
	uint64_t desc, avail, used; /* gpa */
	uint16_t nr_added;
	uint16_t nr_seen;
};

struct driver {
	struct fake_machine f;
	struct device *dev;
	int cable; /* the far end */
	int near;
	struct driver_queue queues[DRIVER_QUEUES];
};

struct piece {
	uint64_t gpa;
	uint32_t len;
	bool writable;
};

/* ---- Registers ---- */

static inline uint32_t reg_get(struct driver *d, uint32_t offset)
{
	uint32_t value = 0;

	bus_read(d->f.m.bus, BUS_MMIO, virtio_mmio_base(0) + offset, &value, sizeof(value));
	return value;
}

static inline void reg_set(struct driver *d, uint32_t offset, uint32_t value)
{
	bus_write(d->f.m.bus, BUS_MMIO, virtio_mmio_base(0) + offset, &value, sizeof(value));
}

static inline void reg_set_gpa(struct driver *d, uint32_t offset, uint64_t gpa)
{
	reg_set(d, offset, (uint32_t)gpa);
	reg_set(d, offset + 4, (uint32_t)(gpa >> 32));
}

static inline struct virtio_net_config driver_config(struct driver *d)
{
	struct virtio_net_config c = {.status = 0};

	for (uint32_t i = 0; i < 12; i++)
		bus_read(d->f.m.bus, BUS_MMIO, virtio_mmio_base(0) + VIRTIO_MMIO_CONFIG + i,
			 (uint8_t *)&c + i, 1);
	return c;
}

/* ---- Making one ---- */

static inline struct device *driver_card(struct driver *d, const char *spec,
					 const struct virtio_face *face, struct err *e)
{
	struct virtio_kind *kind;
	struct device *dev = NULL;

	if (virtio_net_new(spec, 0, face, &kind, e) < 0 ||
	    virtio_mmio_new(&d->f.m, kind, 0, 0, face, &dev, e) < 0)
		return NULL;
	return dev;
}

static inline void driver_init(struct driver *d, const char *options,
			       const struct virtio_face *face)
{
	struct err e = ERR_INIT;
	char spec[80];
	int ends[2];

	*d = (struct driver){.cable = -1};
	fake_init(&d->f);
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends), 0);
	d->near = ends[0];
	d->cable = ends[1];
	snprintf(spec, sizeof(spec), "fd:%d%s", d->near, options);
	d->dev = driver_card(d, spec, face, &e);
	if (!d->dev)
		fail_msg("%s", e.msg);
}

static inline void driver_fini(struct driver *d)
{
	d->dev->ops->free(d->dev);
	close(d->cable);
	close(d->near);
	fake_fini(&d->f);
}

static inline void *driver_at(struct driver *d, uint64_t gpa, uint64_t len)
{
	void *at = guest_mem_at_rw(d->f.m.mem, gpa, len);

	assert_non_null(at);
	return at;
}

static inline void driver_enable_queue(struct driver *d, uint32_t index)
{
	struct driver_queue *q = &d->queues[index];

	*q = (struct driver_queue){.desc = DRIVER_QUEUE_AT + index * 0x10000ull};
	q->avail = q->desc + 0x4000;
	q->used = q->desc + 0x8000;
	memset(driver_at(d, q->desc, 0x10000), 0, 0x10000);
	reg_set(d, VIRTIO_MMIO_QUEUE_SEL, index);
	reg_set(d, VIRTIO_MMIO_QUEUE_NUM, DRIVER_RING);
	reg_set_gpa(d, VIRTIO_MMIO_QUEUE_DESC_LOW, q->desc);
	reg_set_gpa(d, VIRTIO_MMIO_QUEUE_AVAIL_LOW, q->avail);
	reg_set_gpa(d, VIRTIO_MMIO_QUEUE_USED_LOW, q->used);
	reg_set(d, VIRTIO_MMIO_QUEUE_READY, 1);
}

/* Negotiate @features (of those of the card; VERSION_1 comes with them) and enable the queues. */
static inline void driver_start(struct driver *d, uint64_t features, uint32_t nr_queues)
{
	features |= VIRTIO_BIT(VIRTIO_F_VERSION_1);
	reg_set(d, VIRTIO_MMIO_STATUS, 0);
	reg_set(d, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	for (uint32_t i = 0; i < 2; i++) {
		reg_set(d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		reg_set(d, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * i));
	}
	reg_set(d, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FEATURES_OK);
	assert_true(reg_get(d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK);
	for (uint32_t i = 0; i < nr_queues; i++)
		driver_enable_queue(d, i);
	reg_set(d, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK);
}

/* ---- Queues ---- */

static inline struct vring_avail *driver_avail(struct driver *d, uint32_t index)
{
	return driver_at(d, d->queues[index].avail, 4096);
}

static inline struct vring_used *driver_used(struct driver *d, uint32_t index)
{
	return driver_at(d, d->queues[index].used, 4096);
}

static inline void driver_add(struct driver *d, uint32_t index, uint16_t slot,
			      const struct piece *pieces, uint16_t nr)
{
	struct driver_queue *q = &d->queues[index];
	struct vring_desc *desc = driver_at(d, q->desc, DRIVER_RING * sizeof(*desc));
	struct vring_avail *avail = driver_avail(d, index);
	uint16_t head = (uint16_t)(4 * slot);

	for (uint16_t i = 0; i < nr; i++)
		desc[head + i] = (struct vring_desc){
			.addr = pieces[i].gpa,
			.len = pieces[i].len,
			.flags = (uint16_t)((pieces[i].writable ? VRING_DESC_F_WRITE : 0) |
					    (i + 1 < nr ? VRING_DESC_F_NEXT : 0)),
			.next = (uint16_t)(head + i + 1)};
	avail->ring[q->nr_added % DRIVER_RING] = head;
	__atomic_store_n(&avail->idx, ++q->nr_added, __ATOMIC_SEQ_CST);
}

static inline void driver_kick(struct driver *d, uint32_t index)
{
	reg_set(d, VIRTIO_MMIO_QUEUE_NOTIFY, index);
}

static inline uint16_t driver_nr_used(struct driver *d, uint32_t index)
{
	return __atomic_load_n(&driver_used(d, index)->idx, __ATOMIC_ACQUIRE);
}

/* The next used chain: its slot, and the length in *@len. Fails the test if none comes. */
static inline uint16_t driver_wait_used(struct driver *d, uint32_t index, uint32_t *len)
{
	struct driver_queue *q = &d->queues[index];
	uint64_t end = clock_now_ns() + DRIVER_WAIT_NS;
	const struct vring_used_elem *u;

	while (driver_nr_used(d, index) == q->nr_seen) {
		if (clock_now_ns() > end)
			fail_msg("queue %u: nothing used in 60 s", index);
		clock_sleep_until_ns(clock_now_ns() + 100 * NS_PER_US);
	}
	u = &driver_used(d, index)->ring[q->nr_seen++ % DRIVER_RING];
	if (len)
		*len = u->len;
	return (uint16_t)(u->id / 4);
}

/* Slots @from to @to - 1 of receive queue @index: one buffer of @len bytes each. */
static inline uint64_t driver_buffer(uint32_t index, uint16_t slot)
{
	return DRIVER_BUFFERS + (index * DRIVER_SLOTS + slot) * 0x11000ull;
}

static inline void driver_give(struct driver *d, uint32_t index, uint16_t from, uint16_t to,
			       uint32_t len)
{
	for (uint16_t slot = from; slot < to; slot++) {
		struct piece p = {driver_buffer(index, slot), len, true};

		driver_add(d, index, slot, &p, 1);
	}
	driver_kick(d, index);
}

/* One control command; the acknowledgement. */
static inline uint8_t driver_control(struct driver *d, uint32_t index, uint8_t class, uint8_t cmd,
				     const void *data, uint32_t len)
{
	uint64_t at = driver_buffer(index, 0);
	uint8_t *bytes = driver_at(d, at, 8192);
	struct piece pieces[] = {{at, 2 + len, false}, {at + 4096, 1, true}};

	bytes[0] = class;
	bytes[1] = cmd;
	if (len)
		memcpy(bytes + 2, data, len);
	bytes[4096] = 0xee;
	driver_add(d, index, 0, pieces, 2);
	driver_kick(d, index);
	driver_wait_used(d, index, NULL);
	return bytes[4096];
}

/* Nothing is under way on the I/O thread when this returns. */
static inline void driver_settle(struct driver *d)
{
	struct err e = ERR_INIT;

	assert_int_equal(d->dev->ops->quiesce(d->dev, &e), 0);
	d->dev->ops->unquiesce(d->dev);
}

/* ---- The far end ---- */

/* @len bytes of frame whose contents follow from @seed, behind an empty header. */
static inline void frame_make(uint8_t *bytes, size_t len, uint8_t seed)
{
	memset(bytes, 0, NET_HDR_BYTES);
	for (size_t i = 0; i < len; i++)
		bytes[NET_HDR_BYTES + i] = (uint8_t)(seed + i * 7);
	bytes[NET_HDR_BYTES] &= 0xfe; /* to one station */
}

static inline void cable_send(struct driver *d, size_t len, uint8_t seed)
{
	static uint8_t bytes[NET_MAX_BYTES];

	frame_make(bytes, len, seed);
	assert_int_equal(write(d->cable, bytes, NET_HDR_BYTES + len), NET_HDR_BYTES + len);
}

/* The next frame that comes out, with its header; fails the test if none does. */
static inline size_t cable_receive(struct driver *d, uint8_t *bytes, size_t cap)
{
	uint64_t end = clock_now_ns() + DRIVER_WAIT_NS;
	ssize_t n;

	while ((n = read(d->cable, bytes, cap)) < 0) {
		if (clock_now_ns() > end)
			fail_msg("no frame came out in 60 s");
		clock_sleep_until_ns(clock_now_ns() + 100 * NS_PER_US);
	}
	return (size_t)n;
}
