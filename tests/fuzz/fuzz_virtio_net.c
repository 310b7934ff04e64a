/*
 * A hostile driver of the network card, or a hostile state of it.
 *
 * The first byte chooses. With bit 7 the rest is a state (VirtioNetState): what is refused must
 * change nothing, what is taken must save to bytes that load again to the same. Otherwise bits 0-6
 * are features, the second byte is the length of frames that come in on the cable, and the rest is
 * what memory holds from WINDOW on, where every ring lies: descriptors, indices, buffers and
 * control commands all come from the input. Every queue is kicked, before and after a pause.
 */
#include <string.h>
#include <unistd.h>

#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>

#include "tests/fuzz/virtio_bench.h"
#include "vmm/net/virtio_net.h"

#define WINDOW       0x10000u
#define WINDOW_BYTES 0x10000u
#define QUEUE_SIZE   16u
#define NR_FRAMES    5
#define BIT(name)    VIRTIO_BIT(VIRTIO_NET_F_##name)
#define STATE_CHOICE 0x80

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const uint64_t choices[] = {
	BIT(MRG_RXBUF),
	BIT(GUEST_CSUM) | BIT(CSUM),
	BIT(GUEST_TSO4) | BIT(HOST_TSO4),
	BIT(CTRL_VQ) | BIT(CTRL_RX) | BIT(CTRL_RX_EXTRA) | BIT(CTRL_MAC_ADDR),
	BIT(CTRL_VLAN) | BIT(CTRL_GUEST_OFFLOADS),
	BIT(STATUS) | BIT(GUEST_ANNOUNCE),
	VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX) | VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC),
};

/* ---- A hostile state ---- */

static bool same(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && !memcmp(a->data, b->data, a->len);
}

static void try_state(const struct bench *b, const uint8_t *data, size_t len)
{
	struct virtio_kind *k = b->kind;
	struct buf before = BUF_INIT;
	struct buf after = BUF_INIT;
	struct err e = ERR_INIT;

	must(!k->ops->save(k, &before, &e));
	if (k->ops->load(k, 1, data, len, &e) < 0) {
		must(!k->ops->save(k, &after, &e) && same(&before, &after));
	} else {
		buf_reset(&before);
		must(!k->ops->save(k, &before, &e));
		must(!k->ops->load(k, 1, before.data, before.len, &e));
		must(!k->ops->save(k, &after, &e) && same(&before, &after));
	}
	buf_fini(&before);
	buf_fini(&after);
}

/* ---- A hostile driver ---- */

static void start(const struct bench *b, uint8_t choice)
{
	uint64_t features = 0;

	for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++)
		if (choice >> i & 1)
			features |= choices[i];
	bench_negotiate(b, features);
	/* Close together, so that a short input reaches all of them. */
	for (uint32_t i = 0; i < b->kind->nr_queues; i++)
		bench_set_up_queue(b, i, QUEUE_SIZE, WINDOW + i * 0x200, 0x140 + 0x1000);
	bench_set_reg(b, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK);
}

static void frames_come(const struct bench *b, uint8_t length)
{
	static const uint8_t frame[65000] = {[12] = 0x52, 0x54, 0, 0, 0, 1};
	ssize_t ignored;

	for (int i = 0; i < NR_FRAMES; i++)
		ignored = write(b->ends.cable, frame, length * 250u + (unsigned)i);
	(void)ignored;
}

static void pause_and_go_on(const struct bench *b)
{
	const struct announce_params once = {.rounds = 1};
	struct err e = ERR_INIT;

	must(!b->d->ops->quiesce(b->d, &e));
	virtio_net_announce(b->kind, &once);
	b->d->ops->unquiesce(b->d);
}

static void drive(const struct bench *b, uint8_t choice, uint8_t length, const uint8_t *data,
		  size_t len)
{
	static uint8_t out[70000];
	struct err e = ERR_INIT;

	must(!guest_mem_write(b->m.mem, WINDOW, data, len < WINDOW_BYTES ? len : WINDOW_BYTES, &e));
	start(b, choice);
	frames_come(b, length);
	bench_kick_all(b);
	pause_and_go_on(b);
	while (read(b->ends.cable, out, sizeof(out)) > 0)
		;
	frames_come(b, length);
	bench_kick_all(b);
	pause_and_go_on(b);
	bench_set_reg(b, VIRTIO_MMIO_STATUS, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct bench b;

	if (len < 2)
		return 0;
	bench_init(&b, BENCH_NET);
	if (data[0] & STATE_CHOICE)
		try_state(&b, data + 1, len - 1);
	else
		drive(&b, data[0], data[1], data + 2, len - 2);
	bench_fini(&b);
	return 0;
}
