#include "vmm/base/units.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

struct unit {
	const char *suffix;
	double factor;
};

static const struct unit byte_units[] = {
	{"", 1},
	{"B", 1},
	{"K", 1024.0},
	{"KiB", 1024.0},
	{"M", 1048576.0},
	{"MiB", 1048576.0},
	{"G", 1073741824.0},
	{"GiB", 1073741824.0},
	{"T", 1099511627776.0},
	{"TiB", 1099511627776.0},
	{NULL, 0},
};

static const struct unit time_units[] = {
	{"", 1e6}, {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {NULL, 0},
};

static const struct unit rate_units[] = {
	{"", 1},        {"B/s", 1},    {"KB/s", 1e3},   {"MB/s", 1e6},   {"GB/s", 1e9},
	{"bps", 0.125}, {"Kbps", 125}, {"Mbps", 125e3}, {"Gbps", 125e6}, {NULL, 0},
};

static int parse(const char *text, const struct unit *units, const char *what, const char *example,
		 uint64_t *value, struct err *e)
{
	char *end;
	double number;

	errno = 0;
	number = strtod(text, &end);
	if (end == text || !isdigit((unsigned char)text[0]) || errno == ERANGE)
		return err_set(e, ERR_USAGE, EINVAL, "'%s' is not a %s; write it like %s", text,
			       what, example);
	for (; units->suffix; units++) {
		if (strcasecmp(end, units->suffix))
			continue;
		if (number * units->factor >= 9.2e18)
			break;
		*value = (uint64_t)llround(number * units->factor);
		return 0;
	}
	return err_set(e, ERR_USAGE, EINVAL, "'%s' is not a %s; write it like %s", text, what,
		       example);
}

int units_parse_bytes(const char *text, uint64_t *bytes, struct err *e)
{
	return parse(text, byte_units, "size", "512M or 4G", bytes, e);
}

int units_parse_ns(const char *text, uint64_t *ns, struct err *e)
{
	return parse(text, time_units, "time", "30ms, 500us or 2s", ns, e);
}

int units_parse_rate(const char *text, uint64_t *bytes_per_s, struct err *e)
{
	return parse(text, rate_units, "rate", "10Gbps or 100MB/s", bytes_per_s, e);
}

int units_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *value, struct err *e)
{
	char *end;

	errno = 0;
	*value = strtoull(text, &end, 0);
	if (errno || end == text || *end || text[0] == '-' || *value < min || *value > max)
		return err_set(e, ERR_USAGE, EINVAL, "'%s' is not a number from %llu to %llu", text,
			       (unsigned long long)min, (unsigned long long)max);
	return 0;
}

static char *format(char *out, size_t cap, double value, double step, const char *const *names)
{
	while (value >= step && names[1]) {
		value /= step;
		names++;
	}
	snprintf(out, cap, "%.*f %s", value < 10 ? 2 : value < 100 ? 1 : 0, value, names[0]);
	return out;
}

char *units_format_bytes(char *out, size_t cap, uint64_t bytes)
{
	static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", NULL};

	return format(out, cap, (double)bytes, 1024, names);
}

char *units_format_ns(char *out, size_t cap, uint64_t ns)
{
	static const char *const names[] = {"ns", "us", "ms", "s", NULL};

	return format(out, cap, (double)ns, 1000, names);
}

char *units_format_rate(char *out, size_t cap, uint64_t bytes_per_s)
{
	static const char *const names[] = {"bit/s", "kbit/s", "Mbit/s", "Gbit/s", NULL};

	return format(out, cap, (double)bytes_per_s * 8, 1000, names);
}
