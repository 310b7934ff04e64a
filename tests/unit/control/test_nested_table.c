/* control/nested_table.c: L1's lines become a table, and nothing else does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control/nested_bench.h"

static const char serial[] = "l1: noise\n"
			     "bench begin tsc_khz=1 npt=1\nbench kind=cpuid level=1 n=1 cycles=5\n"
			     "bench end\n"
			     "bench begin tsc_khz=2500000 npt=1\n"
			     "bench kind=cpuid level=1 n=10 cycles=100 exits_milli=1005\n"
			     "bench kind=cpuid level=2 n=10 cycles=900 exits_milli=8000\r\n"
			     "bench kind=mmio level=1 n=10 cycles=7\n"
			     "bench kind=bad level=9 n=1 cycles=1\n"
			     "bench end\nafterwards\n";

static void the_last_table_counts(void **state)
{
	struct bench_run r = {.name = "x"};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(bench_parse(serial, &r, &e), 0);
	assert_int_equal(r.tsc_khz, 2500000);
	assert_int_equal(r.nr_kinds, 2);
	assert_string_equal(r.kind[0].name, "cpuid");
	assert_int_equal(r.kind[0].level[0].cycles, 100);
	assert_int_equal(r.kind[0].level[1].cycles, 900);
	assert_true(r.kind[0].level[1].counted && r.kind[0].level[1].exits == 8.0);
	assert_false(r.kind[1].level[0].counted);
	assert_false(r.kind[1].level[1].measured);
}

static void half_a_table_is_refused(void **state)
{
	struct bench_run r = {.name = "x"};
	struct err e = ERR_INIT;

	(void)state;
	assert_true(bench_parse("bench begin tsc_khz=1\nbench kind=cpuid level=1 cycles=1\n", &r,
				&e) < 0);
	assert_true(bench_parse("bench end\n", &r, &e) < 0);
}

static void too_many_kinds_are_dropped(void **state)
{
	struct bench_run r = {.name = "x"};
	struct err e = ERR_INIT;
	char text[4096] = "bench begin\n";

	(void)state;
	for (int i = 0; i < 40; i++)
		sprintf(text + strlen(text), "bench kind=k%d level=1 cycles=1\n", i);
	strcat(text, "bench end\n");
	assert_int_equal(bench_parse(text, &r, &e), 0);
	assert_int_equal(r.nr_kinds, BENCH_MAX_KINDS);
}

static void ratio_and_dashes_are_printed(void **state)
{
	struct bench_run r = {.name = "x"};
	struct err e = ERR_INIT;
	char *text;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	assert_int_equal(bench_parse(serial, &r, &e), 0);
	bench_print_text(out, &r, 1);
	fclose(out);
	assert_non_null(strstr(text, "9.0    1.00    8.00"));
	assert_non_null(strstr(text, "7            -        -       -       -"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_last_table_counts),
		cmocka_unit_test(half_a_table_is_refused),
		cmocka_unit_test(too_many_kinds_are_dropped),
		cmocka_unit_test(ratio_and_dashes_are_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
