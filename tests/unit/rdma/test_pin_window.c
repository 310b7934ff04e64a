/* The window's bookkeeping: never above the budget, the longest unused goes first, what is in use
 * stays. */
#include "migration/rdma/pin_window.h"
#include "proto/batch.h"
#include "tests/unit/cmocka_all.h"

#define CHUNK_BYTES (CHUNK_PAGES * (uint64_t)BATCH_PAGE_BYTES)

static struct pin_window *window(uint64_t chunks, uint32_t max_regions)
{
	struct pin_window *w;
	struct err e = ERR_INIT;

	assert_int_equal(pin_window_new(chunks * CHUNK_BYTES, max_regions, &w, &e), 0);
	return w;
}

static struct pin_region *add(struct pin_window *w, uint64_t gfn, uint32_t nr)
{
	struct pin_region *r;
	struct err e = ERR_INIT;

	assert_true(pin_window_fits(w, nr));
	assert_int_equal(pin_window_add(w, gfn, nr, &r, &e), 0);
	return r;
}

static void test_budget(void **state)
{
	struct pin_window *w = window(2, 100);
	struct pin_region *first = add(w, 0, CHUNK_PAGES);

	(void)state;
	add(w, CHUNK_PAGES, CHUNK_PAGES - 1);
	assert_true(pin_window_fits(w, 1));
	assert_false(pin_window_fits(w, 2));
	assert_int_equal(pin_window_bytes(w), 2 * CHUNK_BYTES - BATCH_PAGE_BYTES);
	pin_window_remove(w, first);
	assert_true(pin_window_fits(w, CHUNK_PAGES + 1));
	pin_window_shrink(w, CHUNK_BYTES / 2);
	assert_false(pin_window_fits(w, 1));
	pin_window_shrink(w, 100 * CHUNK_BYTES); /* only ever down */
	assert_int_equal(pin_window_budget(w), CHUNK_BYTES / 2);
	pin_window_free(w);
}

static void test_number_of_regions(void **state)
{
	struct pin_window *w = window(1000, 2);

	(void)state;
	add(w, 0, 1);
	add(w, 1, 1);
	assert_false(pin_window_fits(w, 1));
	pin_window_free(w);
}

static void test_find(void **state)
{
	struct pin_window *w = window(100, 100);
	struct pin_region *r = add(w, 1000, 20);
	struct pin_region *other = add(w, 1000 + 4096ull * CHUNK_PAGES, 20); /* same bucket */

	(void)state;
	assert_ptr_equal(pin_window_find(w, 1000, 20), r);
	assert_ptr_equal(pin_window_find(w, 1019, 1), r);
	assert_null(pin_window_find(w, 999, 2));
	assert_null(pin_window_find(w, 1019, 2));
	assert_ptr_equal(pin_window_exact(w, 1000, 20), r);
	assert_null(pin_window_exact(w, 1000, 19));
	assert_ptr_equal(pin_window_idle_in_chunk(w, 520), r); /* 512 to 1023 */
	assert_null(pin_window_idle_in_chunk(w, 1024));
	assert_ptr_equal(pin_window_find(w, other->gfn, 1), other);
	pin_window_use(w, r);
	assert_null(pin_window_idle_in_chunk(w, 520));
	pin_window_free(w);
}

static void test_the_longest_unused_goes_first(void **state)
{
	struct pin_window *w = window(100, 100);
	struct pin_region *a = add(w, 0, 1);
	struct pin_region *b = add(w, 512, 1);
	struct pin_region *c = add(w, 1024, 1);

	(void)state;
	pin_window_use(w, a);
	assert_ptr_equal(pin_window_oldest_idle(w), b);
	pin_window_use(w, b);
	pin_window_use(w, c);
	assert_null(pin_window_oldest_idle(w));
	pin_window_unuse(b);
	pin_window_unuse(a);
	assert_ptr_equal(pin_window_oldest_idle(w), a);
	pin_window_remove(w, a);
	assert_ptr_equal(pin_window_oldest_idle(w), b);
	pin_window_remove(w, b);
	assert_null(pin_window_oldest_idle(w));
	assert_ptr_equal(pin_window_any(w), c);
	pin_window_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_number_of_regions),
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_the_longest_unused_goes_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
