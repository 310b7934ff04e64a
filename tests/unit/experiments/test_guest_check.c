/*
 * The host-side checker against a fake guest: two extents around a hole, filled by the page code
 * the guest itself uses, then damaged in every way a migration could.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "experiments/guest/check.h"
#include "experiments/guest/pattern.h"
#include "vmm/guest_report.h"

#define PAGE          PATTERN_PAGE_SIZE
#define LOW_PAGES     1500u
#define HIGH_GPA      (4ull << 30)
#define HIGH_PAGES    700u
#define REPORT_GPA    (16u * PAGE)
#define TABLE_GPA     (32u * PAGE)
#define FILL_GPA      (64u * PAGE)
#define NR_LOW_FILL   (LOW_PAGES - 64u)
#define NR_FILL       (NR_LOW_FILL + HIGH_PAGES)
#define FIRST_VERSION 7u

struct fake_guest {
	uint8_t *low, *high;
	struct guest_report *report;
	uint32_t *table;
	struct pattern pattern;
	struct guest_check_memory mem;
};

static void *fake_at(struct fake_guest *g, uint64_t gpa, uint64_t len)
{
	if (gpa + len <= (uint64_t)LOW_PAGES * PAGE)
		return g->low + gpa;
	if (gpa >= HIGH_GPA && gpa + len <= HIGH_GPA + (uint64_t)HIGH_PAGES * PAGE)
		return g->high + (gpa - HIGH_GPA);
	return NULL;
}

static const void *at(void *ctx, uint64_t gpa, uint64_t len)
{
	return fake_at(ctx, gpa, len);
}

static uint64_t fill_gfn(uint32_t index)
{
	if (index < NR_LOW_FILL)
		return FILL_GPA / PAGE + index;
	return HIGH_GPA / PAGE + index - NR_LOW_FILL;
}

static uint64_t *fill_page(struct fake_guest *g, uint32_t index)
{
	return fake_at(g, fill_gfn(index) * PAGE, PAGE);
}

static void put_page(struct fake_guest *g, uint32_t index, uint32_t version)
{
	pattern_write(&g->pattern, fill_gfn(index), version, fill_page(g, index));
}

static void make_report(struct fake_guest *g)
{
	struct guest_report *r = g->report;

	r->magic = GUEST_REPORT_MAGIC;
	r->abi = GUEST_REPORT_ABI;
	r->nr_cpus = 2;
	r->state = GUEST_STATE_RUNNING;
	r->seed = g->pattern.seed;
	r->compress_percent = g->pattern.compress_percent;
	r->nr_extents = 2;
	r->nr_fill_pages = NR_FILL;
	r->version_table_gpa = TABLE_GPA;
	r->extent[0] = (struct guest_extent){FILL_GPA, NR_LOW_FILL, 0};
	r->extent[1] = (struct guest_extent){HIGH_GPA, HIGH_PAGES, NR_LOW_FILL};
	r->cpu[0].inflight_gfn = r->cpu[1].inflight_gfn = GUEST_NO_GFN;
}

static int setup(void **state)
{
	struct fake_guest *g = calloc(1, sizeof(*g));

	assert_non_null(g);
	g->low = aligned_alloc(PAGE, (size_t)LOW_PAGES * PAGE);
	g->high = aligned_alloc(PAGE, (size_t)HIGH_PAGES * PAGE);
	assert_non_null(g->low);
	assert_non_null(g->high);
	memset(g->low, 0, (size_t)LOW_PAGES * PAGE);
	memset(g->high, 0, (size_t)HIGH_PAGES * PAGE);
	g->report = fake_at(g, REPORT_GPA, sizeof(*g->report));
	g->table = fake_at(g, TABLE_GPA, NR_FILL * sizeof(uint32_t));
	g->pattern = pattern_make(42, 30);
	g->mem = (struct guest_check_memory){at, g};
	make_report(g);
	for (uint32_t i = 0; i < NR_FILL; i++) {
		g->table[i] = FIRST_VERSION + i % 3;
		put_page(g, i, g->table[i]);
	}
	*state = g;
	return 0;
}

static int teardown(void **state)
{
	struct fake_guest *g = *state;

	free(g->low);
	free(g->high);
	free(g);
	return 0;
}

static struct guest_check_result run_check(struct fake_guest *g, int expected)
{
	struct guest_check_result res;

	assert_int_equal(guest_check(&g->mem, REPORT_GPA, &res), expected);
	return res;
}

static void test_sound_guest(void **state)
{
	struct guest_check_result res = run_check(*state, 0);

	assert_int_equal(res.nr_pages, NR_FILL);
	assert_int_equal(res.nr_ok, NR_FILL);
	assert_true(res.first_bad_gfn == UINT64_MAX);
}

static void test_lost_page(void **state)
{
	struct fake_guest *g = *state;
	struct guest_check_result res;

	memset(fill_page(g, NR_LOW_FILL + 3), 0, PAGE);
	memcpy(fill_page(g, NR_LOW_FILL + 9), fill_page(g, 5), PAGE);
	res = run_check(g, -EBADMSG);
	assert_int_equal(res.nr_lost, 2);
	assert_int_equal(res.nr_ok, NR_FILL - 2);
	assert_int_equal(res.first_bad_gfn, fill_gfn(NR_LOW_FILL + 3));
	assert_non_null(strstr(res.message, "all zeroes"));
}

static void test_stale_page(void **state)
{
	struct fake_guest *g = *state;
	struct guest_check_result res;

	put_page(g, 1030, g->table[1030] - 1);
	res = run_check(g, -EBADMSG);
	assert_int_equal(res.nr_stale, 1);
	assert_int_equal(res.first_bad_gfn, fill_gfn(1030));
	assert_non_null(strstr(res.message, "stale"));
}

static void test_stale_version_table(void **state)
{
	struct fake_guest *g = *state;
	struct guest_check_result res;

	g->table[2]--;
	res = run_check(g, -EBADMSG);
	assert_int_equal(res.nr_stale, 1);
	assert_non_null(strstr(res.message, "table's page is stale"));
}

/* Any single flipped bit, in header, random body or filler, is noticed. */
static void test_torn_page(void **state)
{
	static const unsigned int words[] = {PATTERN_W_CHECK, PATTERN_HEADER_WORDS, 200, 511};
	struct fake_guest *g = *state;

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		uint64_t *page = fill_page(g, 700);

		page[words[i]] ^= 1ull << (words[i] % 64);
		assert_int_equal(run_check(g, -EBADMSG).nr_torn, 1);
		put_page(g, 700, g->table[700]);
	}
	memcpy(fill_page(g, 701) + 256, fill_page(g, 702) + 256, PAGE / 2);
	assert_non_null(strstr(run_check(g, -EBADMSG).message, "torn"));
}

/* New words up to `split`, old ones from there: as a vCPU paused in the middle leaves it. */
static void put_split_page(struct fake_guest *g, uint32_t index, uint32_t old, unsigned int split)
{
	uint64_t gfn = fill_gfn(index), *page = fill_page(g, index);

	for (unsigned int i = 0; i < PATTERN_PAGE_WORDS; i++)
		page[i] = pattern_word(&g->pattern, gfn, i < split ? old + 1 : old, i);
}

static void test_page_in_flight(void **state)
{
	static const unsigned int splits[] = {0, 1, 5, 300, 511, 512};
	struct fake_guest *g = *state;
	uint32_t old = g->table[20];

	g->report->cpu[1].inflight_gfn = fill_gfn(20);
	g->report->cpu[1].inflight_version = old + 1;
	for (size_t i = 0; i < sizeof(splits) / sizeof(splits[0]); i++) {
		put_split_page(g, 20, old, splits[i]);
		assert_int_equal(run_check(g, 0).nr_in_flight, 1);
	}
	g->table[20] = old + 1;
	assert_int_equal(run_check(g, 0).nr_in_flight, 1);
}

/* The same page without a vCPU that admits to it, or split the wrong way round, is torn. */
static void test_torn_although_in_flight(void **state)
{
	struct fake_guest *g = *state;
	uint32_t old = g->table[20];

	put_split_page(g, 20, old, 300);
	assert_int_equal(run_check(g, -EBADMSG).nr_torn, 1);
	g->report->cpu[0].inflight_gfn = fill_gfn(20);
	g->report->cpu[0].inflight_version = old + 1;
	fill_page(g, 20)[100] = pattern_word(&g->pattern, fill_gfn(20), old, 100);
	assert_int_equal(run_check(g, -EBADMSG).nr_torn, 1);
}

static void test_guest_still_filling(void **state)
{
	struct fake_guest *g = *state;
	struct guest_check_result res;

	g->report->state = GUEST_STATE_FILLING;
	for (uint32_t i = 100; i < 200; i++) {
		g->table[i] = 0;
		memset(fill_page(g, i), 0, PAGE);
	}
	fill_page(g, 100)[0] = PATTERN_MAGIC;
	g->report->cpu[0].inflight_gfn = fill_gfn(100);
	g->report->cpu[0].inflight_version = 1;
	res = run_check(g, 0);
	assert_int_equal(res.nr_in_flight, 1);
	assert_int_equal(res.nr_unfilled, 99);
}

/* A report that lies must be refused, not followed. */
static void test_damaged_report(void **state)
{
	struct fake_guest *g = *state;
	struct guest_report good = *g->report;
	struct guest_check_result res;

	g->report->abi++;
	run_check(g, -EINVAL);
	*g->report = good;
	g->report->nr_cpus = GUEST_REPORT_MAX_CPUS + 1;
	run_check(g, -EINVAL);
	*g->report = good;
	g->report->nr_extents = GUEST_REPORT_MAX_EXTENTS + 1;
	run_check(g, -EINVAL);
	*g->report = good;
	g->report->extent[1].first_index++;
	run_check(g, -EINVAL);
	*g->report = good;
	g->report->extent[1].nr_pages++;
	run_check(g, -EFAULT);
	*g->report = good;
	g->report->version_table_gpa = HIGH_GPA / 2;
	run_check(g, -EFAULT);
	*g->report = good;
	g->report->state = GUEST_STATE_BOOTING;
	run_check(g, -EAGAIN);
	assert_int_equal(guest_check(&g->mem, HIGH_GPA / 2, &res), -EFAULT);
	assert_non_null(strstr(res.message, "not in guest memory"));
}

static void test_gap_buckets(void **state)
{
	(void)state;
	for (unsigned int b = 0; b < GUEST_REPORT_NR_BUCKETS; b++) {
		uint64_t floor = guest_gap_bucket_floor_ns(b);

		assert_int_equal(guest_gap_bucket(floor), b);
		if (b > 0)
			assert_int_equal(guest_gap_bucket(floor - 1), b - 1);
	}
	assert_int_equal(guest_gap_bucket(UINT64_MAX), GUEST_REPORT_NR_BUCKETS - 1);
}

static void test_compressibility(void **state)
{
	(void)state;
	assert_int_equal(pattern_make(1, 0).nr_random_words, PATTERN_PAGE_WORDS);
	assert_int_equal(pattern_make(1, 100).nr_random_words, PATTERN_HEADER_WORDS);
	assert_int_equal(pattern_make(1, 50).nr_random_words, PATTERN_PAGE_WORDS - 253);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sound_guest, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_page, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale_page, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale_version_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_torn_page, setup, teardown),
		cmocka_unit_test_setup_teardown(test_page_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_torn_although_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_guest_still_filling, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_report, setup, teardown),
		cmocka_unit_test(test_gap_buckets),
		cmocka_unit_test(test_compressibility),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
