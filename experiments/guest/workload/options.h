/* The command line of the workload guest: key=value words; an unknown or bad one is an error. */
#ifndef GODWIT_EXPERIMENTS_GUEST_WORKLOAD_OPTIONS_H
#define GODWIT_EXPERIMENTS_GUEST_WORKLOAD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum access_pattern {
	ACCESS_SEQUENTIAL,
	ACCESS_UNIFORM,
	ACCESS_ZIPF,
	ACCESS_HOTCOLD
};

struct options {
	uint64_t fill_bytes;
	uint64_t ws_bytes;
	uint64_t rate; /* pages per second over all vCPUs, 0: unlimited */
	uint64_t seed;
	uint64_t compress_percent;
	uint64_t nr_cpus;
	uint64_t gap_us;     /* shorter gaps do not count */
	uint64_t longgap_us; /* gaps this long are put in the ring of recent ones */
	uint64_t tsc_khz;    /* 0: find out */
	enum access_pattern pattern;
	bool verify;
	bool quiet; /* no line every second */
};

/*
 * Fills `o` from the command line; NULL, or a complete sentence on what is wrong, with *bad
 * pointing at the word concerned.
 */
const char *options_parse(struct options *o, const char *cmdline, const char **bad);

#endif
