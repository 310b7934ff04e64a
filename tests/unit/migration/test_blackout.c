/* migration/blackout.c: which of a guest's gaps is the switch-over, and when there will be none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "migration/blackout.h"

#define KHZ        1000000ull /* a cycle is a nanosecond */
#define MS         1000000ull
#define NOTED_FROM (1 * MS)
#define PAUSE      100 * MS /* when the guest was paused, by its TSC */

struct fixture {
	struct guest_report *report;
	struct blackout_view view;
	struct blackout_mark mark;
};

static int begin(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->report = calloc(1, sizeof(*f->report) + 2 * sizeof(f->report->cpu[0]));
	assert_non_null(f->report);
	f->view = (struct blackout_view){f->report, 2, KHZ, NOTED_FROM};
	f->report->cpu[0].last_tsc = f->report->cpu[1].last_tsc = PAUSE;
	blackout_mark(&f->view, &f->mark);
	*state = f;
	return 0;
}

static int end(void **state)
{
	struct fixture *f = *state;

	free(f->report);
	free(f);
	return 0;
}

static void record(struct fixture *f, uint32_t cpu, uint64_t start, uint64_t cycles)
{
	struct guest_cpu_report *c = &f->report->cpu[cpu];

	c->gap[c->gap_seq % GUEST_REPORT_NR_GAPS] = (struct guest_gap){start, cycles};
	c->gap_seq++;
}

static enum blackout_answer look(struct fixture *f, uint64_t *gap_ns)
{
	*gap_ns = 0;
	return blackout_spanning_ns(&f->view, &f->mark, gap_ns);
}

static void samples(struct fixture *f, uint64_t tsc)
{
	f->report->cpu[0].last_tsc = f->report->cpu[1].last_tsc = tsc;
}

static void a_guest_that_has_not_run_yet_is_waited_for(void **state)
{
	struct fixture *f = *state;
	uint64_t gap_ns;

	for (int i = 0; i < 3; i++)
		assert_int_equal(look(f, &gap_ns), BLACKOUT_PENDING);
}

static void the_longest_of_what_the_vcpus_felt_counts(void **state)
{
	struct fixture *f = *state;
	uint64_t gap_ns;

	samples(f, PAUSE + 20 * MS);
	record(f, 0, PAUSE, 5 * MS);
	assert_int_equal(look(f, &gap_ns), BLACKOUT_PENDING); /* the other one is about to record */
	record(f, 1, PAUSE, 7 * MS);
	assert_int_equal(look(f, &gap_ns), BLACKOUT_FELT);
	assert_int_equal(gap_ns, 7 * MS);
}

static void gaps_before_and_after_are_not_it(void **state)
{
	struct fixture *f = *state;
	uint64_t gap_ns;

	for (uint32_t cpu = 0; cpu < 2; cpu++) {
		record(f, cpu, PAUSE - 30 * MS, 30 * MS);
		record(f, cpu, PAUSE, 3 * MS);
		record(f, cpu, PAUSE + 10 * MS, 50 * MS);
	}
	assert_int_equal(look(f, &gap_ns), BLACKOUT_FELT);
	assert_int_equal(gap_ns, 3 * MS);
}

/* The guest records gaps from a length on only; nothing comes of waiting for a shorter one. */
static void a_gap_too_short_to_be_recorded_is_not_waited_for(void **state)
{
	struct fixture *f = *state;
	uint64_t gap_ns;

	samples(f, PAUSE + 1 * MS);
	assert_int_equal(look(f, &gap_ns), BLACKOUT_PENDING); /* this may be its first sample */
	assert_int_equal(look(f, &gap_ns), BLACKOUT_PENDING); /* and still be */
	samples(f, PAUSE + 2 * MS);
	assert_int_equal(look(f, &gap_ns), BLACKOUT_BELOW);
	assert_int_equal(gap_ns, NOTED_FROM);
}

static void one_that_felt_little_does_not_hide_the_other(void **state)
{
	struct fixture *f = *state;
	uint64_t gap_ns;

	record(f, 1, PAUSE, 2 * MS);
	samples(f, PAUSE + 3 * MS);
	assert_int_equal(look(f, &gap_ns), BLACKOUT_PENDING);
	samples(f, PAUSE + 4 * MS);
	assert_int_equal(look(f, &gap_ns), BLACKOUT_FELT);
	assert_int_equal(gap_ns, 2 * MS);
}

/* The one sample that was read and not yet stored when the guest was paused says nothing. */
static void a_sample_from_before_the_pause_does_not_count(void **state)
{
	struct fixture *f = *state;
	uint64_t gap_ns;

	samples(f, PAUSE + 10000);
	assert_int_equal(look(f, &gap_ns), BLACKOUT_PENDING);
	samples(f, PAUSE + 4 * MS);
	assert_int_equal(look(f, &gap_ns), BLACKOUT_PENDING);
	record(f, 0, PAUSE + 10000, 4 * MS);
	record(f, 1, PAUSE + 10000, 4 * MS);
	assert_int_equal(look(f, &gap_ns), BLACKOUT_FELT);
}

static void a_tsc_that_went_back_tells_no_gap(void **state)
{
	struct fixture *f = *state;
	uint64_t gap_ns;

	for (uint64_t tsc = 1; tsc <= 2; tsc++) {
		samples(f, tsc);
		f->report->cpu[0].tsc_backwards = f->report->cpu[1].tsc_backwards = 1;
		assert_int_equal(look(f, &gap_ns), tsc == 1 ? BLACKOUT_PENDING : BLACKOUT_UNTOLD);
	}
}

static void another_report_than_the_marked_one_tells_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t gap_ns;

	f->view.nr_cpus = 1;
	assert_int_equal(look(f, &gap_ns), BLACKOUT_UNTOLD);
	assert_int_equal(blackout_largest_since_ns(&f->view, &f->mark), 0);
}

static void what_the_record_says_goes_into_the_report(void **state)
{
	Godwit__Blackout m = GODWIT__BLACKOUT__INIT;
	struct guest_blackout b = {.precopy_max_ns = 3};

	(void)state;
	m.below_ns = 5;
	blackout_take(&m, &b);
	assert_false(b.present);
	m.has_below_ns = 1;
	blackout_take(&m, &b);
	assert_true(b.present && b.below);
	assert_int_equal(b.gap_ns, 5);
	m.has_gap_ns = 1;
	m.gap_ns = 7;
	blackout_take(&m, &b);
	assert_true(b.present && !b.below);
	assert_int_equal(b.gap_ns, 7);
	assert_int_equal(b.precopy_max_ns, 3);
}

struct liar {
	uint64_t *gap_seq;
	atomic_bool stop;
};

static void *lie(void *arg)
{
	struct liar *l = arg;

	while (!atomic_load(&l->stop)) {
		__atomic_store_n(l->gap_seq, UINT64_MAX / 2, __ATOMIC_RELEASE);
		__atomic_store_n(l->gap_seq, 0, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* A guest that changes its count while we look: no look takes longer than the ring is long. */
static void a_guest_cannot_keep_us_looking(void **state)
{
	struct fixture *f = *state;
	struct liar l = {.gap_seq = &f->report->cpu[0].gap_seq};
	pthread_t guest;
	uint64_t gap_ns;

	assert_int_equal(pthread_create(&guest, NULL, lie, &l), 0);
	for (int i = 0; i < 300000; i++) {
		blackout_largest_since_ns(&f->view, &f->mark);
		look(f, &gap_ns);
	}
	atomic_store(&l.stop, true);
	pthread_join(guest, NULL);
}

static void what_a_guest_says_stays_a_number(void **state)
{
	struct fixture *f = *state;

	record(f, 0, PAUSE, UINT64_MAX);
	f->view.tsc_khz = 1;
	assert_in_range(blackout_largest_since_ns(&f->view, &f->mark), 1, INT64_MAX);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_guest_that_has_not_run_yet_is_waited_for),
		TEST(the_longest_of_what_the_vcpus_felt_counts),
		TEST(gaps_before_and_after_are_not_it),
		TEST(a_gap_too_short_to_be_recorded_is_not_waited_for),
		TEST(one_that_felt_little_does_not_hide_the_other),
		TEST(a_sample_from_before_the_pause_does_not_count),
		TEST(a_tsc_that_went_back_tells_no_gap),
		TEST(another_report_than_the_marked_one_tells_nothing),
		TEST(a_guest_cannot_keep_us_looking),
		TEST(what_a_guest_says_stays_a_number),
		cmocka_unit_test(what_the_record_says_goes_into_the_report),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
