/*
 * A guest's driver for tests: it finds a virtio-mmio device on a fake machine's bus, sets it up as
 * virtio 1.2, 3.1.1 says, and works its queues in guest memory. Include after cmocka.
 *
 * Memory: queue i's rings lie in 64 KiB at 1 MiB + i * 64 KiB, data wherever the test likes above
 * DRIVER_DATA.
 */
#pragma once

#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "tests/unit/dev/fake_machine.h"
#include "vmm/virtio/mmio.h"

#define DRIVER_RINGS 0x100000ull
#define DRIVER_DATA  0x400000ull
#define DRIVER_SIZE  8u /* descriptors */

#define RING_DESC(i)  (DRIVER_RINGS + (i)*0x10000ull)
#define RING_AVAIL(i) (RING_DESC(i) + 0x4000)
#define RING_USED(i)  (RING_DESC(i) + 0x8000)

struct driver {
	struct fake_machine *f;
	struct device *d;
	uint32_t slot;
	uint16_t avail[VIRTIO_MAX_QUEUES]; /* next index of either ring */
	uint16_t used[VIRTIO_MAX_QUEUES];
};

/* A device that needs no back end, its driver, and a machine of their own. */
struct driver_bench {
	struct fake_machine f;
	struct driver g;
	struct virtio_kind *kind;
};

static inline void driver_plug(struct driver_bench *b, virtio_kind_new_fn make, uint32_t slot)
{
	struct err e = ERR_INIT;

	fake_init(&b->f);
	b->g = (struct driver){.f = &b->f, .slot = slot};
	assert_int_equal(make("", 0, NULL, &b->kind, &e), 0);
	assert_int_equal(virtio_mmio_new(&b->f.m, b->kind, slot, 0, NULL, &b->g.d, &e), 0);
}

static inline void driver_unplug(struct driver_bench *b)
{
	b->g.d->ops->free(b->g.d);
	fake_fini(&b->f);
}

/* The same for cmocka: *state is a struct driver_bench. */
static inline int driver_setup(void **state, virtio_kind_new_fn make, uint32_t slot)
{
	*state = calloc(1, sizeof(struct driver_bench));
	driver_plug(*state, make, slot);
	return 0;
}

static inline int driver_teardown(void **state)
{
	driver_unplug(*state);
	free(*state);
	return 0;
}

static inline uint32_t driver_reg(struct driver *g, uint32_t offset)
{
	uint32_t value = 0;

	bus_read(g->f->m.bus, BUS_MMIO, virtio_mmio_base(g->slot) + offset, &value, 4);
	return value;
}

static inline void driver_set_reg(struct driver *g, uint32_t offset, uint32_t value)
{
	bus_write(g->f->m.bus, BUS_MMIO, virtio_mmio_base(g->slot) + offset, &value, 4);
}

static inline void driver_put(struct driver *g, uint64_t gpa, const void *data, uint64_t len)
{
	struct err e = ERR_INIT;

	assert_int_equal(guest_mem_write(g->f->m.mem, gpa, data, len, &e), 0);
}

static inline const void *driver_at(struct driver *g, uint64_t gpa)
{
	return guest_mem_at(g->f->m.mem, gpa, 1);
}

static inline uint16_t driver_word(struct driver *g, uint64_t gpa)
{
	return __atomic_load_n((const uint16_t *)driver_at(g, gpa), __ATOMIC_ACQUIRE);
}

/* At once and after what was written before, as the device may be reading it. */
static inline void driver_put_word(struct driver *g, uint64_t gpa, uint16_t value)
{
	uint16_t *at = guest_mem_at_rw(g->f->m.mem, gpa, sizeof(value));

	assert_non_null(at);
	__atomic_store_n(at, value, __ATOMIC_RELEASE);
}

static inline uint64_t driver_offered(struct driver *g)
{
	uint64_t low;

	driver_set_reg(g, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	low = driver_reg(g, VIRTIO_MMIO_DEVICE_FEATURES);
	driver_set_reg(g, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	return low | (uint64_t)driver_reg(g, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
}

static inline void driver_negotiate(struct driver *g, uint64_t features)
{
	driver_set_reg(g, VIRTIO_MMIO_STATUS, 0);
	driver_set_reg(g, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	driver_set_reg(g, VIRTIO_MMIO_STATUS, 3);
	for (uint32_t half = 0; half < 2; half++) {
		driver_set_reg(g, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
		driver_set_reg(g, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * half));
	}
	driver_set_reg(g, VIRTIO_MMIO_STATUS, 3 | VIRTIO_CONFIG_S_FEATURES_OK);
}

static inline void driver_set_queue(struct driver *g, uint32_t i, uint32_t size)
{
	static const uint8_t zeroes[0x10000];

	driver_put(g, RING_DESC(i), zeroes, sizeof(zeroes));
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_SEL, i);
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_NUM, size);
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)RING_DESC(i));
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)RING_AVAIL(i));
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)RING_USED(i));
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_READY, 1);
	g->avail[i] = g->used[i] = 0;
}

static inline void driver_ok(struct driver *g)
{
	driver_set_reg(g, VIRTIO_MMIO_STATUS, 0xf);
}

/* All of it: every feature but EVENT_IDX, every queue. */
static inline void driver_start(struct driver *g, uint32_t nr_queues)
{
	driver_negotiate(g, driver_offered(g) & ~VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX));
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_STATUS), 0xb);
	for (uint32_t i = 0; i < nr_queues; i++)
		driver_set_queue(g, i, DRIVER_SIZE);
	driver_ok(g);
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_STATUS), 0xf);
}

static inline void driver_desc(struct driver *g, uint32_t queue, uint16_t i, uint64_t gpa,
			       uint32_t len, uint16_t flags, uint16_t next)
{
	const struct vring_desc d = {.addr = gpa, .len = len, .flags = flags, .next = next};

	driver_put(g, RING_DESC(queue) + i * sizeof(d), &d, sizeof(d));
}

/* Make the chain that begins at @head available, without a kick. */
static inline void driver_offer(struct driver *g, uint32_t queue, uint16_t head)
{
	uint16_t at = g->avail[queue]++;

	driver_put_word(g, RING_AVAIL(queue) + 4 + 2 * (at % DRIVER_SIZE), head);
	driver_put_word(g, RING_AVAIL(queue) + 2, g->avail[queue]);
}

static inline void driver_kick(struct driver *g, uint32_t queue)
{
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

static inline int driver_nothing(void *ctx, struct err *e)
{
	(void)ctx;
	(void)e;
	return 0;
}

/* The device has served everything that was kicked before (vmm/virtio/io_thread.h). */
static inline void driver_sync(struct driver *g)
{
	struct err e = ERR_INIT;

	io_thread_call(virtio_io(virtio_mmio_kind(g->d)->transport), driver_nothing, NULL, &e);
}

static inline bool driver_has_used(struct driver *g, uint32_t queue)
{
	return driver_word(g, RING_USED(queue) + 2) != g->used[queue];
}

/* The next used element, for which it waits (up to 10 s). */
static inline struct vring_used_elem driver_take(struct driver *g, uint32_t queue)
{
	uint64_t end = clock_now_ns() + 60 * NS_PER_S;
	struct vring_used_elem elem;

	while (!driver_has_used(g, queue) && clock_now_ns() < end)
		clock_sleep_until_ns(clock_now_ns() + NS_PER_MS / 10);
	assert_true(driver_has_used(g, queue));
	memcpy(&elem, driver_at(g, RING_USED(queue) + 4 + 8 * (g->used[queue]++ % DRIVER_SIZE)),
	       sizeof(elem));
	return elem;
}

static inline bool driver_broken(struct driver *g)
{
	return driver_reg(g, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static inline bool driver_line(struct driver *g)
{
	return fake_line(g->f, virtio_mmio_gsi(g->slot));
}

/* Read what it was interrupted for, and take the interrupt back. */
static inline uint32_t driver_ack(struct driver *g)
{
	uint32_t isr = driver_reg(g, VIRTIO_MMIO_INTERRUPT_STATUS);

	driver_set_reg(g, VIRTIO_MMIO_INTERRUPT_ACK, isr);
	return isr;
}
