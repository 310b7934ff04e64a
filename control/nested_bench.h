/*
 * The exit-multiplication table: what the bare-metal L1 measured (nested/l1/bench.c), read from its
 * serial line, and shown. Plain data.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "vmm/base/err.h"

#define BENCH_MAX_KINDS 16
#define BENCH_MAX_RUNS  4

struct bench_cell {
	bool measured;
	bool counted; /* exits are known */
	uint64_t cycles;
	double exits; /* of L0, for each operation */
};

struct bench_run {
	char name[32]; /* "godwit", "godwit, migrated", "qemu" */
	uint64_t tsc_khz;
	uint32_t nr_kinds;
	struct {
		char name[16];
		struct bench_cell level[2]; /* L1, L2 */
	} kind[BENCH_MAX_KINDS];
};

/* The last whole table ("bench begin" to "bench end") in @serial. */
int bench_parse(const char *serial, struct bench_run *out, struct err *e);

void bench_print_text(FILE *out, const struct bench_run *runs, uint32_t nr);
void bench_print_json(FILE *out, const struct bench_run *runs, uint32_t nr);
/* An SVG by gnuplot(1). */
int bench_plot(const char *path, const struct bench_run *runs, uint32_t nr, struct err *e);
