#include <string.h>

#include "migration/digest.h"
#include "tests/unit/cmocka_all.h"

static const struct digest reference = {1, 2, 3, 4, 5, 6, 1};

static void expect(const struct digest *other, const char *complaint)
{
	struct err e = ERR_INIT;
	int ret = digest_compare(&reference, other, &e);

	if (!complaint) {
		assert_int_equal(ret, 0);
		return;
	}
	assert_true(ret < 0);
	assert_int_equal(e.kind, ERR_STATE);
	if (!strstr(e.msg, complaint))
		fail_msg("'%s' does not say '%s'", e.msg, complaint);
}

static void test_compare_names_what_differs(void **state)
{
	const struct digest same = {1, 2, 3, 4, 5, 6, 1};
	const struct digest ram_low = {0, 2, 3, 4, 5, 6, 1};
	const struct digest ram_high = {1, 0, 3, 4, 5, 6, 1};
	const struct digest state_low = {1, 2, 0, 4, 5, 6, 1};
	const struct digest state_high = {1, 2, 3, 0, 5, 6, 1};
	const struct digest disk_low = {1, 2, 3, 4, 0, 6, 1};
	const struct digest disk_high = {1, 2, 3, 4, 5, 0, 1};
	const struct digest both = {0, 2, 3, 0, 5, 6, 1};

	(void)state;
	expect(&same, NULL);
	expect(&ram_low, ": memory at the destination differs");
	expect(&ram_high, ": memory at the destination differs");
	expect(&state_low, ": device state at the destination differs");
	expect(&state_high, ": device state at the destination differs");
	expect(&disk_low, ": disk content at the destination differs");
	expect(&disk_high, ": disk content at the destination differs");
	expect(&both, "memory and device state at the destination differ from");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_compare_names_what_differs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
