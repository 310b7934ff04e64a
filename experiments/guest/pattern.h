/*
 * What a page of the fill contains: shared by the workload guest, which writes and verifies it, and
 * by the host-side checker, which verifies it from outside. Pure functions, freestanding.
 *
 * A page is 512 words: a 40-byte header that names the page and its version, then a body that is a
 * function of (seed, gfn, version). The first words of the body are incompressible, the rest
 * repeats one word; compress_percent of the body is such filler. Words are stored in ascending
 * order.
 */
#ifndef GODWIT_EXPERIMENTS_GUEST_PATTERN_H
#define GODWIT_EXPERIMENTS_GUEST_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

#define PATTERN_PAGE_SIZE    4096u
#define PATTERN_PAGE_WORDS   512u
#define PATTERN_HEADER_WORDS 5u
#define PATTERN_MAGIC        0x4547415054495744ull /* "DWITPAGE" in memory order */

/* What every page of one guest has in common. */
struct pattern {
	uint64_t seed;
	uint32_t compress_percent;
	uint32_t nr_random_words; /* header included: index of the first filler word */
};

/* Header words; the fourth holds the version below and compress_percent above. */
enum {
	PATTERN_W_MAGIC,
	PATTERN_W_GFN,
	PATTERN_W_SEED,
	PATTERN_W_VERSION,
	PATTERN_W_CHECK
};

enum page_verdict {
	PAGE_OK,
	PAGE_LOST,  /* no header of this page at all: zeroes or some other page's content */
	PAGE_STALE, /* complete, but an older version */
	PAGE_AHEAD, /* complete, but newer than the table: the version table is the stale one */
	PAGE_TORN,  /* the header is this page's, the body or checksum does not belong to it */
};

static inline uint64_t pattern_mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static inline struct pattern pattern_make(uint64_t seed, uint32_t compress_percent)
{
	uint32_t body = PATTERN_PAGE_WORDS - PATTERN_HEADER_WORDS;

	return (struct pattern){
		.seed = seed,
		.compress_percent = compress_percent,
		.nr_random_words = PATTERN_PAGE_WORDS - body * compress_percent / 100,
	};
}

/* Start of the body's stream: a different one for each (seed, gfn, version). */
static inline uint64_t pattern_base(const struct pattern *p, uint64_t gfn, uint32_t version)
{
	return pattern_mix(p->seed + 0x9e3779b97f4a7c15ull * gfn + 0xd6e8feb86659fd93ull * version);
}

/* One word of the stream from its counter: a multiply and a few single-cycle operations. */
static inline uint64_t pattern_scramble(uint64_t counter)
{
	return (counter ^ (counter >> 32)) * 0xd6e8feb86659fd93ull;
}

#define PATTERN_STEP 0x9e3779b97f4a7c15ull

static inline uint64_t pattern_header_word(const struct pattern *p, uint64_t gfn, uint32_t version,
					   unsigned int i)
{
	uint64_t packed = (uint64_t)p->compress_percent << 32 | version;

	switch (i) {
	case PATTERN_W_MAGIC:
		return PATTERN_MAGIC;
	case PATTERN_W_GFN:
		return gfn;
	case PATTERN_W_SEED:
		return p->seed;
	case PATTERN_W_VERSION:
		return packed;
	default:
		return pattern_mix(gfn ^ pattern_mix(p->seed ^ packed));
	}
}

/* Any single word of a page: what pattern_write would store at index i. */
static inline uint64_t pattern_word(const struct pattern *p, uint64_t gfn, uint32_t version,
				    unsigned int i)
{
	uint64_t base = pattern_base(p, gfn, version);

	if (i < PATTERN_HEADER_WORDS)
		return pattern_header_word(p, gfn, version, i);
	if (i < p->nr_random_words)
		return pattern_scramble(base + i * PATTERN_STEP);
	return base | 1; /* never a zero page */
}

/* volatile: the in-flight protocol of the guest report promises ascending stores. */
static inline void pattern_write(const struct pattern *p, uint64_t gfn, uint32_t version,
				 volatile uint64_t *page)
{
	uint64_t base = pattern_base(p, gfn, version);
	uint64_t counter = base + PATTERN_HEADER_WORDS * PATTERN_STEP;
	unsigned int i;

	for (i = 0; i < PATTERN_HEADER_WORDS; i++)
		page[i] = pattern_header_word(p, gfn, version, i);
	for (; i < p->nr_random_words; i++, counter += PATTERN_STEP)
		page[i] = pattern_scramble(counter);
	for (; i < PATTERN_PAGE_WORDS; i++)
		page[i] = base | 1;
}

static inline bool pattern_header_matches(const struct pattern *p, uint64_t gfn, uint32_t version,
					  const uint64_t *page)
{
	uint64_t diff = 0;
	unsigned int i;

	for (i = 0; i < PATTERN_HEADER_WORDS; i++)
		diff |= page[i] ^ pattern_header_word(p, gfn, version, i);
	return diff == 0;
}

/* Is the page exactly this version? One pass without branches in the body. */
static inline bool pattern_matches(const struct pattern *p, uint64_t gfn, uint32_t version,
				   const uint64_t *page)
{
	uint64_t base = pattern_base(p, gfn, version);
	uint64_t counter = base + PATTERN_HEADER_WORDS * PATTERN_STEP;
	uint64_t diff = 0;
	unsigned int i;

	for (i = PATTERN_HEADER_WORDS; i < p->nr_random_words; i++, counter += PATTERN_STEP)
		diff |= page[i] ^ pattern_scramble(counter);
	for (; i < PATTERN_PAGE_WORDS; i++)
		diff |= page[i] ^ (base | 1);
	return diff == 0 && pattern_header_matches(p, gfn, version, page);
}

static inline uint32_t pattern_found_version(const uint64_t *page)
{
	return (uint32_t)page[PATTERN_W_VERSION];
}

/* Versions count 1, 2, ... and skip 0, which the table uses for "not written yet". */
static inline uint32_t pattern_next_version(uint32_t version)
{
	return version + 1 == 0 ? 1 : version + 1;
}

/* Why a page that must be at version `expected` is not, or PAGE_OK. */
static inline enum page_verdict pattern_verdict(const struct pattern *p, uint64_t gfn,
						uint32_t expected, const uint64_t *page)
{
	uint32_t found = pattern_found_version(page);

	if (pattern_matches(p, gfn, expected, page))
		return PAGE_OK;
	if (page[PATTERN_W_MAGIC] != PATTERN_MAGIC || page[PATTERN_W_GFN] != gfn ||
	    page[PATTERN_W_SEED] != p->seed)
		return PAGE_LOST;
	if (!pattern_matches(p, gfn, found, page))
		return PAGE_TORN;
	return (int32_t)(found - expected) < 0 ? PAGE_STALE : PAGE_AHEAD;
}

static inline const char *pattern_verdict_name(enum page_verdict verdict)
{
	switch (verdict) {
	case PAGE_OK:
		return "ok";
	case PAGE_LOST:
		return "lost";
	case PAGE_STALE:
		return "stale";
	case PAGE_AHEAD:
		return "ahead";
	case PAGE_TORN:
		return "torn";
	}
	return "?";
}

#endif
