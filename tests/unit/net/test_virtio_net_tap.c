/* The card on a tap: what a socket cannot show. */
#include "tests/unit/net/net_driver.h"
#include "tests/unit/net/tap_namespace.h"

#define BIT(name) VIRTIO_BIT(VIRTIO_NET_F_##name)

static void card_on_tap(struct driver *d, const char *spec)
{
	struct err e = ERR_INIT;

	*d = (struct driver){.cable = -1};
	fake_init(&d->f);
	d->dev = driver_card(d, spec, NULL, &e);
	if (!d->dev)
		fail_msg("%s", e.msg);
}

static void card_free(struct driver *d)
{
	d->dev->ops->free(d->dev);
	fake_fini(&d->f);
}

static uint64_t offered(struct driver *d)
{
	uint64_t features = 0;

	for (uint32_t i = 0; i < 2; i++) {
		reg_set(d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, i);
		features |= (uint64_t)reg_get(d, VIRTIO_MMIO_DEVICE_FEATURES) << 32 * i;
	}
	return features;
}

static void test_what_a_tap_offers(void **state)
{
	const uint64_t all = BIT(CSUM) | BIT(GUEST_CSUM) | BIT(HOST_TSO4) | BIT(HOST_TSO6) |
			     BIT(GUEST_TSO4) | BIT(GUEST_TSO6) | BIT(GUEST_ECN) | BIT(HOST_ECN) |
			     BIT(MTU) | BIT(MAC) | BIT(STATUS) | BIT(MRG_RXBUF) | BIT(CTRL_VQ) |
			     BIT(MQ) | BIT(GUEST_ANNOUNCE);
	struct driver d;
	struct virtio_net_config c;

	(void)state;
	make_tap("t0", IFF_MULTI_QUEUE, 9000);
	card_on_tap(&d, "tap:t0,queues=4,mac=52:54:00:00:00:01");
	assert_int_equal(offered(&d) & all, all);
	c = driver_config(&d);
	assert_memory_equal(c.mac, "\x52\x54\0\0\0\x01", NET_MAC_BYTES);
	assert_int_equal(c.mtu, 9000);
	assert_int_equal(c.max_virtqueue_pairs, 4);
	assert_int_equal(c.status, VIRTIO_NET_S_LINK_UP);
	card_free(&d);
	remove_tap("t0");
}

/* As send_until_received(), for what comes out of the card. */
static void send_until_used(struct driver *d, int host, const uint8_t *frame, size_t len)
{
	uint64_t end = clock_now_ns() + DRIVER_WAIT_NS;
	uint16_t nr_seen = 0;

	while (clock_now_ns() < end) {
		assert_int_equal(write(host, frame, len), len);
		clock_sleep_until_ns(clock_now_ns() + 20 * NS_PER_MS);
		for (; nr_seen != driver_nr_used(d, 0); nr_seen++) {
			uint16_t slot = driver_wait_used(d, 0, NULL);
			const uint8_t *in = driver_at(d, driver_buffer(0, slot), 2048);

			if (!memcmp(in + NET_HDR_BYTES, frame, len))
				return; /* what came before is IPv6's own */
			driver_give(d, 0, slot, (uint16_t)(slot + 1), 2048);
		}
	}
	fail_msg("the frame did not come through");
}

static void test_frames_both_ways(void **state)
{
	static const uint8_t mac[] = {0x52, 0x54, 0, 0, 0, 1};
	uint8_t frame[ANNOUNCE_FRAME_BYTES];
	uint8_t got[2048];
	struct driver d;
	uint8_t *out;
	int host;

	(void)state;
	make_tap("t0", 0, 1500);
	card_on_tap(&d, "tap:t0");
	driver_start(&d, BIT(MRG_RXBUF) | BIT(CSUM) | BIT(GUEST_CSUM) | BIT(GUEST_TSO4), 2);
	host = packet_socket("t0");
	announce_rarp(mac, frame);
	out = driver_at(&d, driver_buffer(1, 0), 2048);
	memset(out, 0, NET_HDR_BYTES);
	memcpy(out + NET_HDR_BYTES, frame, sizeof(frame));
	driver_add(&d, 1, 0,
		   &(struct piece){driver_buffer(1, 0), NET_HDR_BYTES + sizeof(frame), false}, 1);
	driver_kick(&d, 1);
	assert_int_equal(receive_type(host, got, sizeof(got), 0, ETHERTYPE_REVARP), sizeof(frame));
	assert_memory_equal(got, frame, sizeof(frame));

	driver_give(&d, 0, 0, DRIVER_SLOTS, 2048);
	send_until_used(&d, host, frame, sizeof(frame));
	close(host);
	card_free(&d);
	remove_tap("t0");
}

static void test_tap_removed(void **state)
{
	struct driver d;
	uint64_t end = clock_now_ns() + DRIVER_WAIT_NS;
	struct piece frame = {DRIVER_BUFFERS, 72, false};

	(void)state;
	make_tap("t0", 0, 1500);
	card_on_tap(&d, "tap:t0");
	driver_start(&d, BIT(MRG_RXBUF) | BIT(STATUS), 2);
	driver_give(&d, 0, 0, 4, 2048);
	assert_int_equal(driver_config(&d).status, VIRTIO_NET_S_LINK_UP);
	remove_tap("t0");
	while (driver_config(&d).status && clock_now_ns() < end)
		clock_sleep_until_ns(clock_now_ns() + NS_PER_MS);
	assert_int_equal(driver_config(&d).status, 0);
	assert_true(fake_wait_line(&d.f, virtio_mmio_gsi(0), true, DRIVER_WAIT_NS));
	/* What is sent from now on is lost, as on a pulled cable; it does not get stuck. */
	driver_add(&d, 1, 0, &frame, 1);
	driver_kick(&d, 1);
	driver_wait_used(&d, 1, NULL);
	card_free(&d);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_a_tap_offers),
		cmocka_unit_test(test_frames_both_ways),
		cmocka_unit_test(test_tap_removed),
	};

	return cmocka_run_group_tests(tests, enter_namespace, NULL);
}
