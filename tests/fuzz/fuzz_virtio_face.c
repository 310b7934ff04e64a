/*
 * What a hostile source says its guest has seen of a virtio device. The first byte picks the kind;
 * features, the number of queues and the configuration space follow. The device is refused with
 * words, or it is what was asked for: it offers those features, has those queues, and moves.
 */
#include <stdio.h>
#include <string.h>

#include "tests/fuzz/virtio_bench.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void set_irq(void *ctx, uint32_t gsi, bool level)
{
	(void)ctx;
	(void)gsi;
	(void)level;
}

static void read_face(const uint8_t *data, size_t len, struct virtio_face *face)
{
	const size_t fixed = sizeof(face->features) + 1;

	*face = (struct virtio_face){.nr_queues = data[sizeof(face->features)]};
	memcpy(&face->features, data, sizeof(face->features));
	face->config_bytes = (uint32_t)(len - fixed);
	if (face->config_bytes > sizeof(face->config))
		face->config_bytes = sizeof(face->config);
	memcpy(face->config, data + fixed, face->config_bytes);
}

static void check_like(struct device *d, const struct virtio_face *asked)
{
	struct virtio_face is;

	virtio_mmio_face(d, &is);
	must(is.features == asked->features && is.nr_queues == asked->nr_queues &&
	     is.config_bytes == asked->config_bytes);
}

static void try_face(const struct bench *b, const struct virtio_spec *spec)
{
	struct bench arrived = *b;
	struct err e = ERR_INIT;

	if (virtio_kind_new(spec, 0, &arrived.kind, &e) < 0 ||
	    virtio_mmio_new(&b->m, arrived.kind, 0, 0, &spec->face, &arrived.d, &e) < 0) {
		must(e.msg[0]);
		return;
	}
	check_like(arrived.d, &spec->face);
	bench_negotiate(&arrived, spec->face.features);
	bench_move(&arrived);
	arrived.d->ops->free(arrived.d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct bench b = {.m = {.set_irq = set_irq}};
	struct virtio_spec spec;
	struct err e = ERR_INIT;

	if (len < 10)
		return 0;
	bench_open_back_ends(&b.ends);
	must(!bus_new(&b.m.bus, &e) && !guest_mem_new(BENCH_MEMORY_BYTES, &b.m.mem, &e));
	spec = bench_spec(&b.ends, data[0] % BENCH_NR_KINDS);
	spec.has_face = true;
	/* The number of queues is the guest's, and no user says it again. */
	if (data[0] % BENCH_NR_KINDS == BENCH_BLK)
		snprintf(spec.spec, sizeof(spec.spec), "/proc/self/fd/%d,lock=off", b.ends.image);
	read_face(data + 1, len - 1, &spec.face);
	try_face(&b, &spec);
	bus_free(b.m.bus);
	guest_mem_free(b.m.mem);
	bench_close_back_ends(&b.ends);
	return 0;
}
