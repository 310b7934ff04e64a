#include <string.h>

#include "tests/unit/cmocka_all.h"
#include "vmm/base/buf.h"

static void test_append_grows_and_keeps(void **state)
{
	struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	uint8_t chunk[1000];

	(void)state;
	for (uint8_t i = 0; i < 20; i++) {
		memset(chunk, i, sizeof(chunk));
		assert_int_equal(buf_append(&b, chunk, sizeof(chunk), &e), 0);
	}
	assert_int_equal(b.len, 20000);
	for (size_t i = 0; i < b.len; i++)
		assert_int_equal(b.data[i], i / 1000);
	buf_reset(&b);
	assert_int_equal(b.len, 0);
	assert_int_equal(buf_append(&b, NULL, 5, &e), 0);
	assert_memory_equal(b.data, "\0\0\0\0\0", 5);
	buf_fini(&b);
	assert_null(b.data);
}

static void test_nothing_appended_to_nothing(void **state)
{
	struct buf b = BUF_INIT;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(buf_append(&b, "", 0, &e), 0);
	assert_int_equal(buf_append(&b, NULL, 0, &e), 0);
	assert_int_equal(b.len, 0);
	buf_fini(&b);
}

static void test_growth_is_bounded(void **state)
{
	struct buf b = BUF_INIT;
	struct err e = ERR_INIT;

	(void)state;
	assert_true(buf_reserve(&b, (size_t)BUF_MAX_BYTES + 1, &e) < 0);
	assert_int_equal(e.kind, ERR_STREAM);
	assert_true(buf_reserve(&b, SIZE_MAX, &e) < 0);
	assert_int_equal(buf_append(&b, "x", 1, &e), 0);
	assert_true(buf_reserve(&b, BUF_MAX_BYTES, &e) < 0);
	assert_int_equal(b.len, 1);
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_append_grows_and_keeps),
		cmocka_unit_test(test_nothing_appended_to_nothing),
		cmocka_unit_test(test_growth_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
