/*
 * A set of small integers (here: guest frame numbers) as 64-bit words, in the bit order of
 * KVM_GET_DIRTY_LOG (bit n of word n/64; KVM API document, 4.8), so that the kernel can write
 * straight into one. Plain functions are for one thread at a time; bitmap_set_atomic() and
 * bitmap_take_word() may race with each other.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"

struct bitmap {
	uint64_t nr_bits;
	uint64_t *words; /* (nr_bits + 63) / 64 of them; bits past nr_bits are zero */
};

struct bitmap_run {
	uint64_t first;
	uint64_t nr;
};

int bitmap_init(struct bitmap *b, uint64_t nr_bits, struct err *e);
void bitmap_fini(struct bitmap *b);

static inline uint64_t bitmap_nr_words(const struct bitmap *b)
{
	return (b->nr_bits + 63) / 64;
}

static inline bool bitmap_test(const struct bitmap *b, uint64_t bit)
{
	return b->words[bit / 64] >> (bit % 64) & 1;
}

static inline void bitmap_set(struct bitmap *b, uint64_t bit)
{
	b->words[bit / 64] |= 1ull << (bit % 64);
}

void bitmap_zero(struct bitmap *b);
void bitmap_set_range(struct bitmap *b, uint64_t first, uint64_t nr);
void bitmap_clear_range(struct bitmap *b, uint64_t first, uint64_t nr);
uint64_t bitmap_count(const struct bitmap *b);

/* The first run of set bits that starts at or after @from and before @end, cut off at @end.
 * False when there is none. */
bool bitmap_next_run(const struct bitmap *b, uint64_t from, uint64_t end, struct bitmap_run *run);

/* As bitmap_set() and as "read the word and zero it", atomically with respect to each other. */
void bitmap_set_atomic(struct bitmap *b, uint64_t bit);
uint64_t bitmap_take_word(struct bitmap *b, uint64_t word);

#define bitmap_for_each_run(b, run, from, end)                                     \
	for (uint64_t bm_at_ = (from); bitmap_next_run((b), bm_at_, (end), (run)); \
	     bm_at_ = (run)->first + (run)->nr)
