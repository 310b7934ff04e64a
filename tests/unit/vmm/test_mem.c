/* vmm/mem.c: layout around the PCI hole, sparseness, marks under a race. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "vmm/base/clock.h"
#include "vmm/mem.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static struct guest_mem *make(uint64_t bytes)
{
	struct guest_mem *m;
	struct err e = ERR_INIT;

	assert_int_equal(guest_mem_new(bytes, &m, &e), 0);
	return m;
}

static void small_guest_is_one_slot(void **state)
{
	struct guest_mem *m = make(64 * MIB);

	(void)state;
	assert_int_equal(guest_mem_nr_slots(m), 1);
	assert_int_equal(guest_mem_slot(m, 0)->gpa, 0);
	assert_int_equal(guest_mem_slot(m, 0)->bytes, 64 * MIB);
	assert_int_equal(guest_mem_nr_gfns(m), 64 * MIB / PAGE_BYTES);
	assert_null(guest_mem_slot(m, 1));
	guest_mem_free(m);
}

static void memory_above_the_hole_starts_at_4_gib(void **state)
{
	struct guest_mem *m = make(5 * GIB);

	(void)state;
	assert_int_equal(guest_mem_nr_slots(m), 2);
	assert_int_equal(guest_mem_slot(m, 0)->bytes, 3 * GIB);
	assert_int_equal(guest_mem_slot(m, 1)->gpa, 4 * GIB);
	assert_int_equal(guest_mem_slot(m, 1)->bytes, 2 * GIB);
	assert_int_equal(guest_mem_nr_gfns(m), 6 * GIB / PAGE_BYTES);
	assert_true(guest_mem_contains(m, 3 * GIB - 1, 1));
	assert_false(guest_mem_contains(m, 3 * GIB - 1, 2));
	assert_false(guest_mem_contains(m, 3 * GIB, 1));
	assert_false(guest_mem_contains(m, 4 * GIB - 1, 2));
	assert_true(guest_mem_contains(m, 4 * GIB, 2 * GIB));
	assert_false(guest_mem_contains(m, 4 * GIB, 2 * GIB + 1));
	assert_false(guest_mem_contains(m, UINT64_MAX - 1, 4));
	assert_false(guest_mem_contains(m, 4 * GIB, UINT64_MAX));
	assert_null(guest_mem_at(m, 6 * GIB, 1));
	guest_mem_free(m);
}

static void impossible_sizes_are_refused(void **state)
{
	const uint64_t sizes[] = {0, MIB, 3 * MIB, MEM_MAX_BYTES + 2 * MIB, UINT64_MAX};
	struct guest_mem *m;

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct err e = ERR_INIT;

		assert_true(guest_mem_new(sizes[i], &m, &e) < 0);
		assert_int_equal(e.kind, ERR_USAGE);
	}
}

static long nr_faults(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_THREAD, &usage), 0);
	return usage.ru_minflt;
}

/* Nobody looks at its pages, so it costs the same as any other. */
static void sparse_64_gib_is_instant_and_free(void **state)
{
	long faults = nr_faults();
	struct guest_mem *m = make(64 * GIB);
	struct err e = ERR_INIT;
	struct stat st;
	uint64_t from;
	uint64_t to;

	(void)state;
	assert_in_range(nr_faults() - faults, 0, 1000); /* of 16 million pages */
	assert_int_equal(fstat(guest_mem_fd(m), &st), 0);
	assert_int_equal(st.st_blocks, 0);
	assert_false(guest_mem_next_data(m, NULL, 0, 65 * GIB, &from, &to));
	assert_int_equal(guest_mem_write(m, 64 * GIB, "x", 1, &e), 0);
	assert_true(guest_mem_next_data(m, NULL, 0, 65 * GIB, &from, &to));
	assert_true(from <= 64 * GIB && to > 64 * GIB && to - from <= 2 * MIB);
	assert_int_equal(fstat(guest_mem_fd(m), &st), 0);
	assert_true(st.st_blocks * 512 <= 2 * (int64_t)MIB);
	guest_mem_free(m);
}

static void reading_and_writing_stay_inside(void **state)
{
	struct guest_mem *m = make(4 * GIB);
	struct err e = ERR_INIT;
	char text[6] = "";

	(void)state;
	assert_int_equal(guest_mem_write(m, 4 * GIB + 5, "hello", 6, &e), 0);
	assert_int_equal(guest_mem_read(m, 4 * GIB + 5, text, 6, &e), 0);
	assert_string_equal(text, "hello");
	assert_true(guest_mem_write(m, 3 * GIB - 2, text, 6, &e) < 0);
	assert_true(guest_mem_read(m, 5 * GIB - 1, text, 2, &e) < 0);
	guest_mem_free(m);
}

static void marks_are_taken_once(void **state)
{
	struct guest_mem *m = make(5 * GIB);
	struct bitmap set;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(bitmap_init(&set, guest_mem_nr_gfns(m), &e), 0);
	guest_mem_mark(m, PAGE_BYTES - 1, 2);
	guest_mem_mark(m, 4 * GIB + 63 * PAGE_BYTES, 2 * PAGE_BYTES);
	guest_mem_mark(m, 3 * GIB, 1); /* the hole: not RAM, not marked */
	guest_mem_mark(m, 0, 0);
	guest_mem_take_marks(m, &set);
	assert_int_equal(bitmap_count(&set), 4);
	assert_true(bitmap_test(&set, 0) && bitmap_test(&set, 1));
	assert_true(bitmap_test(&set, (4 * GIB >> PAGE_SHIFT) + 64));
	bitmap_zero(&set);
	guest_mem_take_marks(m, &set);
	assert_int_equal(bitmap_count(&set), 0);
	bitmap_fini(&set);
	guest_mem_free(m);
}

/* One thread writes rising numbers through guest_mem_write, the other takes marks and reads. What
 * it saw last of each page must be what is there at the end. */
struct race {
	struct guest_mem *m;
	atomic_bool done;
};

#define RACE_PAGES 256u

static void *race_writer(void *arg)
{
	struct race *r = arg;
	struct err e = ERR_INIT;

	for (uint64_t i = 0; i < 200000; i++)
		guest_mem_write(r->m, i % RACE_PAGES * PAGE_BYTES, &i, sizeof(i), &e);
	atomic_store(&r->done, true);
	return NULL;
}

static void no_write_escapes_its_mark(void **state)
{
	struct race r = {.m = make(2 * MIB)};
	uint64_t seen[RACE_PAGES] = {0};
	struct bitmap set;
	struct err e = ERR_INIT;
	pthread_t writer;
	bool last;

	(void)state;
	assert_int_equal(bitmap_init(&set, guest_mem_nr_gfns(r.m), &e), 0);
	assert_int_equal(pthread_create(&writer, NULL, race_writer, &r), 0);
	do {
		last = atomic_load(&r.done);
		bitmap_zero(&set);
		guest_mem_take_marks(r.m, &set);
		for (uint64_t p = 0; p < RACE_PAGES; p++)
			if (bitmap_test(&set, p))
				seen[p] = __atomic_load_n(
					(const uint64_t *)guest_mem_at(r.m, p * PAGE_BYTES, 8),
					__ATOMIC_RELAXED);
	} while (!last);
	pthread_join(writer, NULL);
	for (uint64_t p = 0; p < RACE_PAGES; p++)
		assert_memory_equal(&seen[p], guest_mem_at(r.m, p * PAGE_BYTES, 8), 8);
	bitmap_fini(&set);
	guest_mem_free(r.m);
}

static bool is_data(const struct guest_mem *m, uint64_t gpa)
{
	uint64_t start, stop;

	return guest_mem_next_data(m, NULL, gpa, gpa + PAGE_BYTES, &start, &stop);
}

static void discarded_pages_are_holes_and_dirty(void **state)
{
	struct guest_mem *m = make(8 * MIB);
	struct bitmap set;
	struct err e = ERR_INIT;
	uint64_t one = 1;

	(void)state;
	for (uint64_t p = 0; p < 4; p++)
		guest_mem_write(m, 2 * MIB + p * PAGE_BYTES, &one, sizeof(one), &e);
	guest_mem_drop_marks(m);
	assert_false(guest_mem_is_discarded(m, 4 * MIB >> PAGE_SHIFT)); /* a hole, never data */
	assert_true(guest_mem_discard(m, 2 * MIB + PAGE_BYTES, 2 * PAGE_BYTES));
	for (uint64_t p = 0; p < 4; p++) {
		assert_int_equal(is_data(m, 2 * MIB + p * PAGE_BYTES), p == 0 || p == 3);
		assert_int_equal(guest_mem_is_discarded(m, (2 * MIB >> PAGE_SHIFT) + p),
				 p == 1 || p == 2);
	}
	assert_int_equal(bitmap_init(&set, guest_mem_nr_gfns(m), &e), 0);
	guest_mem_take_marks(m, &set);
	assert_int_equal(bitmap_count(&set), 2);
	guest_mem_write(m, 2 * MIB + PAGE_BYTES, &one, sizeof(one), &e);
	assert_false(guest_mem_is_discarded(m, (2 * MIB >> PAGE_SHIFT) + 1));
	bitmap_fini(&set);
	guest_mem_free(m);
}

static void only_whole_pages_of_ram_are_discarded(void **state)
{
	struct guest_mem *m = make(8 * MIB);

	(void)state;
	assert_false(guest_mem_discard(m, 0, 0));
	assert_false(guest_mem_discard(m, 1, PAGE_BYTES));
	assert_false(guest_mem_discard(m, 0, PAGE_BYTES - 1));
	assert_false(guest_mem_discard(m, 8 * MIB - PAGE_BYTES, 2 * PAGE_BYTES));
	assert_false(guest_mem_discard(m, UINT64_MAX - PAGE_BYTES + 1, PAGE_BYTES));
	guest_mem_free(m);
}

static void held_memory_is_not_discarded(void **state)
{
	struct guest_mem *m = make(8 * MIB);

	(void)state;
	guest_mem_hold(m);
	guest_mem_hold(m);
	guest_mem_release(m);
	assert_false(guest_mem_discard(m, 0, PAGE_BYTES));
	guest_mem_release(m);
	assert_true(guest_mem_discard(m, 0, PAGE_BYTES));
	guest_mem_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_guest_is_one_slot),
		cmocka_unit_test(memory_above_the_hole_starts_at_4_gib),
		cmocka_unit_test(impossible_sizes_are_refused),
		cmocka_unit_test(sparse_64_gib_is_instant_and_free),
		cmocka_unit_test(reading_and_writing_stay_inside),
		cmocka_unit_test(marks_are_taken_once),
		cmocka_unit_test(no_write_escapes_its_mark),
		cmocka_unit_test(discarded_pages_are_holes_and_dirty),
		cmocka_unit_test(only_whole_pages_of_ram_are_discarded),
		cmocka_unit_test(held_memory_is_not_discarded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
