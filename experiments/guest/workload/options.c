#include "experiments/guest/workload/options.h"

#include <stddef.h>

#include "vmm/guest_report.h"

struct number_option {
	const char *key;
	size_t offset;
	uint64_t min, max;
};

#define NUMBER(name, field, low, high)                           \
	{                                                        \
		name, offsetof(struct options, field), low, high \
	}

static const struct number_option numbers[] = {
	NUMBER("fill", fill_bytes, 1 << 20, 512ull << 30),
	NUMBER("ws", ws_bytes, 0, 512ull << 30),
	NUMBER("rate", rate, 0, 1000000000),
	NUMBER("seed", seed, 0, UINT64_MAX),
	NUMBER("compress", compress_percent, 0, 100),
	NUMBER("cpus", nr_cpus, 1, GUEST_REPORT_MAX_CPUS),
	NUMBER("gap", gap_us, 1, 1000000000),
	NUMBER("longgap", longgap_us, 1, 1000000000),
	NUMBER("tsc_khz", tsc_khz, 1000, 100000000),
};

static const char *const patterns[] = {
	[ACCESS_SEQUENTIAL] = "sequential",
	[ACCESS_UNIFORM] = "uniform",
	[ACCESS_ZIPF] = "zipf",
	[ACCESS_HOTCOLD] = "hotcold",
};

static bool is_end(char c)
{
	return c == '\0' || c == ' ' || c == '\t' || c == '\n';
}

/* Does `word` begin with `key` and `stop`? Then what follows, otherwise NULL. */
static const char *after_key(const char *word, const char *key, char stop)
{
	while (*key != '\0' && *word == *key) {
		word++;
		key++;
	}
	if (*key != '\0' || *word != stop)
		return NULL;
	return word + 1;
}

static bool word_is(const char *word, const char *text)
{
	while (*text != '\0' && *word == *text) {
		word++;
		text++;
	}
	return *text == '\0' && is_end(*word);
}

/* K, M and G are binary, as everywhere in Godwit. */
static unsigned int suffix_shift(char c)
{
	switch (c) {
	case 'k':
	case 'K':
		return 10;
	case 'm':
	case 'M':
		return 20;
	case 'g':
	case 'G':
		return 30;
	default:
		return 0;
	}
}

static bool parse_number(const char *s, uint64_t *out)
{
	uint64_t value = 0;
	const char *start = s;
	unsigned int shift;

	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(value, 10u, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*s - '0'), &value))
			return false;
	if (s == start)
		return false;
	shift = suffix_shift(*s);
	if (shift != 0)
		s++;
	*out = value << shift;
	return is_end(*s) && *out >> shift == value;
}

static const char *parse_flag(const char *value, bool *out)
{
	uint64_t n;

	if (!parse_number(value, &n) || n > 1)
		return "takes 0 or 1";
	*out = n == 1;
	return NULL;
}

static const char *parse_pattern(const char *value, enum access_pattern *out)
{
	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
		if (word_is(value, patterns[i])) {
			*out = (enum access_pattern)i;
			return NULL;
		}
	return "takes sequential, uniform, zipf or hotcold";
}

static const char *parse_option_number(struct options *o, const struct number_option *n,
				       const char *value)
{
	uint64_t *field = (uint64_t *)(void *)((char *)o + n->offset);

	if (!parse_number(value, field))
		return "is not a number (K, M and G suffixes are accepted)";
	return *field < n->min || *field > n->max ? "is out of range" : NULL;
}

static const char *parse_word(struct options *o, const char *word)
{
	const char *value;

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if ((value = after_key(word, numbers[i].key, '=')) != NULL)
			return parse_option_number(o, &numbers[i], value);
	if ((value = after_key(word, "pattern", '=')) != NULL)
		return parse_pattern(value, &o->pattern);
	if ((value = after_key(word, "verify", '=')) != NULL)
		return parse_flag(value, &o->verify);
	if ((value = after_key(word, "quiet", '=')) != NULL)
		return parse_flag(value, &o->quiet);
	if (word_is(word, "quiet")) {
		o->quiet = true;
		return NULL;
	}
	if (after_key(word, "virtio_mmio", '.') != NULL)
		return NULL; /* QEMU's microvm adds these by itself */
	return "is unknown (known: fill ws rate pattern compress seed cpus verify gap longgap "
	       "tsc_khz quiet)";
}

static const char *check_sizes(const struct options *o)
{
	uint64_t page = 4096;

	if (o->ws_bytes > o->fill_bytes)
		return "the working set must fit in the fill: lower ws= or raise fill=";
	if (o->ws_bytes != 0 && o->ws_bytes / page < o->nr_cpus)
		return "ws= must be 0 or give every vCPU a page";
	return NULL;
}

const char *options_parse(struct options *o, const char *cmdline, const char **bad)
{
	const char *problem;

	*o = (struct options){.fill_bytes = 256ull << 20,
			      .ws_bytes = UINT64_MAX,
			      .rate = 1000,
			      .seed = 1,
			      .nr_cpus = 1,
			      .gap_us = 50,
			      .longgap_us = 1000,
			      .pattern = ACCESS_UNIFORM,
			      .verify = true};
	while (*cmdline != '\0') {
		if (is_end(*cmdline)) {
			cmdline++;
			continue;
		}
		*bad = cmdline;
		problem = parse_word(o, cmdline);
		if (problem != NULL)
			return problem;
		while (!is_end(*cmdline))
			cmdline++;
	}
	*bad = NULL;
	if (o->ws_bytes == UINT64_MAX)
		o->ws_bytes = o->fill_bytes / 4;
	return check_sizes(o);
}
