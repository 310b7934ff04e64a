/*
 * A hostile driver of the network card, or a hostile state of it.
 *
 * The first byte chooses. With bit 7 the rest is a state (VirtioNetState): what is refused must
 * change nothing, what is taken must save to bytes that load again to the same. Otherwise bits 0-6
 * are features, the second byte is the length of frames that come in on the cable, and the rest is
 * what memory holds from WINDOW on, where every ring lies: descriptors, indices, buffers and
 * control commands all come from the input. Every queue is kicked, before and after a pause.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>

#include "vmm/net/virtio_net.h"
#include "vmm/virtio/mmio.h"

#define MEMORY_BYTES (4ull << 20)
#define WINDOW       0x10000u
#define WINDOW_BYTES 0x10000u
#define QUEUE_SIZE   16u
#define NR_QUEUES    3u
#define NR_FRAMES    5
#define BIT(name)    VIRTIO_BIT(VIRTIO_NET_F_##name)
#define STATE_CHOICE 0x80

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct card {
	struct machine m;
	struct device *d;
	int cable;
	int near;
};

static const uint64_t choices[] = {
	BIT(MRG_RXBUF),
	BIT(GUEST_CSUM) | BIT(CSUM),
	BIT(GUEST_TSO4) | BIT(HOST_TSO4),
	BIT(CTRL_VQ) | BIT(CTRL_RX) | BIT(CTRL_RX_EXTRA) | BIT(CTRL_MAC_ADDR),
	BIT(CTRL_VLAN) | BIT(CTRL_GUEST_OFFLOADS),
	BIT(STATUS) | BIT(GUEST_ANNOUNCE),
	VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX) | VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC),
};

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

static void card_init(struct card *c)
{
	struct virtio_kind *kind;
	struct err e = ERR_INIT;
	char spec[60];
	int ends[2];

	*c = (struct card){.m = {.set_irq = set_irq}};
	must(!bus_new(&c->m.bus, &e) && !guest_mem_new(MEMORY_BYTES, &c->m.mem, &e));
	must(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends));
	c->near = ends[0];
	c->cable = ends[1];
	snprintf(spec, sizeof(spec), "fd:%d,mac=52:54:00:00:00:01", c->near);
	must(!virtio_net_new(spec, 0, NULL, &kind, &e));
	must(!virtio_mmio_new(&c->m, kind, 0, 0, NULL, &c->d, &e));
}

static void card_fini(struct card *c)
{
	c->d->ops->free(c->d);
	close(c->cable);
	close(c->near);
	bus_free(c->m.bus);
	guest_mem_free(c->m.mem);
}

/* ---- A hostile state ---- */

static bool same(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && !memcmp(a->data, b->data, a->len);
}

static void try_state(struct card *c, const uint8_t *data, size_t len)
{
	struct virtio_kind *k = virtio_mmio_kind(c->d);
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

static void set_reg(struct card *c, uint32_t offset, uint32_t value)
{
	bus_write(c->m.bus, BUS_MMIO, virtio_mmio_base(0) + offset, &value, sizeof(value));
}

/* Close together, so that a short input reaches all of them. */
static void set_up_queue(struct card *c, uint32_t i)
{
	uint32_t rings = WINDOW + i * 0x200;

	set_reg(c, VIRTIO_MMIO_QUEUE_SEL, i);
	set_reg(c, VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE);
	set_reg(c, VIRTIO_MMIO_QUEUE_AVAIL_LOW, rings);
	set_reg(c, VIRTIO_MMIO_QUEUE_DESC_LOW, rings + 0x40);
	set_reg(c, VIRTIO_MMIO_QUEUE_USED_LOW, rings + 0x140 + 0x1000);
	set_reg(c, VIRTIO_MMIO_QUEUE_READY, 1);
}

static void start(struct card *c, uint8_t choice)
{
	uint64_t features = VIRTIO_BIT(VIRTIO_F_VERSION_1);

	for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++)
		if (choice >> i & 1)
			features |= choices[i];
	set_reg(c, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	for (uint32_t i = 0; i < 2; i++) {
		set_reg(c, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		set_reg(c, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * i));
	}
	set_reg(c, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FEATURES_OK);
	for (uint32_t i = 0; i < NR_QUEUES; i++)
		set_up_queue(c, i);
	set_reg(c, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK);
}

static void frames_come(const struct card *c, uint8_t length)
{
	static const uint8_t frame[65000] = {[12] = 0x52, 0x54, 0, 0, 0, 1};
	ssize_t ignored;

	for (int i = 0; i < NR_FRAMES; i++)
		ignored = write(c->cable, frame, length * 250u + (unsigned)i);
	(void)ignored;
}

static void kick_all(struct card *c)
{
	for (uint32_t i = 0; i < NR_QUEUES; i++)
		set_reg(c, VIRTIO_MMIO_QUEUE_NOTIFY, i);
}

static void pause_and_go_on(struct card *c)
{
	const struct announce_params once = {.rounds = 1};
	struct err e = ERR_INIT;

	must(!c->d->ops->quiesce(c->d, &e));
	virtio_net_announce(virtio_mmio_kind(c->d), &once);
	c->d->ops->unquiesce(c->d);
}

static void drive(struct card *c, uint8_t choice, uint8_t length, const uint8_t *data, size_t len)
{
	static uint8_t out[70000];
	struct err e = ERR_INIT;

	must(!guest_mem_write(c->m.mem, WINDOW, data, len < WINDOW_BYTES ? len : WINDOW_BYTES, &e));
	start(c, choice);
	frames_come(c, length);
	kick_all(c);
	pause_and_go_on(c);
	while (read(c->cable, out, sizeof(out)) > 0)
		;
	frames_come(c, length);
	kick_all(c);
	pause_and_go_on(c);
	set_reg(c, VIRTIO_MMIO_STATUS, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct card c;

	if (len < 2)
		return 0;
	card_init(&c);
	if (data[0] & STATE_CHOICE)
		try_state(&c, data + 1, len - 1);
	else
		drive(&c, data[0], data[1], data + 2, len - 2);
	card_fini(&c);
	return 0;
}
