/*
 * How L1 and L2 are, by the lines that they say on the serial port once a second. For hypervisors
 * that have no report page of their own: experiments/testbed/linux-guest/init-hypervisor has these
 * said,
 *
 *   L1: busy t=12 ... mem_bad=0 mono_back=0 ... late_us=900 ...
 *   L2: t=11.2 ... maxgap_us=35634 ... errors=0 ...
 *
 * each about the second before it. Plain data, no state.
 */
#pragma once

#include <stdint.h>

struct lines_pulse {
	uint32_t nr;        /* whole lines */
	uint64_t gap_ns;    /* the longest that any of them tells of */
	uint64_t nr_errors; /* that the last one tells of: they count from the beginning */
};

struct lines {
	struct lines_pulse l1, l2;
};

/* What @text says from its first whole line to its last: a piece of a line, at either end, is not
 * one. */
void lines_read(const char *text, struct lines *out);
