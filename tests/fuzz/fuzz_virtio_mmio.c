/*
 * A hostile driver at the registers of each kind of virtio device. The first byte picks the kind,
 * the second whether the driver begins where negotiation and two empty queues are behind it. The
 * rest is what it does, a struct step after the other: registers and configuration space are
 * written and read at any offset and width, words of memory change under the rings, and in between
 * the device is paused, saved and loaded. It must survive, and work after a reset.
 */
#include <linux/virtio_mmio.h>
#include <string.h>

#include "tests/fuzz/virtio_bench.h"

#define MAX_STEPS 256
#define RINGS     0x10000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct step {
	uint8_t what;
	uint8_t where; /* in words */
	uint32_t value;
} __attribute__((packed));

static void access(const struct bench *b, const struct step *s, bool write)
{
	uint64_t bytes[1] = {s->value};
	uint32_t len = 1u << (s->value & 3);
	uint64_t at = virtio_mmio_base(0) + s->where * 4u + (s->value >> 2 & 3);

	if (write)
		bus_write(b->m.bus, BUS_MMIO, at, bytes, len);
	else
		bus_read(b->m.bus, BUS_MMIO, at, bytes, len);
}

static void change_memory(const struct bench *b, const struct step *s)
{
	uint32_t value = s->value;
	struct err e = ERR_INIT;

	must(!guest_mem_write(b->m.mem, RINGS + s->where * 4u, &value, sizeof(value), &e));
}

static void take(const struct bench *b, const struct step *s)
{
	switch (s->what % 8) {
	case 0:
		access(b, s, false);
		break;
	case 1:
		access(b, s, true);
		break;
	case 2:
		change_memory(b, s);
		break;
	case 3:
		bench_move(b);
		break;
	case 4:
		bench_kick_all(b);
		break;
	default:
		bench_set_reg(b, s->where * 4u, s->value);
	}
}

static void begin(const struct bench *b)
{
	bench_negotiate(b, b->kind->features);
	for (uint32_t i = 0; i < 2 && i < b->kind->nr_queues; i++)
		bench_set_up_queue(b, i, 4, RINGS + i * 0x200, 0x100);
	bench_set_reg(b, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct bench b;
	struct step s;

	if (len < 2)
		return 0;
	bench_init(&b, data[0] % BENCH_NR_KINDS);
	if (data[1] & 1)
		begin(&b);
	for (size_t i = 0; i < MAX_STEPS && 2 + (i + 1) * sizeof(s) <= len; i++) {
		memcpy(&s, data + 2 + i * sizeof(s), sizeof(s));
		take(&b, &s);
	}
	begin(&b);
	bench_kick_all(&b);
	bench_fini(&b);
	return 0;
}
