#include <stdlib.h>
#include <string.h>

#include "control/numbered.h"
#include "tests/unit/cmocka_all.h"

static void expect(const char *pattern, uint32_t number, bool has_number, const char *text)
{
	struct err e = ERR_INIT;
	bool found = !has_number;
	char *made;

	assert_int_equal(numbered_check(pattern, &found, &e), 0);
	assert_int_equal(found, has_number);
	made = numbered_text(pattern, number);
	assert_string_equal(made, text);
	free(made);
}

static void test_numbers_take_their_places(void **state)
{
	(void)state;
	expect("unix:/run/vm-%n.qmp", 3, true, "unix:/run/vm-3.qmp");
	expect("%n%n", 12, true, "1212");
	expect("", 1, false, "");
	expect("/no/number", 1, false, "/no/number");
	expect("100%%", 1, false, "100%");
	expect("%%n", 7, false, "%n");
	expect("%%%n", 7, true, "%7");
}

static void test_others_are_refused(void **state)
{
	static const char *const wrong[] = {"%", "a%", "%d", "%n%", "%%%", "%N"};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct err e = ERR_INIT;
		bool found;

		assert_true(numbered_check(wrong[i], &found, &e) < 0);
		assert_int_equal(e.kind, ERR_USAGE);
		assert_non_null(strstr(e.msg, wrong[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers_take_their_places),
		cmocka_unit_test(test_others_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
