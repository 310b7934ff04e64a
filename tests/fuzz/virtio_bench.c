#include "tests/fuzz/virtio_bench.h"

#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define IMAGE_BYTES 65536

void must(bool ok)
{
	if (!ok)
		abort();
}

/* ---- Back ends ---- */

void bench_open_back_ends(struct bench_back_ends *ends)
{
	int pair[2];

	must(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair));
	ends->near = pair[0];
	ends->cable = pair[1];
	ends->image = memfd_create("image", MFD_CLOEXEC);
	must(ends->image >= 0 && !ftruncate(ends->image, IMAGE_BYTES));
}

void bench_close_back_ends(struct bench_back_ends *ends)
{
	close(ends->image);
	close(ends->cable);
	close(ends->near);
}

struct virtio_spec bench_spec(const struct bench_back_ends *ends, enum bench_kind which)
{
	static const char *const types[BENCH_NR_KINDS] = {
		"virtio-rng", "virtio-console", "virtio-balloon", "virtio-blk", "virtio-net"};
	struct virtio_spec spec = {.spec = ""};

	snprintf(spec.type, sizeof(spec.type), "%s", types[which]);
	if (which == BENCH_BLK)
		snprintf(spec.spec, sizeof(spec.spec), "/proc/self/fd/%d,queues=2,lock=off",
			 ends->image);
	if (which == BENCH_NET)
		snprintf(spec.spec, sizeof(spec.spec), "fd:%d,mac=52:54:00:00:00:01", ends->near);
	return spec;
}

struct device *bench_device_new(const struct machine *m, const struct bench_back_ends *ends,
				enum bench_kind which)
{
	struct virtio_spec spec = bench_spec(ends, which);
	struct virtio_kind *kind;
	struct device *d;
	struct err e = ERR_INIT;

	must(!virtio_kind_new(&spec, 0, &kind, &e));
	must(!virtio_mmio_new(m, kind, 0, 0, NULL, &d, &e));
	return d;
}

/* ---- The machine ---- */

static void set_irq(void *ctx, uint32_t gsi, bool level)
{
	(void)ctx;
	(void)gsi;
	(void)level;
}

void bench_init(struct bench *b, enum bench_kind which)
{
	struct err e = ERR_INIT;

	*b = (struct bench){.m = {.set_irq = set_irq}};
	must(!bus_new(&b->m.bus, &e) && !guest_mem_new(BENCH_MEMORY_BYTES, &b->m.mem, &e));
	bench_open_back_ends(&b->ends);
	b->d = bench_device_new(&b->m, &b->ends, which);
	b->kind = virtio_mmio_kind(b->d);
}

void bench_fini(struct bench *b)
{
	b->d->ops->free(b->d);
	bench_close_back_ends(&b->ends);
	bus_free(b->m.bus);
	guest_mem_free(b->m.mem);
}

/* ---- The driver ---- */

void bench_set_reg(const struct bench *b, uint32_t offset, uint32_t value)
{
	bus_write(b->m.bus, BUS_MMIO, virtio_mmio_base(0) + offset, &value, sizeof(value));
}

void bench_negotiate(const struct bench *b, uint64_t features)
{
	features |= VIRTIO_BIT(VIRTIO_F_VERSION_1);
	bench_set_reg(b, VIRTIO_MMIO_STATUS, 0);
	bench_set_reg(b, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	for (uint32_t half = 0; half < 2; half++) {
		bench_set_reg(b, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
		bench_set_reg(b, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * half));
	}
	bench_set_reg(b, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FEATURES_OK);
}

void bench_set_up_queue(const struct bench *b, uint32_t index, uint32_t size, uint32_t rings,
			uint32_t used)
{
	bench_set_reg(b, VIRTIO_MMIO_QUEUE_SEL, index);
	bench_set_reg(b, VIRTIO_MMIO_QUEUE_NUM, size);
	bench_set_reg(b, VIRTIO_MMIO_QUEUE_AVAIL_LOW, rings);
	bench_set_reg(b, VIRTIO_MMIO_QUEUE_DESC_LOW, rings + 0x40);
	bench_set_reg(b, VIRTIO_MMIO_QUEUE_USED_LOW, rings + used);
	bench_set_reg(b, VIRTIO_MMIO_QUEUE_READY, 1);
}

static int nothing(void *ctx, struct err *e)
{
	(void)ctx;
	(void)e;
	return 0;
}

void bench_kick_all(const struct bench *b)
{
	struct err e = ERR_INIT;

	for (uint32_t i = 0; i < b->kind->nr_queues; i++)
		bench_set_reg(b, VIRTIO_MMIO_QUEUE_NOTIFY, i);
	io_thread_call(virtio_io(b->kind->transport), nothing, NULL, &e);
}

void bench_move(const struct bench *b)
{
	struct device *d = b->d;
	struct buf before = BUF_INIT;
	struct buf after = BUF_INIT;
	struct err e = ERR_INIT;

	must(!d->ops->quiesce(d, &e) && !d->ops->save(d, &before, &e));
	must(!d->ops->load(d, d->ops->state_version, before.data, before.len, &e));
	must(!d->ops->save(d, &after, &e));
	must(before.len == after.len && !memcmp(before.data, after.data, after.len));
	d->ops->unquiesce(d);
	buf_fini(&before);
	buf_fini(&after);
}
