/*
 * A hostile driver of each kind of virtio device. The first byte picks the kind, the second whether
 * EVENT_IDX is negotiated; the rest is what memory holds from WINDOW on, where every ring lies too,
 * so that descriptors, indices, requests and indirect tables all come from the input. Every queue
 * is kicked, a second time after a pause, and the device must survive, save, load what it saved,
 * and come back to work after a reset.
 */
#include <linux/virtio_mmio.h>
#include <string.h>

#include "tests/fuzz/virtio_bench.h"

#define WINDOW       0x10000u
#define WINDOW_BYTES 0x10000u
#define QUEUE_SIZE   16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void set_up(const struct bench *b, bool event_idx)
{
	uint64_t features = b->kind->features | VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC);

	if (event_idx)
		features |= VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX);
	bench_negotiate(b, features);
	/* Close together, so that a short input reaches all of them. */
	for (uint32_t i = 0; i < b->kind->nr_queues; i++)
		bench_set_up_queue(b, i, QUEUE_SIZE, WINDOW + i * 0x400, 0x200);
}

static void drive(const struct bench *b, bool event_idx, const uint8_t *data, size_t len)
{
	uint8_t *window = guest_mem_at_rw(b->m.mem, WINDOW, WINDOW_BYTES);

	set_up(b, event_idx);
	memcpy(window, data, len < WINDOW_BYTES ? len : WINDOW_BYTES);
	bench_set_reg(b, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK);
	bench_kick_all(b);
	bench_move(b);
	bench_kick_all(b);
	/* Not before what is in flight has ended: the window is the device's. */
	bench_set_reg(b, VIRTIO_MMIO_STATUS, 0);
	memset(window, 0, WINDOW_BYTES);
	set_up(b, true);
	bench_set_reg(b, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK);
	bench_kick_all(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct bench b;

	if (len < 2)
		return 0;
	bench_init(&b, data[0] % BENCH_NR_KINDS);
	drive(&b, data[1] & 1, data + 2, len - 2);
	bench_fini(&b);
	return 0;
}
