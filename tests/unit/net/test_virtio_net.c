/* The card between a driver of the test's and the far end of its cable. */
#include "tests/unit/net/net_driver.h"

#define BIT(name) VIRTIO_BIT(VIRTIO_NET_F_##name)
#define MERGE     BIT(MRG_RXBUF)

static uint8_t bytes[NET_MAX_BYTES];
static uint8_t expected[NET_MAX_BYTES];

static void expect_in_guest(struct driver *d, uint64_t gpa, size_t offset, size_t len)
{
	assert_memory_equal(driver_at(d, gpa, len), expected + offset, len);
}

/* ---- Sending ---- */

static void send_frame(struct driver *d, uint16_t slot, size_t len, uint8_t seed)
{
	uint64_t at = driver_buffer(1, slot);
	struct piece pieces[] = {{at, NET_HDR_BYTES + 3, false},
				 {at + NET_HDR_BYTES + 3, (uint32_t)len - 3, false}};

	frame_make(driver_at(d, at, NET_HDR_BYTES + len), len, seed);
	driver_add(d, 1, slot, pieces, 2);
	driver_kick(d, 1);
}

static void expect_frame(struct driver *d, size_t len, uint8_t seed)
{
	frame_make(expected, len, seed);
	assert_int_equal(cable_receive(d, bytes, sizeof(bytes)), NET_HDR_BYTES + len);
	assert_memory_equal(bytes, expected, NET_HDR_BYTES + len);
}

static void test_send(void **state)
{
	struct driver d;
	uint32_t len;

	(void)state;
	driver_init(&d, "", NULL);
	driver_start(&d, 0, 2);
	send_frame(&d, 0, 60, 1);
	expect_frame(&d, 60, 1);
	assert_int_equal(driver_wait_used(&d, 1, &len), 0);
	assert_int_equal(len, 0);
	send_frame(&d, 1, 65000, 2);
	send_frame(&d, 2, 1514, 3);
	expect_frame(&d, 65000, 2);
	expect_frame(&d, 1514, 3);
	assert_int_equal(driver_wait_used(&d, 1, NULL), 1);
	assert_int_equal(driver_wait_used(&d, 1, NULL), 2);
	driver_fini(&d);
}

/* A socket takes some frames and then no more: those that follow wait in the guest's queue. */
static void test_send_into_a_full_cable(void **state)
{
	struct driver d;

	(void)state;
	driver_init(&d, "", NULL);
	driver_start(&d, 0, 2);
	for (uint16_t i = 0; i < DRIVER_SLOTS; i++)
		send_frame(&d, i, 60000, (uint8_t)i);
	driver_settle(&d);
	assert_true(driver_nr_used(&d, 1) < DRIVER_SLOTS);
	for (uint16_t i = 0; i < DRIVER_SLOTS; i++)
		expect_frame(&d, 60000, (uint8_t)i);
	for (uint16_t i = 0; i < DRIVER_SLOTS; i++)
		assert_int_equal(driver_wait_used(&d, 1, NULL), i);
	driver_fini(&d);
}

static void test_send_what_no_wire_takes(void **state)
{
	struct driver d;
	struct piece huge = {DRIVER_BUFFERS, 100000, false};
	struct piece headless = {DRIVER_BUFFERS, NET_HDR_BYTES - 1, false};

	(void)state;
	driver_init(&d, "", NULL);
	driver_start(&d, 0, 2);
	driver_add(&d, 1, 0, &huge, 1);
	send_frame(&d, 1, 60, 1);
	expect_frame(&d, 60, 1);
	driver_wait_used(&d, 1, NULL);
	driver_wait_used(&d, 1, NULL);
	driver_add(&d, 1, 2, &headless, 1);
	driver_kick(&d, 1);
	driver_settle(&d);
	assert_true(reg_get(&d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	driver_fini(&d);
}

/* ---- Receiving ---- */

/* The frame (of @len, @seed) fills @nr buffers of @room bytes, the first in slot @slot. */
static void expect_received(struct driver *d, size_t len, uint8_t seed, uint16_t slot,
			    uint32_t room, uint16_t nr)
{
	uint32_t left = (uint32_t)(NET_HDR_BYTES + len);

	frame_make(expected, len, seed);
	((struct virtio_net_hdr_v1 *)(void *)expected)->num_buffers = nr;
	for (uint16_t i = 0; i < nr; i++) {
		uint32_t used;

		assert_int_equal(driver_wait_used(d, 0, &used), slot + i);
		assert_int_equal(used, left < room ? left : room);
		expect_in_guest(d, driver_buffer(0, slot + i), (size_t)i * room, used);
		left -= used;
	}
	assert_int_equal(left, 0);
}

static void test_receive(void **state)
{
	struct driver d;

	(void)state;
	driver_init(&d, "", NULL);
	driver_start(&d, MERGE, 2);
	driver_give(&d, 0, 0, 8, 2048);
	cable_send(&d, 60, 1);
	cable_send(&d, 1500, 2);
	expect_received(&d, 60, 1, 0, 2048, 1);
	expect_received(&d, 1500, 2, 1, 2048, 1);
	assert_true(fake_wait_line(&d.f, virtio_mmio_gsi(0), true, DRIVER_WAIT_NS));
	driver_fini(&d);
}

static void test_receive_merged(void **state)
{
	struct driver d;

	(void)state;
	driver_init(&d, "", NULL);
	driver_start(&d, MERGE | BIT(GUEST_CSUM) | BIT(GUEST_TSO4), 2);
	driver_give(&d, 0, 0, DRIVER_SLOTS, 1530);
	cable_send(&d, 5000, 1);
	cable_send(&d, 60, 2);
	cable_send(&d, 30000, 3);
	expect_received(&d, 5000, 1, 0, 1530, 4);
	expect_received(&d, 60, 2, 4, 1530, 1);
	expect_received(&d, 30000, 3, 5, 1530, 20);
	driver_fini(&d);
}

/* Buffers come late, a few at a time: nothing is lost and nothing overtakes. */
static void test_receive_without_room(void **state)
{
	struct driver d;

	(void)state;
	driver_init(&d, "", NULL);
	driver_start(&d, MERGE | BIT(GUEST_CSUM) | BIT(GUEST_TSO4), 2);
	cable_send(&d, 60, 1);
	cable_send(&d, 50000, 2);
	driver_settle(&d);
	assert_int_equal(driver_nr_used(&d, 0), 0);
	driver_give(&d, 0, 0, 10, 4096);
	driver_settle(&d);
	driver_give(&d, 0, 10, 20, 4096);
	expect_received(&d, 60, 1, 0, 4096, 1);
	driver_give(&d, 0, 20, 40, 4096);
	expect_received(&d, 50000, 2, 1, 4096, 13);
	driver_fini(&d);
}

static void test_receive_unmerged(void **state)
{
	struct driver d;

	(void)state;
	driver_init(&d, "", NULL);
	driver_start(&d, 0, 2);
	driver_give(&d, 0, 0, 3, 1530);
	cable_send(&d, 1518, 1);
	cable_send(&d, 1519, 2); /* one more than the buffer has */
	cable_send(&d, 13, 3);   /* less than an Ethernet header */
	cable_send(&d, 100, 4);
	expect_received(&d, 1518, 1, 0, 1530, 1);
	expect_received(&d, 100, 4, 1, 1530, 1);
	driver_fini(&d);
}

/* Written memory is marked, in every buffer and also for a frame that was not taken. */
static void test_written_pages_are_dirty(void **state)
{
	struct driver d;
	struct bitmap set;
	struct err e = ERR_INIT;

	(void)state;
	driver_init(&d, "", NULL);
	assert_int_equal(bitmap_init(&set, guest_mem_nr_gfns(d.f.m.mem), &e), 0);
	driver_start(&d, MERGE, 2);
	driver_give(&d, 0, 0, 4, 4096);
	cable_send(&d, 6000, 1); /* longer than the MTU, so it does not fit the buffers looked at */
	cable_send(&d, 1000, 2);
	expect_received(&d, 1000, 2, 0, 4096, 1);
	guest_mem_take_marks(d.f.m.mem, &set);
	assert_true(bitmap_test(&set, driver_buffer(0, 0) >> PAGE_SHIFT));
	assert_true(bitmap_test(&set, d.queues[0].used >> PAGE_SHIFT));
	assert_false(bitmap_test(&set, driver_buffer(0, 3) >> PAGE_SHIFT));
	bitmap_fini(&set);
	driver_fini(&d);
}

static void test_receive_buffer_without_room(void **state)
{
	struct driver d;
	struct piece nothing = {DRIVER_BUFFERS, 2000, false};

	(void)state;
	driver_init(&d, "", NULL);
	driver_start(&d, MERGE, 2);
	driver_add(&d, 0, 0, &nothing, 1);
	driver_kick(&d, 0);
	cable_send(&d, 60, 1);
	driver_settle(&d);
	assert_true(reg_get(&d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	/* And a reset makes it whole. */
	driver_start(&d, MERGE, 2);
	driver_give(&d, 0, 0, 2, 2048);
	expect_received(&d, 60, 1, 0, 2048, 1);
	driver_fini(&d);
}

static void test_checksum_flags_only_for_those_who_asked(void **state)
{
	static const uint64_t features[] = {MERGE, MERGE | BIT(GUEST_CSUM)};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct driver d;
		const struct virtio_net_hdr_v1 *h;

		driver_init(&d, "", NULL);
		driver_start(&d, features[i], 2);
		driver_give(&d, 0, 0, 4, 2048);
		frame_make(bytes, 60, 1);
		bytes[0] = VIRTIO_NET_HDR_F_DATA_VALID;
		assert_int_equal(write(d.cable, bytes, NET_HDR_BYTES + 60), NET_HDR_BYTES + 60);
		driver_wait_used(&d, 0, NULL);
		h = driver_at(&d, driver_buffer(0, 0), sizeof(*h));
		assert_int_equal(h->flags, i ? VIRTIO_NET_HDR_F_DATA_VALID : 0);
		driver_fini(&d);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_send),
		cmocka_unit_test(test_send_into_a_full_cable),
		cmocka_unit_test(test_send_what_no_wire_takes),
		cmocka_unit_test(test_receive),
		cmocka_unit_test(test_receive_merged),
		cmocka_unit_test(test_receive_without_room),
		cmocka_unit_test(test_receive_unmerged),
		cmocka_unit_test(test_written_pages_are_dirty),
		cmocka_unit_test(test_receive_buffer_without_room),
		cmocka_unit_test(test_checksum_flags_only_for_those_who_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
