/* A chunk's pages as writes: runs, the hull that is pinned, and posting in pieces. */
#include "migration/rdma/job.h"
#include "tests/unit/cmocka_all.h"

static struct batch_run run_of(uint64_t gfn, uint16_t nr, enum run_kind kind)
{
	return (struct batch_run){.gfn = gfn, .nr_pages = nr, .kind = (uint8_t)kind};
}

/* Two chunks, zero pages among them. */
static const struct page_batch *mixed(struct page_batch *b)
{
	*b = (struct page_batch){.nr_runs = 5};
	b->runs[0] = run_of(512 + 3, 2, RUN_DATA);
	b->runs[1] = run_of(512 + 5, 3, RUN_ZERO);
	b->runs[2] = run_of(512 + 60, 10, RUN_DATA); /* over a word's end */
	b->runs[3] = run_of(512 + 511, 1, RUN_DATA);
	b->runs[4] = run_of(1024, 512, RUN_ZERO);
	return b;
}

static void test_cut_by_chunk(void **state)
{
	struct page_batch b;
	struct job j;
	uint64_t gfn;
	uint32_t nr;

	(void)state;
	assert_int_equal(job_init(&j, mixed(&b), 0), 4);
	assert_int_equal(j.first_gfn, 512);
	assert_false(job_is_posted(&j));
	job_hull(&j, &gfn, &nr);
	assert_int_equal(gfn, 515);
	assert_int_equal(nr, 509);
	assert_int_equal(job_init(&j, &b, 4), 5);
	assert_true(job_is_done(&j)); /* nothing but zeroes */
}

static void test_gather(void **state)
{
	struct pin_region region = {.local_key = 7, .remote_key = 9};
	struct rdma_piece pieces[4];
	struct page_batch b;
	struct job j;
	uint32_t next;

	(void)state;
	job_init(&j, mixed(&b), 0);
	j.region = &region;
	assert_int_equal(job_gather(&j, pieces, 2, &next), 2);
	assert_int_equal(pieces[0].gpa, 515 * 4096);
	assert_int_equal(pieces[0].bytes, 2 * 4096);
	assert_int_equal(pieces[1].gpa, 572 * 4096);
	assert_int_equal(pieces[1].bytes, 10 * 4096);
	assert_int_equal(pieces[1].local_key, 7);
	assert_int_equal(pieces[1].remote_key, 9);
	j.next = next;
	assert_false(job_is_posted(&j));
	assert_int_equal(job_gather(&j, pieces, 4, &next), 1);
	assert_int_equal(pieces[0].gpa, 1023 * 4096);
	j.next = next;
	assert_true(job_is_posted(&j));
}

static void test_whole_chunk(void **state)
{
	struct pin_region region = {0};
	struct page_batch b = {.nr_runs = 1};
	struct rdma_piece piece;
	struct job j;
	uint64_t gfn;
	uint32_t next;
	uint32_t nr;

	(void)state;
	b.runs[0] = run_of(0, 512, RUN_DATA);
	assert_int_equal(job_init(&j, &b, 0), 1);
	j.region = &region;
	job_hull(&j, &gfn, &nr);
	assert_int_equal(gfn, 0);
	assert_int_equal(nr, 512);
	assert_int_equal(job_gather(&j, &piece, 1, &next), 1);
	assert_int_equal(piece.bytes, 2 << 20);
	assert_int_equal(next, 512);
}

static void test_back_to_a_batch(void **state)
{
	struct page_batch b;
	struct page_batch again;
	struct job j;

	(void)state;
	job_init(&j, mixed(&b), 0);
	job_to_batch(&j, &again);
	assert_int_equal(again.nr_runs, 3);
	assert_int_equal(again.nr_data_pages, 13);
	assert_int_equal(again.runs[1].gfn, 572);
	assert_int_equal(again.runs[1].nr_pages, 10);
	assert_int_equal(again.runs[1].kind, RUN_DATA);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut_by_chunk),
		cmocka_unit_test(test_gather),
		cmocka_unit_test(test_whole_chunk),
		cmocka_unit_test(test_back_to_a_batch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
