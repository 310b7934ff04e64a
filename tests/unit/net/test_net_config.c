#include <string.h>

#include "tests/unit/cmocka_all.h"
#include "vmm/net/net_config.h"

static struct net_config parse(const char *text)
{
	struct net_config c;
	struct err e = ERR_INIT;

	if (net_config_parse(text, &c, &e) < 0)
		fail_msg("'%s': %s", text, e.msg);
	return c;
}

static void expect_refused(const char *text)
{
	struct net_config c;
	struct err e = ERR_INIT;

	if (net_config_parse(text, &c, &e) >= 0)
		fail_msg("'%s' was taken", text);
	assert_int_equal(e.kind, ERR_USAGE);
	assert_true(e.msg[0] != '\0');
}

static void test_plain(void **state)
{
	struct net_config c = parse("tap:vm-1");

	(void)state;
	assert_string_equal(c.kind, "tap");
	assert_string_equal(c.name, "vm-1");
	assert_false(c.has_mac);
	assert_int_equal(c.nr_queues, 0);
}

static void test_options(void **state)
{
	static const uint8_t mac[] = {0x52, 0x54, 0x00, 0xAB, 0xcd, 0x01};
	struct net_config c = parse("tap:t,queues=4,mac=52:54:00:aB:CD:01");

	(void)state;
	assert_true(c.has_mac);
	assert_memory_equal(c.mac, mac, sizeof(mac));
	assert_int_equal(c.nr_queues, 4);
}

static void test_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"tap",
		"tap:",
		"tap:,mac=52:54:00:00:00:01",
		"tap:t,",
		"tap:t,mac=",
		"tap:t,mac=52:54:00:00:00",
		"tap:t,mac=52:54:00:00:00:1",
		"tap:t,mac=52:54:00:00:00:0g",
		"tap:t,mac=52:54:00:00:00:01:02",
		"tap:t,mac=53:54:00:00:00:01",
		"tap:t,mac=00:00:00:00:00:00",
		"tap:t,queues=0",
		"tap:t,queues=9",
		"tap:t,queues=x",
		"tap:t,speed=1",
		"averylongkind:t",
		"tap:a-name-of-more-than-thirty-one-characters",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_refused(bad[i]);
}

static void test_generated_mac(void **state)
{
	uint8_t a[NET_MAC_BYTES];
	uint8_t b[NET_MAC_BYTES];
	uint8_t again[NET_MAC_BYTES];

	(void)state;
	net_mac_generate("tap0", a);
	net_mac_generate("tap1", b);
	net_mac_generate("tap0", again);
	assert_memory_equal(a, again, sizeof(a));
	assert_memory_not_equal(a, b, sizeof(a));
	assert_memory_equal(a, "\x52\x54\x00", 3);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_generated_mac),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
