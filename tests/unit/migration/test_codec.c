#include <stdlib.h>
#include <string.h>

#include "migration/codec.h"
#include "proto/batch.h"
#include "tests/unit/cmocka_all.h"

#define LEN (16 * BATCH_PAGE_BYTES)

static uint8_t page_bytes[LEN];
static uint8_t packed[LEN];
static uint8_t unpacked[LEN];

static void fill(unsigned int noise_of_16)
{
	srand(3);
	for (size_t i = 0; i < LEN; i++)
		page_bytes[i] = i % 16 < noise_of_16 ? (uint8_t)rand() : 0x55;
}

static void test_round_trip(void **state)
{
	struct err e = ERR_INIT;
	size_t n;

	(void)state;
	fill(4);
	n = codec_lz4.compress(page_bytes, LEN, packed, LEN);
	assert_true(n > 0 && n < LEN);
	assert_int_equal(codec_lz4.decompress(packed, n, unpacked, LEN, &e), 0);
	assert_memory_equal(unpacked, page_bytes, LEN);
}

static void test_incompressible_does_not_fit(void **state)
{
	(void)state;
	fill(16);
	assert_int_equal(codec_lz4.compress(page_bytes, LEN, packed, LEN - LEN / 8), 0);
}

static void expect_refused(size_t len, size_t out_len)
{
	struct err e = ERR_INIT;

	assert_true(codec_lz4.decompress(packed, len, unpacked, out_len, &e) < 0);
	assert_int_equal(e.kind, ERR_STREAM);
}

static void test_hostile_input(void **state)
{
	size_t n;

	(void)state;
	fill(4);
	n = codec_lz4.compress(page_bytes, LEN, packed, LEN);
	expect_refused(n, LEN - 1); /* unpacks to more */
	expect_refused(n - 1, LEN); /* cut off */
	expect_refused(n / 2, LEN);
	memset(packed, 0xff, n);
	expect_refused(n, LEN);
}

static void test_names_and_numbers(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_ptr_equal(codec_by_wire_id(BATCH_CODEC_LZ4), &codec_lz4);
	assert_null(codec_by_wire_id(BATCH_CODEC_NONE));
	assert_null(codec_by_wire_id(200));
	assert_int_equal(codec_check_name("auto", &e), 0);
	assert_int_equal(codec_check_name("none", &e), 0);
	assert_int_equal(codec_check_name("lz4", &e), 0);
	assert_true(codec_check_name("zstd", &e) < 0);
	assert_int_equal(e.kind, ERR_USAGE);
}

static void test_fixed_choices_never_change(void **state)
{
	struct codec_choice c;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(codec_choice_init(&c, "none", &e), 0);
	for (int i = 0; i < 1000; i++)
		assert_null(codec_choose(&c));
	assert_int_equal(codec_choice_init(&c, "lz4", &e), 0);
	for (int i = 0; i < 1000; i++)
		assert_ptr_equal(codec_choose(&c), &codec_lz4);
	assert_true(codec_choice_init(&c, "snappy", &e) < 0);
}

/* How often `auto` packs, of so many batches, with these measured speeds. */
static int nr_packed_of(int nr_batches, double link_ns_per_byte, double codec_ns_per_byte,
			double ratio)
{
	struct codec_choice c;
	struct err e = ERR_INIT;
	int nr = 0;

	assert_int_equal(codec_choice_init(&c, "auto", &e), 0);
	for (int i = 0; i < nr_batches; i++) {
		if (codec_choose(&c)) {
			nr++;
			codec_note_codec(&c, (uint64_t)(codec_ns_per_byte * LEN), LEN,
					 (size_t)(ratio * LEN));
		}
		codec_note_link(&c, (uint64_t)(link_ns_per_byte * LEN), LEN);
	}
	return nr;
}

static int nr_packed(double link_ns_per_byte, double codec_ns_per_byte, double ratio)
{
	return nr_packed_of(1024, link_ns_per_byte, codec_ns_per_byte, ratio);
}

static void test_auto_follows_the_measurements(void **state)
{
	(void)state;
	/* 1 Gbit/s link, 1 GB/s codec, halves: packing wins nearly always. */
	assert_true(nr_packed(8, 1, 0.5) > 900);
	/* 40 Gbit/s: it does not, except for a probe now and then. */
	assert_in_range(nr_packed(0.2, 1, 0.5), 1, 20);
	/* A small guest has few batches: the first to measure the link, all others packed. */
	assert_int_equal(nr_packed_of(16, 8, 1, 0.5), 15);
	assert_int_equal(nr_packed_of(16, 0.2, 1, 0.5), CODEC_TRIAL);
	/* Incompressible: never worth it. */
	assert_in_range(nr_packed(8, 1, 1.0), 1, 20);
}

/* The processor was taken away while batch @slow was being packed: how many of 64 are packed. */
static int nr_packed_beside(int slow)
{
	struct codec_choice c;
	struct err e = ERR_INIT;
	int nr = 0;

	assert_int_equal(codec_choice_init(&c, "auto", &e), 0);
	for (int i = 0; i < 64; i++) {
		if (codec_choose(&c))
			codec_note_codec(&c, nr++ == slow ? 500 * LEN : LEN, LEN, LEN / 2);
		codec_note_link(&c, 8 * LEN, LEN);
	}
	return nr;
}

static void test_one_slow_sample_does_not_decide(void **state)
{
	(void)state;
	assert_true(nr_packed_beside(0) > 60);
	assert_true(nr_packed_beside(CODEC_TRIAL) > 60);
	assert_true(nr_packed_beside(20) > 60);
}

/* But a codec that has become slow is not used any more. */
static void test_slow_for_good_is_believed(void **state)
{
	struct codec_choice c;
	struct err e = ERR_INIT;
	int nr = 0;

	(void)state;
	assert_int_equal(codec_choice_init(&c, "auto", &e), 0);
	for (int i = 0; i < 1024; i++) {
		if (codec_choose(&c))
			codec_note_codec(&c, nr++ < 10 ? LEN : 500 * LEN, LEN, LEN / 2);
		codec_note_link(&c, 8 * LEN, LEN);
	}
	assert_in_range(nr, 10 + 2, 10 + 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_incompressible_does_not_fit),
		cmocka_unit_test(test_hostile_input),
		cmocka_unit_test(test_names_and_numbers),
		cmocka_unit_test(test_fixed_choices_never_change),
		cmocka_unit_test(test_auto_follows_the_measurements),
		cmocka_unit_test(test_one_slow_sample_does_not_decide),
		cmocka_unit_test(test_slow_for_good_is_believed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
