#include <string.h>

#include "tests/unit/cmocka_all.h"
#include "vmm/base/fault.h"

static void test_null_never_fires(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(fault_point(NULL, "anywhere", &e), 0);
}

static void test_nth_fires_once(void **state)
{
	struct err e = ERR_INIT;
	struct fault *f;

	(void)state;
	assert_int_equal(fault_new(&f, &e), 0);
	fault_arm(f, 2);
	assert_int_equal(fault_point(f, "a", &e), 0);
	assert_true(fault_point(f, "b", &e) < 0);
	assert_int_equal(e.kind, ERR_INJECTED);
	assert_string_equal(fault_fired(f), "b");
	assert_int_equal(fault_point(f, "c", &e), 0);
	assert_int_equal(fault_passed(f), 3);
	fault_free(f);
}

static void test_by_name(void **state)
{
	struct err e = ERR_INIT;
	struct fault *f;

	(void)state;
	assert_int_equal(fault_new(&f, &e), 0);
	fault_arm_name(f, "src.send");
	assert_int_equal(fault_point(f, "src.track", &e), 0);
	assert_null(fault_fired(f));
	assert_true(fault_point(f, "src.send", &e) < 0);
	assert_int_equal(fault_point(f, "src.send", &e), 0);
	fault_free(f);
}

static void test_counting_without_firing(void **state)
{
	struct err e = ERR_INIT;
	struct fault *f;

	(void)state;
	assert_int_equal(fault_new(&f, &e), 0);
	fault_arm(f, 0);
	for (int i = 0; i < 7; i++)
		assert_int_equal(fault_point(f, "x", &e), 0);
	assert_int_equal(fault_passed(f), 7);
	assert_null(fault_fired(f));
	fault_arm(f, 1);
	assert_int_equal(fault_passed(f), 0);
	fault_free(f);
	fault_free(NULL);
}

static void remember(void *ctx, const char *name)
{
	strcat(ctx, name);
}

static void test_an_observer_sees_every_point_also_the_one_that_fails(void **state)
{
	struct err e = ERR_INIT;
	char seen[8] = "";
	struct fault *f;

	(void)state;
	assert_int_equal(fault_new(&f, &e), 0);
	fault_observe(f, remember, seen);
	fault_arm(f, 2);
	assert_int_equal(fault_point(f, "a", &e), 0);
	assert_true(fault_point(f, "b", &e) < 0);
	assert_int_equal(fault_point(f, "c", &e), 0);
	assert_string_equal(seen, "abc");
	fault_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_null_never_fires),
		cmocka_unit_test(test_nth_fires_once),
		cmocka_unit_test(test_by_name),
		cmocka_unit_test(test_counting_without_firing),
		cmocka_unit_test(test_an_observer_sees_every_point_also_the_one_that_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
