/*
 * Numbers with units, as people type them on a command line and as reports print them.
 * Sizes: K M G T (powers of 1024). Times: ns us ms s (default ms). Rates: bps Kbps Mbps Gbps
 * (powers of 1000, bits) or B/s with K M G. Any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vmm/base/err.h"

int units_parse_bytes(const char *text, uint64_t *bytes, struct err *e);
int units_parse_ns(const char *text, uint64_t *ns, struct err *e);
int units_parse_rate(const char *text, uint64_t *bytes_per_s, struct err *e);
int units_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *value, struct err *e);

/* Into @out (a buffer of @cap bytes), which is returned: "3.2 GiB", "18.4 ms", "9.41 Gbit/s". */
char *units_format_bytes(char *out, size_t cap, uint64_t bytes);
char *units_format_ns(char *out, size_t cap, uint64_t ns);
char *units_format_rate(char *out, size_t cap, uint64_t bytes_per_s);
