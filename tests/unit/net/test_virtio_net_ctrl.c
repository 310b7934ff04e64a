/* The control queue: what a driver may ask, and what it may not. */
#include <net/ethernet.h>

#include "tests/unit/net/net_driver.h"

#define BIT(name) VIRTIO_BIT(VIRTIO_NET_F_##name)
#define MERGE     BIT(MRG_RXBUF)
#define CTRL      (BIT(CTRL_VQ) | BIT(CTRL_RX) | BIT(CTRL_RX_EXTRA) | BIT(CTRL_MAC_ADDR) | BIT(STATUS))
#define OK        VIRTIO_NET_OK
#define ERR       VIRTIO_NET_ERR

static const uint8_t own[] = {0x52, 0x54, 0, 0, 0, 1};
static const uint8_t other[] = {0x52, 0x54, 0, 0, 0, 2};
static const uint8_t group[] = {0x33, 0x33, 0, 0, 0, 1};
static const uint8_t all[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static void begin(struct driver *d, uint64_t features)
{
	driver_init(d, ",mac=52:54:00:00:00:01", NULL);
	driver_start(d, features, 3);
	driver_give(d, 0, 0, DRIVER_SLOTS, 2048);
}

static void set_mode(struct driver *d, uint8_t command, uint8_t on)
{
	assert_int_equal(driver_control(d, 2, VIRTIO_NET_CTRL_RX, command, &on, 1), OK);
}

static void send_to(struct driver *d, const uint8_t *mac, int vlan)
{
	uint8_t bytes[NET_HDR_BYTES + 60] = {0};

	memcpy(bytes + NET_HDR_BYTES, mac, ETH_ALEN);
	if (vlan >= 0) {
		bytes[NET_HDR_BYTES + 12] = 0x81;
		bytes[NET_HDR_BYTES + 14] = (uint8_t)(vlan >> 8);
		bytes[NET_HDR_BYTES + 15] = (uint8_t)vlan;
	}
	assert_int_equal(write(d->cable, bytes, sizeof(bytes)), sizeof(bytes));
}

/* Whether a frame gets through: one that does for certain follows it. */
static bool is_taken(struct driver *d, const uint8_t *mac, int vlan)
{
	static uint8_t mark;
	uint16_t before = d->queues[0].nr_seen;
	uint8_t bytes[NET_HDR_BYTES + 60] = {0};
	const uint8_t *in;

	send_to(d, mac, vlan);
	memcpy(bytes + NET_HDR_BYTES, own, sizeof(own));
	bytes[NET_HDR_BYTES + 30] = ++mark;
	assert_int_equal(write(d->cable, bytes, sizeof(bytes)), sizeof(bytes));
	do {
		uint16_t slot = driver_wait_used(d, 0, NULL);

		in = driver_at(d, driver_buffer(0, slot), 2048);
		driver_give(d, 0, slot, (uint16_t)(slot + 1), 2048);
	} while (in[NET_HDR_BYTES + 30] != mark);
	return (uint16_t)(d->queues[0].nr_seen - before) == 2;
}

static void test_takes_everything_until_told(void **state)
{
	struct driver d;

	(void)state;
	begin(&d, MERGE | CTRL);
	assert_true(is_taken(&d, other, -1));
	assert_true(is_taken(&d, group, 7));
	driver_fini(&d);
}

static void test_receive_modes(void **state)
{
	struct driver d;

	(void)state;
	begin(&d, MERGE | CTRL);
	set_mode(&d, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	assert_false(is_taken(&d, other, -1));
	assert_false(is_taken(&d, group, -1));
	assert_true(is_taken(&d, all, -1));
	set_mode(&d, VIRTIO_NET_CTRL_RX_ALLMULTI, 1);
	assert_true(is_taken(&d, group, -1));
	set_mode(&d, VIRTIO_NET_CTRL_RX_NOMULTI, 1);
	assert_false(is_taken(&d, group, -1));
	set_mode(&d, VIRTIO_NET_CTRL_RX_NOBCAST, 1);
	assert_false(is_taken(&d, all, -1));
	set_mode(&d, VIRTIO_NET_CTRL_RX_ALLUNI, 1);
	assert_true(is_taken(&d, other, -1));
	set_mode(&d, VIRTIO_NET_CTRL_RX_PROMISC, 1);
	assert_true(is_taken(&d, all, -1));
	driver_fini(&d);
}

static uint8_t set_tables(struct driver *d, uint32_t nr_unicast, uint32_t nr_multicast)
{
	uint8_t data[2048] = {0};
	size_t at = 0;

	memcpy(data, &nr_unicast, 4);
	at += 4;
	for (uint32_t i = 0; i < nr_unicast; i++, at += 6)
		memcpy(data + at, other, 6);
	memcpy(data + at, &nr_multicast, 4);
	at += 4;
	for (uint32_t i = 0; i < nr_multicast; i++, at += 6)
		memcpy(data + at, group, 6);
	return driver_control(d, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, data,
			      (uint32_t)at);
}

static void test_address_tables(void **state)
{
	static const uint8_t elsewhere[] = {0x52, 0x54, 0, 0, 0, 3};
	struct driver d;

	(void)state;
	begin(&d, MERGE | CTRL);
	set_mode(&d, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	assert_int_equal(set_tables(&d, 1, 0), OK);
	assert_true(is_taken(&d, other, -1));
	assert_false(is_taken(&d, elsewhere, -1));
	assert_false(is_taken(&d, group, -1));
	assert_int_equal(set_tables(&d, 0, 64), OK);
	assert_false(is_taken(&d, other, -1));
	assert_true(is_taken(&d, group, -1));
	/* More than it remembers: all of them. */
	assert_int_equal(set_tables(&d, 65, 65), OK);
	assert_true(is_taken(&d, elsewhere, -1));
	driver_fini(&d);
}

static void test_tables_that_lie(void **state)
{
	static const uint32_t counts[] = {1, 2, 0x2aaaaaaa, 0x80000000, UINT32_MAX};
	struct driver d;

	(void)state;
	begin(&d, MERGE | CTRL);
	set_mode(&d, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		uint8_t data[4 + 5];

		memcpy(data, &counts[i], 4);
		assert_int_equal(driver_control(&d, 2, VIRTIO_NET_CTRL_MAC,
						VIRTIO_NET_CTRL_MAC_TABLE_SET, data, sizeof(data)),
				 ERR);
	}
	assert_false(is_taken(&d, other, -1));
	driver_fini(&d);
}

static void test_address(void **state)
{
	struct driver d;

	(void)state;
	begin(&d, MERGE | CTRL);
	assert_int_equal(
		driver_control(&d, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 6),
		OK);
	assert_memory_equal(driver_config(&d).mac, other, 6);
	assert_int_equal(
		driver_control(&d, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, own, 5),
		ERR);
	driver_start(&d, MERGE, 2); /* a reset brings the first one back */
	assert_memory_equal(driver_config(&d).mac, own, 6);
	driver_fini(&d);
}

static void test_vlans(void **state)
{
	struct driver d;
	uint16_t vlan = 7;
	uint16_t none = 4096;

	(void)state;
	begin(&d, MERGE | CTRL | BIT(CTRL_VLAN));
	set_mode(&d, VIRTIO_NET_CTRL_RX_PROMISC, 0);
	assert_false(is_taken(&d, own, 7));
	assert_int_equal(
		driver_control(&d, 2, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &vlan, 2),
		OK);
	assert_true(is_taken(&d, own, 7));
	assert_false(is_taken(&d, own, 8));
	assert_int_equal(
		driver_control(&d, 2, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, &vlan, 2),
		OK);
	assert_false(is_taken(&d, own, 7));
	assert_int_equal(
		driver_control(&d, 2, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &none, 2),
		ERR);
	driver_fini(&d);
}

static uint8_t choose_offloads(struct driver *d, uint64_t offloads)
{
	return driver_control(d, 2, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
			      VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &offloads, 8);
}

static void test_offloads(void **state)
{
	struct driver d;

	(void)state;
	begin(&d, MERGE | CTRL | BIT(CTRL_GUEST_OFFLOADS) | BIT(GUEST_CSUM) | BIT(GUEST_TSO4));
	assert_int_equal(choose_offloads(&d, BIT(GUEST_CSUM)), OK);
	assert_int_equal(choose_offloads(&d, 0), OK);
	assert_int_equal(choose_offloads(&d, BIT(GUEST_CSUM) | BIT(GUEST_TSO4)), OK);
	assert_int_equal(choose_offloads(&d, BIT(GUEST_TSO6)), ERR); /* not negotiated */
	assert_int_equal(choose_offloads(&d, BIT(CSUM)), ERR);       /* not of this sort */
	assert_int_equal(choose_offloads(&d, 1ull << 63), ERR);
	driver_fini(&d);
}

static void test_what_was_not_negotiated(void **state)
{
	static const uint8_t one[2] = {1, 0};
	struct driver d;

	(void)state;
	begin(&d, MERGE | BIT(CTRL_VQ) | BIT(CTRL_RX));
	for (uint8_t class = VIRTIO_NET_CTRL_VLAN; class <= 8; class ++)
		assert_int_equal(driver_control(&d, 2, class, 0, one, 2), ERR);
	assert_int_equal(
		driver_control(&d, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLUNI, one, 1), ERR);
	assert_int_equal(driver_control(&d, 2, VIRTIO_NET_CTRL_RX, 255, one, 1), ERR);
	assert_int_equal(driver_control(&d, 2, VIRTIO_NET_CTRL_RX, 0, one, 0), ERR);
	driver_fini(&d);
}

/* ---- Several queues ---- */

static uint8_t set_pairs(struct driver *d, uint16_t nr)
{
	return driver_control(d, 8, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &nr, 2);
}

static void begin_multi_queue(struct driver *d, int far[4], int near[4])
{
	struct err e = ERR_INIT;
	char spec[40];

	*d = (struct driver){.cable = -1};
	fake_init(&d->f);
	/* Four sockets whose numbers follow each other. */
	for (int i = 0; i < 4; i++) {
		int ends[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends), 0);
		near[i] = dup2(ends[0], 100 + i);
		far[i] = ends[1];
		close(ends[0]);
	}
	snprintf(spec, sizeof(spec), "fd:100,queues=4");
	d->dev = driver_card(d, spec, NULL, &e);
	if (!d->dev)
		fail_msg("%s", e.msg);
}

static void test_pairs(void **state)
{
	struct driver d;
	uint8_t bytes[NET_HDR_BYTES + 60] = {0};
	int far[4];
	int near[4];

	(void)state;
	begin_multi_queue(&d, far, near);
	driver_start(&d, MERGE | CTRL | BIT(MQ), 9);
	assert_int_equal(driver_config(&d).max_virtqueue_pairs, 4);
	driver_give(&d, 0, 0, 8, 2048);
	driver_give(&d, 6, 0, 8, 2048);
	assert_int_equal(write(far[3], bytes, sizeof(bytes)), sizeof(bytes));
	driver_settle(&d);
	assert_int_equal(driver_nr_used(&d, 6), 0);
	assert_int_equal(set_pairs(&d, 0), ERR);
	assert_int_equal(set_pairs(&d, 5), ERR);
	assert_int_equal(set_pairs(&d, 4), OK);
	driver_wait_used(&d, 6, NULL);
	/* Back to one: what comes on the others waits. */
	assert_int_equal(set_pairs(&d, 1), OK);
	assert_int_equal(write(far[3], bytes, sizeof(bytes)), sizeof(bytes));
	assert_int_equal(write(far[0], bytes, sizeof(bytes)), sizeof(bytes));
	driver_wait_used(&d, 0, NULL);
	driver_settle(&d);
	assert_int_equal(driver_nr_used(&d, 6), 1);
	assert_int_equal(set_pairs(&d, 4), OK);
	driver_wait_used(&d, 6, NULL);
	d.dev->ops->free(d.dev);
	for (int i = 0; i < 4; i++) {
		close(far[i]);
		close(near[i]);
	}
	fake_fini(&d.f);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_takes_everything_until_told),
		cmocka_unit_test(test_receive_modes),
		cmocka_unit_test(test_address_tables),
		cmocka_unit_test(test_tables_that_lie),
		cmocka_unit_test(test_address),
		cmocka_unit_test(test_vlans),
		cmocka_unit_test(test_offloads),
		cmocka_unit_test(test_what_was_not_negotiated),
		cmocka_unit_test(test_pairs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
