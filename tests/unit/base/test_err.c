#include <errno.h>
#include <string.h>

#include "tests/unit/cmocka_all.h"
#include "vmm/base/err.h"

static void test_set_fills_everything_and_returns_minus_code(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(err_set(&e, ERR_PEER, ECONNRESET, "channel %d", 3), -ECONNRESET);
	assert_int_equal(e.kind, ERR_PEER);
	assert_int_equal(e.code, ECONNRESET);
	assert_string_equal(e.msg, "channel 3");
	assert_non_null(strstr(e.file, "test_err.c"));
	assert_true(e.line > 0);
}

static void test_code_zero_is_still_an_error(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(err_set(&e, ERR_SYS, 0, "odd"), -EIO);
}

static void test_sys_appends_errno_text(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	errno = ENOENT;
	assert_int_equal(err_sys(&e, "open %s", "x"), -ENOENT);
	assert_int_equal(e.kind, ERR_SYS);
	assert_string_equal(e.msg, "open x: No such file or directory");
}

static void test_prefix_goes_in_front_and_keeps_the_rest(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	err_set(&e, ERR_STREAM, EPROTO, "bad magic");
	assert_int_equal(err_prefix(&e, "channel %u", 1), -EPROTO);
	assert_int_equal(err_prefix(&e, "round %u", 3), -EPROTO);
	assert_string_equal(e.msg, "round 3: channel 1: bad magic");
	assert_int_equal(e.kind, ERR_STREAM);
}

static void test_prefix_never_hides_the_cause(void **state)
{
	char longest[ERR_MSG_BYTES];
	struct err e = ERR_INIT;

	(void)state;
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	err_set(&e, ERR_SYS, ENOMEM, "the cause");
	err_prefix(&e, "%s", longest);
	assert_non_null(strstr(e.msg, ": the cause"));
}

static void test_clear_and_names(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	err_set(&e, ERR_USAGE, EINVAL, "no");
	err_clear(&e);
	assert_int_equal(e.kind, ERR_NONE);
	assert_string_equal(err_kind_name(ERR_CANCELLED), "cancelled");
	assert_string_equal(err_kind_name((enum err_kind)99), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_fills_everything_and_returns_minus_code),
		cmocka_unit_test(test_code_zero_is_still_an_error),
		cmocka_unit_test(test_sys_appends_errno_text),
		cmocka_unit_test(test_prefix_goes_in_front_and_keeps_the_rest),
		cmocka_unit_test(test_prefix_never_hides_the_cause),
		cmocka_unit_test(test_clear_and_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
