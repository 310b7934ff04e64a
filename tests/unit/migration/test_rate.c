#include <stdlib.h>
#include <sys/resource.h>

#include "migration/rate.h"
#include "tests/unit/cmocka_all.h"
#include "vmm/base/clock.h"

struct fixture {
	struct cancel *cancel;
	struct rate_limit *limit;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err e = ERR_INIT;

	*state = f;
	return cancel_new(&f->cancel, &e) < 0 ||
	       rate_limit_new(10u << 20, f->cancel, &f->limit, &e) < 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rate_limit_free(f->limit);
	cancel_free(f->cancel);
	free(f);
	return 0;
}

static uint64_t take_ns(struct fixture *f, uint64_t bytes, int times)
{
	uint64_t start = clock_now_ns();
	struct err e = ERR_INIT;

	for (int i = 0; i < times; i++)
		assert_int_equal(rate_limit_take(f->limit, bytes, &e), 0);
	return clock_now_ns() - start;
}

/* Slower than that is a machine that stands still; which it does not do each time. */
static void test_holds_the_rate(void **state)
{
	uint64_t end = clock_now_ns() + 60 * NS_PER_S;
	uint64_t ns;

	do {
		/* 2 MiB at 10 MiB/s are 200 ms, less 20 ms of burst and one piece that is paid
		 * later. */
		ns = take_ns(*state, 64u << 10, 32);
		assert_true(ns > 165 * NS_PER_MS);
	} while (ns >= 2000 * NS_PER_MS && clock_now_ns() < end);
	assert_true(ns < 2000 * NS_PER_MS);
}

static long nr_sleeps(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_THREAD, &usage), 0);
	return usage.ru_nvcsw;
}

static void test_zero_is_no_limit(void **state)
{
	struct fixture *f = *state;
	long before;

	rate_limit_set(f->limit, 0);
	before = nr_sleeps();
	take_ns(f, 1ull << 40, 1000);
	assert_true(nr_sleeps() - before < 100); /* for memory, say */
}

static void test_cancel_ends_the_wait(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;

	cancel_request(f->cancel);
	/* What is taken first is paid for by what comes next. */
	(void)rate_limit_take(f->limit, 1ull << 40, &e);
	assert_true(rate_limit_take(f->limit, 1, &e) < 0);
	assert_int_equal(e.kind, ERR_CANCELLED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_holds_the_rate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_zero_is_no_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel_ends_the_wait, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
