/* Which page of the working set to write next. Integers only. */
#include "experiments/guest/workload/workload.h"

/* Prime, so multiplying by it permutes the ranks of any working set it does not divide. */
#define SCATTER      2654435761ull
#define HOT_SHARE    10 /* hotcold: a tenth of the pages ... */
#define HOT_ACCESSES 90 /* ... gets 90 % of the writes */

void cpu_seed_random(struct cpu *c)
{
	c->random = pattern_mix(c->w->options.seed + 0x9e3779b97f4a7c15ull * (c->report->cpu + 1));
	if (c->random == 0)
		c->random = 1;
}

static uint64_t next_random(struct cpu *c)
{
	uint64_t x = c->random;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	c->random = x;
	return x * 0x2545f4914f6cdd1dull;
}

uint64_t cpu_random_below(struct cpu *c, uint64_t n)
{
	return (uint64_t)((unsigned __int128)next_random(c) * n >> 64);
}

/*
 * Zipf with exponent 1 in steps: every octave of ranks [2^b - 1, 2^(b+1) - 1) is equally likely,
 * and so is every rank within one. The few ranks beyond the set are drawn again. Ranks are
 * scattered over the set, so that hot pages are not neighbours.
 */
static uint64_t pick_zipf(struct cpu *c, uint64_t n)
{
	unsigned int octaves = 64u - (unsigned int)__builtin_clzll(n);
	uint64_t octave, rank;

	do {
		octave = cpu_random_below(c, octaves);
		rank = (1ull << octave) - 1 + cpu_random_below(c, 1ull << octave);
	} while (rank >= n);
	return rank * SCATTER % n;
}

static uint64_t pick_hotcold(struct cpu *c, uint64_t n)
{
	uint64_t hot = n / HOT_SHARE;

	if (hot == 0 || cpu_random_below(c, 100) >= HOT_ACCESSES)
		return hot + cpu_random_below(c, n - hot);
	return cpu_random_below(c, hot);
}

uint64_t cpu_pick_page(struct cpu *c)
{
	uint64_t n = c->report->nr_ws_pages;

	switch (c->w->options.pattern) {
	case ACCESS_SEQUENTIAL:
		c->cursor = c->cursor + 1 < n ? c->cursor + 1 : 0;
		return c->cursor;
	case ACCESS_ZIPF:
		return pick_zipf(c, n);
	case ACCESS_HOTCOLD:
		return pick_hotcold(c, n);
	case ACCESS_UNIFORM:
		break;
	}
	return cpu_random_below(c, n);
}
