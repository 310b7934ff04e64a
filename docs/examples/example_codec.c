/*
 * Example: a page codec (docs/extending.md). `words` stores runs of equal 64-bit words as a count
 * and the word: good for memory that programs filled with one value, useless for the rest.
 */
#include <errno.h>
#include <string.h>

#include "migration/codec.h"
#include "tests/unit/cmocka_all.h"

struct word_run {
	uint64_t nr;
	uint64_t word;
};

static uint64_t word_at(const uint8_t *in, size_t i)
{
	uint64_t word;

	memcpy(&word, in + i * sizeof(word), sizeof(word));
	return word;
}

static size_t words_compress(const uint8_t *in, size_t len, uint8_t *out, size_t cap)
{
	size_t nr_words = len / sizeof(uint64_t);
	size_t used = 0;

	for (size_t i = 0; i < nr_words;) {
		struct word_run run = {.nr = 1, .word = word_at(in, i)};

		while (i + run.nr < nr_words && word_at(in, i + run.nr) == run.word)
			run.nr++;
		if (cap - used < sizeof(run))
			return 0; /* not worth it: the caller sends the pages as they are */
		memcpy(out + used, &run, sizeof(run));
		used += sizeof(run);
		i += run.nr;
	}
	return used;
}

/* The input is hostile: every number in it is checked before it is used. */
static int words_decompress(const uint8_t *in, size_t len, uint8_t *out, size_t out_len,
			    struct err *e)
{
	size_t done = 0;

	for (size_t at = 0; at < len; at += sizeof(struct word_run)) {
		struct word_run run = {0};

		if (len - at >= sizeof(run))
			memcpy(&run, in + at, sizeof(run));
		if (!run.nr || run.nr > (out_len - done) / sizeof(run.word))
			return err_set(e, ERR_STREAM, EPROTO, "a run of %llu words at byte %zu",
				       (unsigned long long)run.nr, at);
		for (uint64_t i = 0; i < run.nr; i++, done += sizeof(run.word))
			memcpy(out + done, &run.word, sizeof(run.word));
	}
	if (done != out_len)
		return err_set(e, ERR_STREAM, EPROTO, "%zu bytes instead of %zu", done, out_len);
	return 0;
}

static const struct codec_ops codec_words = {
	.name = "words",
	.wire_id = 2, /* the next number of enum batch_codec in proto/batch.h */
	.compress = words_compress,
	.decompress = words_decompress,
};

/* ---- The test ---- */

#define PAGE 4096

static void test_round_trip(void **state)
{
	uint8_t page[PAGE];
	uint8_t packed[PAGE];
	uint8_t unpacked[PAGE];
	struct err e = ERR_INIT;
	size_t n;

	(void)state;
	memset(page, 0x11, PAGE / 2);
	memset(page + PAGE / 2, 0x22, PAGE / 2);
	n = codec_words.compress(page, PAGE, packed, PAGE);
	assert_int_equal(n, 2 * sizeof(struct word_run));
	assert_int_equal(codec_words.decompress(packed, n, unpacked, PAGE, &e), 0);
	assert_memory_equal(unpacked, page, PAGE);
}

static void test_noise_does_not_fit(void **state)
{
	uint8_t page[PAGE];
	uint8_t packed[PAGE];

	(void)state;
	for (size_t i = 0; i < PAGE; i++)
		page[i] = (uint8_t)(i * 2654435761u >> 13);
	assert_int_equal(codec_words.compress(page, PAGE, packed, PAGE - 512), 0);
}

static void expect_refused(struct word_run run, size_t len)
{
	uint8_t packed[sizeof(run)];
	uint8_t unpacked[PAGE];
	struct err e = ERR_INIT;

	memcpy(packed, &run, sizeof(run));
	assert_true(codec_words.decompress(packed, len, unpacked, PAGE, &e) < 0);
	assert_int_equal(e.kind, ERR_STREAM);
}

static void test_hostile_input(void **state)
{
	(void)state;
	expect_refused((struct word_run){513, 0}, sizeof(struct word_run)); /* too many */
	expect_refused((struct word_run){UINT64_MAX, 0}, sizeof(struct word_run));
	expect_refused((struct word_run){0, 0}, sizeof(struct word_run));
	expect_refused((struct word_run){511, 0}, sizeof(struct word_run)); /* too few */
	expect_refused((struct word_run){512, 0}, sizeof(struct word_run) - 1);
	expect_refused((struct word_run){512, 0}, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_noise_does_not_fit),
		cmocka_unit_test(test_hostile_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
