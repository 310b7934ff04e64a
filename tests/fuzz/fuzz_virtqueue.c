/*
 * A hostile driver of each kind of virtio device. The first byte picks the kind, the second whether
 * EVENT_IDX is negotiated; the rest is what memory holds from WINDOW on, where every ring lies too,
 * so that descriptors, indices, requests and indirect tables all come from the input. Every queue
 * is kicked, a second time after a pause, and the device must survive, save, load what it saved,
 * and come back to work after a reset.
 */
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/kinds.h"
#include "vmm/virtio/mmio.h"

#define MEMORY_BYTES (4ull << 20)
#define WINDOW       0x10000ull
#define WINDOW_BYTES 0x10000ull
#define QUEUE_SIZE   16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* One line a kind. */
static const struct virtio_spec kinds[] = {
	{.type = "virtio-rng"},
	{.type = "virtio-console"},
	{.type = "virtio-balloon"},
};

#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void set_irq(void *ctx, uint32_t gsi, bool level)
{
	(void)ctx;
	(void)gsi;
	(void)level;
}

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void set_reg(const struct machine *m, uint32_t offset, uint32_t value)
{
	bus_write(m->bus, BUS_MMIO, virtio_mmio_base(0) + offset, &value, sizeof(value));
}

static void set_up_queue(const struct machine *m, uint32_t i)
{
	/* Close together, so that a short input reaches all of them. */
	uint32_t rings = (uint32_t)WINDOW + i * 0x400;

	set_reg(m, VIRTIO_MMIO_QUEUE_SEL, i);
	set_reg(m, VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE);
	set_reg(m, VIRTIO_MMIO_QUEUE_AVAIL_LOW, rings);
	set_reg(m, VIRTIO_MMIO_QUEUE_DESC_LOW, rings + 0x40);
	set_reg(m, VIRTIO_MMIO_QUEUE_USED_LOW, rings + 0x200);
	set_reg(m, VIRTIO_MMIO_QUEUE_READY, 1);
}

static void set_up(const struct machine *m, const struct virtio_kind *kind, bool event_idx)
{
	uint64_t features = kind->features | VIRTIO_BIT(VIRTIO_F_VERSION_1) |
			    VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC);

	if (event_idx)
		features |= VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX);
	set_reg(m, VIRTIO_MMIO_STATUS, 0);
	set_reg(m, VIRTIO_MMIO_STATUS, 3);
	for (uint32_t half = 0; half < 2; half++) {
		set_reg(m, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
		set_reg(m, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * half));
	}
	set_reg(m, VIRTIO_MMIO_STATUS, 0xb);
	for (uint32_t i = 0; i < kind->nr_queues; i++)
		set_up_queue(m, i);
}

static int nothing(void *ctx, struct err *e)
{
	(void)ctx;
	(void)e;
	return 0;
}

static void kick_all(const struct machine *m, const struct virtio_kind *kind)
{
	struct err e = ERR_INIT;

	for (uint32_t i = 0; i < kind->nr_queues; i++)
		set_reg(m, VIRTIO_MMIO_QUEUE_NOTIFY, i);
	io_thread_call(virtio_io(kind->transport), nothing, NULL, &e);
}

/* As a migration to itself. */
static void pause_save_load(struct device *d)
{
	struct buf a = BUF_INIT;
	struct buf b = BUF_INIT;
	struct err e = ERR_INIT;

	must(!d->ops->quiesce(d, &e));
	must(!d->ops->save(d, &a, &e));
	must(!d->ops->load(d, d->ops->state_version, a.data, a.len, &e));
	must(!d->ops->save(d, &b, &e));
	must(a.len == b.len && !memcmp(a.data, b.data, a.len));
	d->ops->unquiesce(d);
	buf_fini(&a);
	buf_fini(&b);
}

static void drive(const struct machine *m, struct device *d, const uint8_t *data, size_t len)
{
	struct virtio_kind *kind = virtio_mmio_kind(d);
	uint8_t *window = guest_mem_at_rw(m->mem, WINDOW, WINDOW_BYTES);

	set_up(m, kind, data[0] & 1);
	memcpy(window, data + 1, len - 1 < WINDOW_BYTES ? len - 1 : WINDOW_BYTES);
	set_reg(m, VIRTIO_MMIO_STATUS, 0xf);
	kick_all(m, kind);
	pause_save_load(d);
	kick_all(m, kind);
	memset(window, 0, WINDOW_BYTES);
	set_up(m, kind, true);
	set_reg(m, VIRTIO_MMIO_STATUS, 0xf);
	kick_all(m, kind);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct machine m = {.set_irq = set_irq};
	struct virtio_kind *kind;
	struct device *d;
	struct err e = ERR_INIT;

	if (len < 2)
		return 0;
	must(!bus_new(&m.bus, &e));
	must(!guest_mem_new(MEMORY_BYTES, &m.mem, &e));
	must(!virtio_kind_new(&kinds[data[0] % NR_KINDS], 0, &kind, &e));
	must(!virtio_mmio_new(&m, kind, 0, 0, NULL, &d, &e));
	drive(&m, d, data + 1, len - 1);
	d->ops->free(d);
	bus_free(m.bus);
	guest_mem_free(m.mem);
	return 0;
}
