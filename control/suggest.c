#include "control/suggest.h"

#include <stdint.h>
#include <string.h>

#define WORD_MAX 63

static size_t min2(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* The optimal string alignment distance, three rows at a time. */
size_t suggest_distance(const char *a, const char *b)
{
	size_t row[3][WORD_MAX + 1];
	size_t la = strlen(a);
	size_t lb = strlen(b);

	if (la > WORD_MAX || lb > WORD_MAX)
		return la + lb;
	for (size_t j = 0; j <= lb; j++)
		row[0][j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t *now = row[i % 3];
		const size_t *up = row[(i + 2) % 3];
		const size_t *up2 = row[(i + 1) % 3];

		now[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			now[j] = min2(min2(up[j], now[j - 1]) + 1,
				      up[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				now[j] = min2(now[j], up2[j - 2] + 1);
		}
	}
	return row[la % 3][lb];
}

const char *suggest_name(const char *wrong, const char *const *first, size_t nr, size_t stride)
{
	const char *best = NULL;
	size_t best_distance = strlen(wrong) / 3 + 2;

	for (size_t i = 0; i < nr; i++) {
		const char *name = *(const char *const *)((uintptr_t)first + i * stride);
		size_t distance = suggest_distance(wrong, name);

		if (distance >= best_distance)
			continue;
		best = name;
		best_distance = distance;
	}
	return best;
}
