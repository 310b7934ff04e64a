#include <stdlib.h>
#include <string.h>

#include "tests/unit/cmocka_all.h"
#include "vmm/base/bitmap.h"

#define NR_BITS 331 /* no multiple of 64 on purpose */

static int setup(void **state)
{
	struct err e = ERR_INIT;
	struct bitmap *b = malloc(sizeof(*b));

	*state = b;
	return bitmap_init(b, NR_BITS, &e);
}

static int teardown(void **state)
{
	bitmap_fini(*state);
	free(*state);
	return 0;
}

/* The same operations on a plain array: the oracle. */
static void set_oracle(bool *oracle, uint64_t first, uint64_t nr, bool value)
{
	for (uint64_t i = first; i < first + nr; i++)
		oracle[i] = value;
}

static void expect_equal(const struct bitmap *b, const bool *oracle)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < NR_BITS; i++) {
		assert_int_equal(bitmap_test(b, i), oracle[i]);
		count += oracle[i];
	}
	assert_int_equal(bitmap_count(b), count);
}

static void test_ranges_against_an_oracle(void **state)
{
	struct bitmap *b = *state;
	bool oracle[NR_BITS] = {false};

	srand(1);
	for (int i = 0; i < 2000; i++) {
		uint64_t first = (uint64_t)rand() % NR_BITS;
		uint64_t nr = (uint64_t)rand() % (NR_BITS - first + 1);
		bool value = rand() % 2;

		if (value)
			bitmap_set_range(b, first, nr);
		else
			bitmap_clear_range(b, first, nr);
		set_oracle(oracle, first, nr, value);
		if (i % 50 == 0)
			expect_equal(b, oracle);
	}
	expect_equal(b, oracle);
}

static void test_runs_cover_exactly_the_set_bits(void **state)
{
	struct bitmap *b = *state;
	bool seen[NR_BITS] = {false};
	struct bitmap_run run;

	srand(2);
	for (int i = 0; i < 100; i++)
		bitmap_set(b, (uint64_t)rand() % NR_BITS);
	bitmap_for_each_run (b, &run, 0, NR_BITS) {
		assert_true(run.nr > 0);
		assert_true(run.first == 0 || !bitmap_test(b, run.first - 1));
		set_oracle(seen, run.first, run.nr, true);
	}
	expect_equal(b, seen);
}

static void test_runs_are_cut_at_the_end(void **state)
{
	struct bitmap *b = *state;
	struct bitmap_run run;

	bitmap_set_range(b, 60, 10);
	assert_true(bitmap_next_run(b, 62, 66, &run));
	assert_int_equal(run.first, 62);
	assert_int_equal(run.nr, 4);
	assert_false(bitmap_next_run(b, 70, NR_BITS, &run));
	assert_false(bitmap_next_run(b, 0, 60, &run));
	bitmap_set(b, NR_BITS - 1);
	assert_true(bitmap_next_run(b, 100, UINT64_MAX, &run));
	assert_int_equal(run.first, NR_BITS - 1);
	assert_int_equal(run.nr, 1);
}

static void test_take_word_empties(void **state)
{
	struct bitmap *b = *state;

	bitmap_set_atomic(b, 64);
	bitmap_set_atomic(b, 127);
	assert_true(bitmap_take_word(b, 1) == (1ull | 1ull << 63));
	assert_true(bitmap_take_word(b, 1) == 0);
	bitmap_set_range(b, 0, NR_BITS);
	bitmap_zero(b);
	assert_int_equal(bitmap_count(b), 0);
}

static void test_empty_bitmap(void **state)
{
	struct err e = ERR_INIT;
	struct bitmap_run run;
	struct bitmap none;

	(void)state;
	assert_int_equal(bitmap_init(&none, 0, &e), 0);
	assert_int_equal(bitmap_count(&none), 0);
	assert_false(bitmap_next_run(&none, 0, 64, &run));
	bitmap_fini(&none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ranges_against_an_oracle, setup, teardown),
		cmocka_unit_test_setup_teardown(test_runs_cover_exactly_the_set_bits, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_runs_are_cut_at_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_take_word_empties, setup, teardown),
		cmocka_unit_test(test_empty_bitmap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
