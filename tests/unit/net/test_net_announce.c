#include <string.h>

#include "tests/unit/cmocka_all.h"
#include "vmm/net/net_announce.h"

static const uint8_t mac[] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};

/* As QEMU's: rounds at 0, 50, 200, 450 and 800 ms. */
static void test_default_schedule(void **state)
{
	static const uint32_t expected[] = {50, 150, 250, 350};
	struct announce_params p = ANNOUNCE_DEFAULTS;

	(void)state;
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(announce_delay_ms(&p, i), expected[i]);
}

static void test_longest_delay(void **state)
{
	struct announce_params p = ANNOUNCE_DEFAULTS;

	(void)state;
	assert_int_equal(announce_delay_ms(&p, 6), 550);
	p = (struct announce_params){UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
	assert_int_equal(announce_delay_ms(&p, UINT32_MAX), UINT32_MAX);
}

/* Byte for byte what RFC 903 and Ethernet say, written out here. */
static void test_rarp_frame(void **state)
{
	static const uint8_t expected[ANNOUNCE_FRAME_BYTES] = {
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 0x80, 0x35,
		0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x03, 0x52, 0x54, 0x00, 0x12, 0x34, 0x56,
		0,    0,    0,    0,    0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 0,    0,    0,    0};
	uint8_t frame[ANNOUNCE_FRAME_BYTES];

	(void)state;
	announce_rarp(mac, frame);
	assert_memory_equal(frame, expected, sizeof(expected));
}

static void test_arp_frame(void **state)
{
	static const uint8_t expected[ANNOUNCE_FRAME_BYTES] = {
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 0x08, 0x06,
		0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, 0x52, 0x54, 0x00, 0x12, 0x34, 0x56,
		10,   0,    0,    7,    0,    0,    0,    0,    0,    0,    10,   0,    0,    7};
	static const uint8_t ip[] = {10, 0, 0, 7};
	uint8_t frame[ANNOUNCE_FRAME_BYTES];

	(void)state;
	announce_arp(mac, ip, frame);
	assert_memory_equal(frame, expected, sizeof(expected));
}

static bool learn(struct announce_addresses *a, uint8_t last)
{
	uint8_t ip[] = {10, 0, 0, last};
	uint8_t frame[ANNOUNCE_FRAME_BYTES];

	announce_arp(mac, ip, frame);
	return announce_learn(a, mac, frame, ANNOUNCE_LEARN_BYTES);
}

static void expect_order(const struct announce_addresses *a, const char *lasts)
{
	assert_int_equal(a->nr, strlen(lasts));
	for (uint32_t i = 0; i < a->nr; i++)
		assert_int_equal(a->ipv4[i][3], lasts[i] - '0');
}

static void test_addresses_newest_first(void **state)
{
	struct announce_addresses a = {.nr = 0};

	(void)state;
	assert_true(learn(&a, 1));
	assert_false(learn(&a, 1));
	assert_true(learn(&a, 2));
	assert_true(learn(&a, 3));
	expect_order(&a, "321");
	assert_true(learn(&a, 1));
	expect_order(&a, "132");
	assert_true(learn(&a, 4));
	assert_true(learn(&a, 5));
	expect_order(&a, "5413");
	assert_true(learn(&a, 3));
	expect_order(&a, "3541");
}

static void test_only_its_own(void **state)
{
	static const uint8_t ip[] = {10, 0, 0, 1};
	static const uint8_t nobody[4];
	static const uint8_t other[] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x57};
	struct announce_addresses a = {.nr = 0};
	uint8_t frame[ANNOUNCE_FRAME_BYTES];

	(void)state;
	announce_arp(other, ip, frame);
	assert_false(announce_learn(&a, mac, frame, sizeof(frame)));
	announce_arp(mac, nobody, frame);
	assert_false(announce_learn(&a, mac, frame, sizeof(frame)));
	announce_rarp(mac, frame);
	assert_false(announce_learn(&a, mac, frame, sizeof(frame)));
	announce_arp(mac, ip, frame);
	assert_false(announce_learn(&a, mac, frame, ANNOUNCE_LEARN_BYTES - 1));
	frame[19] = 16; /* addresses that are not IPv4's */
	assert_false(announce_learn(&a, mac, frame, sizeof(frame)));
	assert_int_equal(a.nr, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_default_schedule),
		cmocka_unit_test(test_longest_delay),
		cmocka_unit_test(test_rarp_frame),
		cmocka_unit_test(test_arp_frame),
		cmocka_unit_test(test_addresses_newest_first),
		cmocka_unit_test(test_only_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
