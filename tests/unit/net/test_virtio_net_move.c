/* The card moves: what is under way goes along, the driver notices nothing, and the network is
 * told. */
#include <net/ethernet.h>

#include "tests/unit/net/net_driver.h"

#define BIT(name) VIRTIO_BIT(VIRTIO_NET_F_##name)
#define FEATURES                                                                 \
	(BIT(MRG_RXBUF) | BIT(STATUS) | BIT(MAC) | BIT(CTRL_VQ) | BIT(CTRL_RX) | \
	 BIT(CTRL_MAC_ADDR) | BIT(GUEST_ANNOUNCE) | BIT(GUEST_CSUM) | BIT(GUEST_TSO4))

static uint8_t bytes[NET_MAX_BYTES];

static void begin(struct driver *d)
{
	driver_init(d, ",mac=52:54:00:00:00:01", NULL);
	driver_start(d, FEATURES, 3);
}

/* As a migration does it: pause, describe, build, copy memory and interrupt lines, load, resume. */
static void move(struct driver *from, struct driver *to)
{
	struct virtio_face face;
	struct buf state = BUF_INIT;
	struct buf again = BUF_INIT;
	struct err e = ERR_INIT;

	assert_int_equal(from->dev->ops->quiesce(from->dev, &e), 0);
	virtio_mmio_face(from->dev, &face);
	driver_init(to, "", &face);
	assert_int_equal(to->dev->ops->quiesce(to->dev, &e), 0);
	memcpy(driver_at(to, 0, FAKE_MEMORY_BYTES), driver_at(from, 0, FAKE_MEMORY_BYTES),
	       FAKE_MEMORY_BYTES);
	memcpy(to->queues, from->queues, sizeof(to->queues));
	dev_save(from->dev, &state);
	fake_copy_lines(&from->f, &to->f);
	if (dev_load(to->dev, &state, &e) < 0)
		fail_msg("%s", e.msg);
	dev_save(to->dev, &again);
	assert_int_equal(state.len, again.len);
	assert_memory_equal(state.data, again.data, state.len);
	to->dev->ops->unquiesce(to->dev);
	buf_fini(&state);
	buf_fini(&again);
}

/* What has reached the card before the pause arrives, what the driver has given goes on being used.
 */
static void test_nothing_is_lost(void **state)
{
	struct driver a;
	struct driver b;

	(void)state;
	begin(&a);
	driver_give(&a, 0, 0, 50, 2048);
	cable_send(&a, 100, 1);
	driver_wait_used(&a, 0, NULL);
	cable_send(&a, 100, 2);
	cable_send(&a, 3000, 3);
	move(&a, &b);
	assert_int_equal(driver_wait_used(&b, 0, NULL), 1);
	assert_int_equal(driver_wait_used(&b, 0, NULL), 2);
	assert_int_equal(driver_wait_used(&b, 0, NULL), 3);
	cable_send(&b, 100, 4);
	assert_int_equal(driver_wait_used(&b, 0, NULL), 4);
	frame_make(bytes, 100, 4);
	assert_memory_equal(driver_at(&b, driver_buffer(0, 4) + NET_HDR_BYTES, 100),
			    bytes + NET_HDR_BYTES, 100);
	driver_fini(&a);
	driver_fini(&b);
}

static uint16_t next_announcement(struct driver *d)
{
	size_t n = cable_receive(d, bytes, sizeof(bytes));

	assert_int_equal(n, NET_HDR_BYTES + ANNOUNCE_FRAME_BYTES);
	return (uint16_t)(bytes[NET_HDR_BYTES + 12] << 8 | bytes[NET_HDR_BYTES + 13]);
}

/* A migration that fails: the source goes on with the very buffers it had put back, and draws its
 * frames back from where the destination may have drawn them. */
static void test_source_goes_on(void **state)
{
	const struct announce_params once = {.rounds = 1};
	struct driver a;
	struct driver b;

	(void)state;
	begin(&a);
	driver_give(&a, 0, 0, 50, 2048);
	cable_send(&a, 100, 1);
	driver_wait_used(&a, 0, NULL);
	move(&a, &b);
	driver_fini(&b);
	cable_send(&a, 100, 2);
	virtio_net_announce(virtio_mmio_kind(a.dev), &once);
	assert_int_equal(read(a.cable, bytes, sizeof(bytes)), -1);
	a.dev->ops->unquiesce(a.dev);
	assert_int_equal(next_announcement(&a), ETHERTYPE_REVARP);
	assert_int_equal(driver_wait_used(&a, 0, NULL), 1);
	driver_fini(&a);
}

/* A frame that the full cable did not take is sent from the other side. */
static void test_unsent_frames_are_sent_there(void **state)
{
	struct driver a;
	struct driver b;
	uint16_t nr_sent;

	(void)state;
	begin(&a);
	for (uint16_t i = 0; i < DRIVER_SLOTS; i++) {
		struct piece p = {driver_buffer(1, i), NET_HDR_BYTES + 60000, false};

		frame_make(driver_at(&a, p.gpa, p.len), 60000, (uint8_t)i);
		driver_add(&a, 1, i, &p, 1);
	}
	driver_kick(&a, 1);
	move(&a, &b);
	nr_sent = driver_nr_used(&a, 1);
	assert_true(nr_sent > 0 && nr_sent < DRIVER_SLOTS);
	for (uint16_t i = nr_sent; i < DRIVER_SLOTS; i++) {
		uint8_t expected[16];

		frame_make(bytes, 60000, (uint8_t)i);
		memcpy(expected, bytes + NET_HDR_BYTES, sizeof(expected));
		assert_int_equal(cable_receive(&b, bytes, sizeof(bytes)), NET_HDR_BYTES + 60000);
		assert_memory_equal(bytes + NET_HDR_BYTES, expected, sizeof(expected));
	}
	driver_fini(&a);
	driver_fini(&b);
}

static void test_what_the_driver_set_moves(void **state)
{
	static const uint8_t mac[] = {0x52, 0x54, 0, 0, 0, 9};
	uint8_t off = 0;
	struct driver a;
	struct driver b;

	(void)state;
	begin(&a);
	driver_control(&a, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6);
	driver_control(&a, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1);
	move(&a, &b);
	assert_memory_equal(driver_config(&b).mac, mac, 6);
	driver_start(&b, FEATURES, 3);
	assert_memory_equal(driver_config(&b).mac, "\x52\x54\0\0\0\1", 6);
	driver_fini(&a);
	driver_fini(&b);
}

/* ---- What is refused ---- */

static void expect_no_card(const char *spec, const struct virtio_face *face, const char *words)
{
	struct virtio_kind *kind;
	struct err e = ERR_INIT;

	if (virtio_net_new(spec, 0, face, &kind, &e) >= 0)
		fail_msg("'%s' was taken", spec);
	if (!strstr(e.msg, words))
		fail_msg("'%s' does not say '%s'", e.msg, words);
}

static void test_faces_that_do_not_fit(void **state)
{
	struct driver a;
	struct virtio_face face;
	struct virtio_face odd;
	char spec[80];

	(void)state;
	begin(&a);
	virtio_mmio_face(a.dev, &face);
	snprintf(spec, sizeof(spec), "fd:%d,queues=2", a.near);
	expect_no_card(spec, &face, "leave queues= out");
	snprintf(spec, sizeof(spec), "fd:%d", a.near);
	odd = face;
	odd.features |= VIRTIO_BIT(VIRTIO_NET_F_RSS);
	expect_no_card(spec, &odd, "0x1000000000000000");
	odd = face;
	odd.config_bytes = 11;
	expect_no_card(spec, &odd, "11 bytes");
	odd = face;
	memset(odd.config, 0xff, sizeof(odd.config));
	expect_no_card(spec, &odd, "65535 queue pairs");
	driver_fini(&a);
}

/* ---- Announcing ---- */

/* @b is to become @a, which is paused: all but its state is there. */
static void prepare(struct driver *a, struct driver *b, struct buf *state)
{
	struct virtio_face face;
	struct err e = ERR_INIT;

	assert_int_equal(a->dev->ops->quiesce(a->dev, &e), 0);
	virtio_mmio_face(a->dev, &face);
	dev_save(a->dev, state);
	driver_init(b, "", &face);
	assert_int_equal(b->dev->ops->quiesce(b->dev, &e), 0);
	memcpy(driver_at(b, 0, FAKE_MEMORY_BYTES), driver_at(a, 0, FAKE_MEMORY_BYTES),
	       FAKE_MEMORY_BYTES);
	memcpy(b->queues, a->queues, sizeof(b->queues));
}

/* The first frame that the driver gets is the one of @len bytes. */
static void expect_first(struct driver *d, size_t len)
{
	assert_int_equal(driver_wait_used(d, 0, NULL), 0);
	frame_make(bytes, len, 2);
	assert_memory_equal(driver_at(d, driver_buffer(0, 0) + NET_HDR_BYTES, len),
			    bytes + NET_HDR_BYTES, len);
}

/* Frames that the destination's tap heard while the guest was elsewhere are not the guest's. */
static void test_stale_frames_are_forgotten(void **state)
{
	struct driver a;
	struct driver b;
	struct buf s = BUF_INIT;
	struct err e = ERR_INIT;

	(void)state;
	begin(&a);
	driver_give(&a, 0, 0, 50, 2048);
	prepare(&a, &b, &s);
	cable_send(&b, 100, 1);
	assert_int_equal(dev_load(b.dev, &s, &e), 0);
	cable_send(&b, 200, 2);
	b.dev->ops->unquiesce(b.dev);
	expect_first(&b, 200);
	buf_fini(&s);
	driver_fini(&a);
	driver_fini(&b);
}

/* Once it has asked for them, frames wait for the guest. */
static void test_attracted_frames_wait(void **state)
{
	struct driver a;
	struct driver b;
	struct buf s = BUF_INIT;
	struct err e = ERR_INIT;

	(void)state;
	begin(&a);
	driver_give(&a, 0, 0, 50, 2048);
	prepare(&a, &b, &s);
	cable_send(&b, 100, 1);
	virtio_net_attract(virtio_mmio_kind(b.dev));
	assert_int_equal(next_announcement(&b), ETHERTYPE_REVARP);
	assert_memory_equal(bytes + NET_HDR_BYTES + ETH_ALEN, "\x52\x54\0\0\0\1", ETH_ALEN);
	cable_send(&b, 200, 2);
	assert_int_equal(dev_load(b.dev, &s, &e), 0);
	cable_send(&b, 300, 3);
	b.dev->ops->unquiesce(b.dev);
	expect_first(&b, 200);
	assert_int_equal(driver_wait_used(&b, 0, NULL), 1);
	buf_fini(&s);
	driver_fini(&a);
	driver_fini(&b);
}

static void say_arp(struct driver *d)
{
	static const uint8_t mac[] = {0x52, 0x54, 0, 0, 0, 1};
	static const uint8_t ip[] = {10, 0, 0, 7};
	struct piece p = {driver_buffer(1, 0), NET_HDR_BYTES + ANNOUNCE_FRAME_BYTES, false};
	uint8_t *at = driver_at(d, p.gpa, p.len);

	memset(at, 0, NET_HDR_BYTES);
	announce_arp(mac, ip, at + NET_HDR_BYTES);
	driver_add(d, 1, 0, &p, 1);
	driver_kick(d, 1);
	assert_int_equal(next_announcement(d), ETHERTYPE_ARP);
	driver_wait_used(d, 1, NULL);
}

static void test_announced_in_rounds(void **state)
{
	const struct announce_params p = {
		.initial_ms = 20, .max_ms = 1000, .rounds = 3, .step_ms = 30};
	struct driver a;
	struct driver b;
	uint64_t begin_ns;
	uint64_t took_ns;

	(void)state;
	begin(&a);
	say_arp(&a);
	move(&a, &b);
	begin_ns = clock_now_ns();
	virtio_net_announce(virtio_mmio_kind(b.dev), &p);
	for (int round = 0; round < 3; round++) {
		assert_int_equal(next_announcement(&b), ETHERTYPE_REVARP);
		assert_int_equal(next_announcement(&b), ETHERTYPE_ARP);
		assert_memory_equal(bytes + NET_HDR_BYTES + 28, "\x0a\0\0\7", 4);
	}
	took_ns = clock_now_ns() - begin_ns;
	assert_true(took_ns >= 70 * NS_PER_MS); /* 20 + 50 */
	driver_settle(&b);
	assert_int_equal(read(b.cable, bytes, sizeof(bytes)), -1);
	driver_fini(&a);
	driver_fini(&b);
}

static void test_the_guest_is_asked_to_announce_itself(void **state)
{
	const struct announce_params once = {.rounds = 1};
	struct driver d;

	(void)state;
	begin(&d);
	virtio_net_announce(virtio_mmio_kind(d.dev), &once);
	assert_int_equal(driver_config(&d).status, VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	assert_true(fake_line(&d.f, virtio_mmio_gsi(0)));
	assert_true(reg_get(&d, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG);
	assert_int_equal(driver_control(&d, 2, VIRTIO_NET_CTRL_ANNOUNCE,
					VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0),
			 VIRTIO_NET_OK);
	assert_int_equal(driver_config(&d).status, VIRTIO_NET_S_LINK_UP);
	/* A driver that cannot is not asked. */
	driver_start(&d, BIT(STATUS) | BIT(MRG_RXBUF), 2);
	virtio_net_announce(virtio_mmio_kind(d.dev), &once);
	assert_int_equal(driver_config(&d).status, VIRTIO_NET_S_LINK_UP);
	driver_fini(&d);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_is_lost),
		cmocka_unit_test(test_source_goes_on),
		cmocka_unit_test(test_unsent_frames_are_sent_there),
		cmocka_unit_test(test_stale_frames_are_forgotten),
		cmocka_unit_test(test_attracted_frames_wait),
		cmocka_unit_test(test_what_the_driver_set_moves),
		cmocka_unit_test(test_faces_that_do_not_fit),
		cmocka_unit_test(test_announced_in_rounds),
		cmocka_unit_test(test_the_guest_is_asked_to_announce_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
