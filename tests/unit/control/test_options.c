/* Option tables: kinds, errors with suggestions, positionals, help. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "control/options.h"
#include "control/suggest.h"

struct target {
	const char *name;
	bool flag;
	uint64_t bytes, ns, rate, count;
	struct option_list list;
};

#define AT(member) offsetof(struct target, member)

static const struct option_spec specs[] = {
	{"name", "TEXT", "a string", OPTION_STRING, AT(name), 0, 0},
	{"flag", NULL, "a flag", OPTION_FLAG, AT(flag), 0, 0},
	{"memory", "SIZE", "bytes", OPTION_BYTES, AT(bytes), 0, 0},
	{"downtime", "TIME", "a time", OPTION_NS, AT(ns), 0, 0},
	{"bandwidth", "RATE", "a rate", OPTION_RATE, AT(rate), 0, 0},
	{"cpus", "N", "a count", OPTION_COUNT, AT(count), 1, 64},
	{"disk", "FILE", "one of several", OPTION_LIST, AT(list), 0, 0},
};

static const char *const positional[] = {"FROM", "TO", NULL};

static const struct syntax syntax = {
	.command = "test",
	.synopsis = "FROM TO",
	.about = "Tests.",
	.options = specs,
	.nr_options = sizeof(specs) / sizeof(specs[0]),
	.positional = positional,
};

static struct target target;
static struct positionals words;
static struct err e;

#define PARSE(...) parse((char *[]){"test", __VA_ARGS__, NULL})

static enum options_result parse(char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	memset(&target, 0, sizeof(target));
	err_clear(&e);
	return options_parse(&syntax, argc, argv, &target, &words, &e);
}

static void test_all_kinds(void **state)
{
	(void)state;
	assert_int_equal(PARSE("a", "--name", "x y", "--flag", "--memory=4G", "--downtime", "30ms",
			       "--bandwidth", "10Gbps", "--cpus=64", "b"),
			 OPTIONS_OK);
	assert_string_equal(target.name, "x y");
	assert_true(target.flag);
	assert_int_equal(target.bytes, 4ull << 30);
	assert_int_equal(target.ns, 30000000);
	assert_int_equal(target.rate, 1250000000);
	assert_int_equal(target.count, 64);
	assert_int_equal(words.nr, 2);
	assert_string_equal(words.at[0], "a");
	assert_string_equal(words.at[1], "b");
}

static void test_list(void **state)
{
	(void)state;
	assert_int_equal(PARSE("a", "b", "--disk", "x", "--flag", "--disk=y"), OPTIONS_OK);
	assert_int_equal(target.list.nr, 2);
	assert_string_equal(target.list.at[0], "x");
	assert_string_equal(target.list.at[1], "y");
}

static void expect_error(enum options_result result, const char *text)
{
	assert_int_equal(result, OPTIONS_ERROR);
	assert_int_equal(e.kind, ERR_USAGE);
	if (!strstr(e.msg, text))
		fail_msg("'%s' does not say '%s'", e.msg, text);
}

static void test_errors(void **state)
{
	(void)state;
	expect_error(PARSE("a", "b", "--memroy", "4G"), "did you mean --memory?");
	expect_error(PARSE("a", "b", "--qqqqqqqq"), "see 'godwit test --help'");
	expect_error(PARSE("a", "b", "--flag=1"), "--flag takes no value");
	expect_error(PARSE("a", "b", "--memory"), "--memory needs a value: --memory SIZE");
	expect_error(PARSE("a", "b", "--memory", "4X"), "--memory: '4X' is not a size");
	expect_error(PARSE("a", "b", "--cpus", "65"), "--cpus: '65' is not a number from 1 to 64");
	expect_error(PARSE("a", "b", "-x"), "unknown option '-x'");
	expect_error(PARSE("a"), "TO is missing: godwit test FROM TO");
	expect_error(PARSE("a", "b", "c"), "unexpected 'c'");
}

static void test_help_wins_and_dashes_end_options(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--nonsense", "--help"), OPTIONS_HELP);
	assert_int_equal(PARSE("a", "-h"), OPTIONS_HELP);
	assert_int_equal(PARSE("a", "--", "--help"), OPTIONS_OK);
	assert_string_equal(words.at[1], "--help");
	assert_int_equal(PARSE("-", "b"), OPTIONS_OK);
}

static void test_suggestions(void **state)
{
	static const char *const names[] = {"run", "receive", "migrate"};

	(void)state;
	assert_int_equal(suggest_distance("run", "run"), 0);
	assert_int_equal(suggest_distance("run", "rum"), 1);
	assert_int_equal(suggest_distance("migrate", "imgrate"), 1);
	assert_int_equal(suggest_distance("", "abc"), 3);
	assert_string_equal(suggest_name("recieve", names, 3, sizeof(names[0])), "receive");
	assert_null(suggest_name("zzzz", names, 3, sizeof(names[0])));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_kinds),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_help_wins_and_dashes_end_options),
		cmocka_unit_test(test_suggestions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
