/* RLIMIT_MEMLOCK and the user's wish: the smaller, or an error that says what to set. */
#include <string.h>

#include "migration/rdma/pin_limit.h"
#include "tests/unit/cmocka_all.h"

#define MIB (1ull << 20)

static void expect(struct pin_limit limit, uint64_t want, uint64_t budget, bool shrunk)
{
	struct err e = ERR_INIT;
	uint64_t got;
	bool less;

	assert_int_equal(pin_limit_apply(&limit, want, 1, &got, &less, &e), 0);
	assert_int_equal(got, budget);
	assert_int_equal(less, shrunk);
}

static void test_within_the_limit(void **state)
{
	struct pin_limit free_hand = {.unlimited = true, .limit_bytes = 64 << 10};
	struct pin_limit gib = {.limit_bytes = 1024 * MIB};

	(void)state;
	expect(free_hand, 1024 * MIB, 1024 * MIB, false);
	expect(free_hand, PIN_ALL, PIN_ALL, false);
	expect(gib, 100 * MIB, 100 * MIB, false);
}

static void test_shrinks(void **state)
{
	struct pin_limit gib = {.limit_bytes = 1024 * MIB};
	struct pin_limit busy = {.limit_bytes = 1024 * MIB, .pinned_bytes = 1000 * MIB};

	(void)state;
	expect(gib, PIN_ALL, 1023 * MIB, true); /* 1 MiB is kept for queues */
	expect(busy, 100 * MIB, 23 * MIB, true);
}

static void test_says_what_to_set(void **state)
{
	struct pin_limit debian = {.limit_bytes = 8 * MIB};
	struct err e = ERR_INIT;
	uint64_t budget;
	bool shrunk;

	(void)state;
	assert_int_equal(pin_limit_apply(&debian, 64 * MIB, 1, &budget, &shrunk, &e), 0);
	assert_true(pin_limit_apply(&debian, 64 * MIB, 2, &budget, &shrunk, &e) < 0);
	assert_non_null(strstr(e.msg, "may pin 8192 KiB (RLIMIT_MEMLOCK)"));
	assert_non_null(strstr(e.msg, "2 channels need 8192"));
	assert_non_null(strstr(e.msg, "'ulimit -l 66560'"));
	assert_non_null(strstr(e.msg, "LimitMEMLOCK=infinity"));
}

static void test_probe(void **state)
{
	struct pin_limit limit;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(pin_limit_probe(&limit, &e), 0);
	assert_int_equal(limit.pinned_bytes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_within_the_limit),
		cmocka_unit_test(test_shrinks),
		cmocka_unit_test(test_says_what_to_set),
		cmocka_unit_test(test_probe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
