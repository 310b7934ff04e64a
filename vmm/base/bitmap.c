#include "vmm/base/bitmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int bitmap_init(struct bitmap *b, uint64_t nr_bits, struct err *e)
{
	b->nr_bits = nr_bits;
	b->words = calloc(bitmap_nr_words(b) ? bitmap_nr_words(b) : 1, sizeof(*b->words));
	if (!b->words)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a bitmap of %llu bits",
			       (unsigned long long)nr_bits);
	return 0;
}

void bitmap_fini(struct bitmap *b)
{
	free(b->words);
	b->words = NULL;
	b->nr_bits = 0;
}

void bitmap_zero(struct bitmap *b)
{
	memset(b->words, 0, bitmap_nr_words(b) * sizeof(*b->words));
}

/* The bits of word @word that lie in [first, end). */
static uint64_t word_mask(uint64_t word, uint64_t first, uint64_t end)
{
	uint64_t low = word * 64 < first ? first - word * 64 : 0;
	uint64_t high = end - word * 64 < 64 ? end - word * 64 : 64;
	uint64_t upto = high == 64 ? ~0ull : (1ull << high) - 1;

	return upto & ~((1ull << low) - 1);
}

void bitmap_set_range(struct bitmap *b, uint64_t first, uint64_t nr)
{
	uint64_t end = first + nr;

	for (uint64_t w = first / 64; nr && w * 64 < end; w++)
		b->words[w] |= word_mask(w, first, end);
}

void bitmap_clear_range(struct bitmap *b, uint64_t first, uint64_t nr)
{
	uint64_t end = first + nr;

	for (uint64_t w = first / 64; nr && w * 64 < end; w++)
		b->words[w] &= ~word_mask(w, first, end);
}

uint64_t bitmap_count(const struct bitmap *b)
{
	uint64_t nr = 0;

	for (uint64_t w = 0; w < bitmap_nr_words(b); w++)
		nr += (uint64_t)__builtin_popcountll(b->words[w]);
	return nr;
}

/* First bit at or after @from whose value is @value, or @end. */
static uint64_t find_bit(const struct bitmap *b, uint64_t from, uint64_t end, bool value)
{
	while (from < end) {
		uint64_t word = b->words[from / 64];

		if (!value)
			word = ~word;
		word &= ~0ull << (from % 64);
		if (word) {
			uint64_t bit = from / 64 * 64 + (uint64_t)__builtin_ctzll(word);

			return bit < end ? bit : end;
		}
		from = (from / 64 + 1) * 64;
	}
	return end;
}

bool bitmap_next_run(const struct bitmap *b, uint64_t from, uint64_t end, struct bitmap_run *run)
{
	if (end > b->nr_bits)
		end = b->nr_bits;
	run->first = find_bit(b, from, end, true);
	if (run->first >= end)
		return false;
	run->nr = find_bit(b, run->first, end, false) - run->first;
	return true;
}

void bitmap_set_atomic(struct bitmap *b, uint64_t bit)
{
	__atomic_fetch_or(&b->words[bit / 64], 1ull << (bit % 64), __ATOMIC_RELEASE);
}

uint64_t bitmap_take_word(struct bitmap *b, uint64_t word)
{
	/* Most words are empty; a plain load keeps their cache lines shared. */
	if (!__atomic_load_n(&b->words[word], __ATOMIC_RELAXED))
		return 0;
	return __atomic_exchange_n(&b->words[word], 0, __ATOMIC_ACQUIRE);
}
