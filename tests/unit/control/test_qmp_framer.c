/* Cutting a byte stream into QMP messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "control/qmp_framer.h"

struct seen {
	char text[16][128];
	size_t nr;
	size_t nr_too_long;
};

static bool on_message(void *ctx, const char *text, size_t len)
{
	struct seen *s = ctx;

	if (!text) {
		s->nr_too_long++;
		return true;
	}
	assert_true(s->nr < 16 && len < 128);
	memcpy(s->text[s->nr], text, len);
	s->text[s->nr++][len] = '\0';
	return true;
}

/* Feed @bytes in pieces of @step. */
static struct seen feed(const char *bytes, size_t step)
{
	struct qmp_framer f;
	struct seen seen = {.nr = 0};
	struct err e = ERR_INIT;
	size_t len = strlen(bytes);

	qmp_framer_init(&f);
	for (size_t at = 0; at < len; at += step)
		assert_int_equal(qmp_framer_feed(&f, bytes + at, len - at < step ? len - at : step,
						 on_message, &seen, &e),
				 0);
	qmp_framer_fini(&f);
	return seen;
}

static void test_every_way_to_end_a_message(void **state)
{
	static const char stream[] = "{\"a\":1}\n{\"b\":\"}\\\"{\"}\r\n{\"c\":[{}]}{\"d\":\n4}";

	(void)state;
	for (size_t step = 1; step < 50; step++) {
		struct seen s = feed(stream, step);

		assert_int_equal(s.nr, 4);
		assert_string_equal(s.text[0], "{\"a\":1}");
		assert_string_equal(s.text[1], "{\"b\":\"}\\\"{\"}");
		assert_string_equal(s.text[2], "{\"c\":[{}]}");
		assert_string_equal(s.text[3], "{\"d\":\n4}");
	}
}

static void test_garbage_ends_with_its_line(void **state)
{
	struct seen s = feed("hello\n\n  \r\n}\n{\"x\": \"broken\n{\"ok\":1}\n", 3);

	(void)state;
	assert_int_equal(s.nr, 4);
	assert_string_equal(s.text[0], "hello\n");
	assert_string_equal(s.text[1], "}");
	assert_string_equal(s.text[2], "{\"x\": \"broken\n");
	assert_string_equal(s.text[3], "{\"ok\":1}");
}

static void test_reset_byte(void **state)
{
	struct seen s = feed("{\"x\":[\xff{\"ok\":1}", 1);

	(void)state;
	assert_int_equal(s.nr, 2);
	assert_string_equal(s.text[1], "{\"ok\":1}");
}

static void test_bounds(void **state)
{
	size_t len = QMP_MAX_MESSAGE + 1000;
	char *big = malloc(len + 20);
	struct qmp_framer f;
	struct seen s = {.nr = 0};
	struct err e = ERR_INIT;

	(void)state;
	memset(big, 'x', len);
	memcpy(big, "{\"", 2);
	memcpy(big + len, "\"}{\"ok\":1}", 10);
	qmp_framer_init(&f);
	assert_int_equal(qmp_framer_feed(&f, big, len + 10, on_message, &s, &e), 0);
	assert_int_equal(s.nr_too_long, 1);
	assert_int_equal(s.nr, 1);
	assert_true(f.message.cap <= 2 * QMP_MAX_MESSAGE);
	qmp_framer_fini(&f);
	free(big);
}

static bool stop_at_first(void *ctx, const char *text, size_t len)
{
	(void)text;
	(void)len;
	++*(unsigned int *)ctx;
	return false;
}

static void test_stops_when_told(void **state)
{
	struct qmp_framer f;
	unsigned int nr = 0;
	struct err e = ERR_INIT;

	(void)state;
	qmp_framer_init(&f);
	assert_int_equal(qmp_framer_feed(&f, "{}{}{}", 6, stop_at_first, &nr, &e), 0);
	assert_int_equal(nr, 1);
	qmp_framer_fini(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_way_to_end_a_message),
		cmocka_unit_test(test_garbage_ends_with_its_line),
		cmocka_unit_test(test_reset_byte),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_stops_when_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
