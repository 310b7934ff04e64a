/* proto/STREAM.md, section 3, as a table: what is allowed, and every way not to be. */
#include <errno.h>
#include <string.h>

#include "proto/batch.h"
#include "tests/unit/cmocka_all.h"

static struct batch_header good_header(void)
{
	return (struct batch_header){.magic = BATCH_MAGIC,
				     .kind = BATCH_PAGES,
				     .codec = BATCH_CODEC_NONE,
				     .nr_runs = 1,
				     .payload_bytes = 4096,
				     .round = 1,
				     .sequence = 7};
}

static struct batch_run data_run(uint64_t gfn, uint16_t nr)
{
	return (struct batch_run){.gfn = gfn, .nr_pages = nr, .kind = RUN_DATA};
}

static void expect_header(const struct batch_header *h, int ok)
{
	struct err e = ERR_INIT;
	int ret = batch_check_header(h, 7, &e);

	assert_int_equal(ret, ok ? 0 : -EPROTO);
	assert_int_equal(e.kind, ok ? ERR_NONE : ERR_STREAM);
}

static void test_header(void **state)
{
	struct batch_header h = good_header();
	const struct batch_header barrier = {
		.magic = BATCH_MAGIC, .kind = BATCH_BARRIER, .sequence = 7};

	(void)state;
	expect_header(&h, 1);
	expect_header(&barrier, 1);
	h.magic ^= 1;
	expect_header(&h, 0);
	h = good_header();
	h.sequence = 8;
	expect_header(&h, 0);
	h = good_header();
	h.kind = 0;
	expect_header(&h, 0);
	h.kind = NR_BATCH_KINDS;
	expect_header(&h, 0);
	h = good_header();
	h.codec = NR_BATCH_CODECS;
	expect_header(&h, 0);
	h = good_header();
	h.nr_runs = 0;
	expect_header(&h, 0);
	h.nr_runs = BATCH_MAX_RUNS + 1;
	expect_header(&h, 0);
	h = good_header();
	h.payload_bytes = BATCH_MAX_PAGES * BATCH_PAGE_BYTES + 1;
	expect_header(&h, 0);
}

static void test_barrier_carries_nothing(void **state)
{
	struct batch_header h = {.magic = BATCH_MAGIC, .kind = BATCH_BARRIER, .sequence = 7};

	(void)state;
	h.nr_runs = 1;
	expect_header(&h, 0);
	h.nr_runs = 0;
	h.payload_bytes = 1;
	expect_header(&h, 0);
}

static void expect_runs(const struct batch_header *h, const struct batch_run *runs, int ok,
			uint32_t pages)
{
	struct err e = ERR_INIT;
	uint32_t nr_data_pages = 0;

	assert_int_equal(batch_check_runs(h, runs, 1, 2, &nr_data_pages, &e), ok ? 0 : -EPROTO);
	if (ok)
		assert_int_equal(nr_data_pages, pages);
}

static void test_runs(void **state)
{
	struct batch_header h = good_header();
	struct batch_run runs[2] = {data_run(512, 1)}; /* chunk 1: channel 1 of 2 */

	(void)state;
	expect_runs(&h, runs, 1, 1);
	runs[0] = data_run(512, 0);
	expect_runs(&h, runs, 0, 0);
	runs[0] = data_run(1023, 2);
	expect_runs(&h, runs, 0, 0); /* leaves its chunk */
	runs[0] = data_run(0, 1);
	expect_runs(&h, runs, 0, 0); /* another channel's */
	runs[0] = data_run(512, 1);
	runs[0].kind = 0;
	expect_runs(&h, runs, 0, 0);
	runs[0] = data_run(UINT64_MAX - 511, 513); /* would wrap */
	expect_runs(&h, runs, 0, 0);
	runs[0] = data_run((1ull << 52) + 512, 1); /* as an address it wraps to RAM */
	expect_runs(&h, runs, 0, 0);
	h.nr_runs = 2;
	runs[0] = data_run(512, 1);
	runs[1] = (struct batch_run){.gfn = 600, .nr_pages = 200, .kind = RUN_ZERO};
	expect_runs(&h, runs, 1, 1);
}

static void test_payload_fits_the_runs(void **state)
{
	struct batch_header h = good_header();
	struct batch_run runs[2] = {data_run(512, 2)};

	(void)state;
	expect_runs(&h, runs, 0, 0); /* 4096 bytes for two raw pages */
	h.payload_bytes = 8192;
	expect_runs(&h, runs, 1, 2);
	h.codec = BATCH_CODEC_LZ4;
	expect_runs(&h, runs, 0, 0); /* packed must be smaller */
	h.payload_bytes = 100;
	expect_runs(&h, runs, 1, 2);
	h.payload_bytes = 0;
	expect_runs(&h, runs, 0, 0);
}

/* Section 6: what goes beside the connection has no payload on it. */
static void test_rdma_kinds(void **state)
{
	static const uint8_t with_runs[] = {BATCH_PLACED, BATCH_WINDOW};

	(void)state;
	for (size_t i = 0; i < sizeof(with_runs); i++) {
		struct batch_header h = good_header();

		h.kind = with_runs[i];
		expect_header(&h, 0); /* payload */
		h.payload_bytes = 0;
		expect_header(&h, 1);
		h.codec = BATCH_CODEC_LZ4;
		expect_header(&h, 0);
		h.codec = BATCH_CODEC_NONE;
		h.nr_runs = 0;
		expect_header(&h, 0);
	}
	for (uint16_t nr_runs = 0; nr_runs < 2; nr_runs++) {
		struct batch_header h = {.magic = BATCH_MAGIC,
					 .kind = BATCH_CLOSE,
					 .nr_runs = nr_runs,
					 .sequence = 7};

		expect_header(&h, !nr_runs);
	}
}

static void test_runs_fit_the_kind_of_batch(void **state)
{
	struct batch_header h = good_header();
	struct batch_run run = data_run(512, 3);

	(void)state;
	h.payload_bytes = 0;
	h.kind = BATCH_PLACED;
	expect_runs(&h, &run, 1, 3);
	run.kind = RUN_PIN;
	expect_runs(&h, &run, 0, 0);
	h.kind = BATCH_WINDOW;
	expect_runs(&h, &run, 1, 0);
	run.kind = RUN_UNPIN;
	expect_runs(&h, &run, 1, 0);
	run.kind = RUN_DATA;
	expect_runs(&h, &run, 0, 0);
	run = data_run(0, 1); /* another channel's */
	run.kind = RUN_PIN;
	expect_runs(&h, &run, 0, 0);
}

static void test_too_many_data_pages(void **state)
{
	struct batch_header h = good_header();
	struct batch_run runs[3] = {data_run(512, 512), data_run(1536, 512), data_run(2560, 512)};

	(void)state;
	h.nr_runs = 3;
	h.payload_bytes = 3u * 512 * 4096;
	expect_runs(&h, runs, 0, 0);
}

static void test_every_chunk_has_one_channel(void **state)
{
	(void)state;
	for (uint32_t n = 1; n <= 16; n++)
		for (uint64_t gfn = 0; gfn < 40 * CHUNK_PAGES; gfn += 100) {
			assert_true(batch_channel_of(gfn, n) < n);
			assert_int_equal(batch_channel_of(gfn, n),
					 batch_channel_of(gfn / CHUNK_PAGES * CHUNK_PAGES, n));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_barrier_carries_nothing),
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_rdma_kinds),
		cmocka_unit_test(test_runs_fit_the_kind_of_batch),
		cmocka_unit_test(test_payload_fits_the_runs),
		cmocka_unit_test(test_too_many_data_pages),
		cmocka_unit_test(test_every_chunk_has_one_channel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
