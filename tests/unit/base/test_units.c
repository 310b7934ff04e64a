#include "tests/unit/cmocka_all.h"
#include "vmm/base/units.h"

struct sample {
	const char *text;
	int ok;
	uint64_t value;
};

typedef int (*parse_fn)(const char *text, uint64_t *value, struct err *e);

static void check(parse_fn parse, const struct sample *s)
{
	for (; s->text; s++) {
		struct err e = ERR_INIT;
		uint64_t value = 0;
		int ret = parse(s->text, &value, &e);

		if (!s->ok) {
			if (ret >= 0)
				fail_msg("'%s' was taken as %llu", s->text,
					 (unsigned long long)value);
			assert_int_equal(e.kind, ERR_USAGE);
		} else if (ret < 0 || value != s->value) {
			fail_msg("'%s': %d, %llu instead of %llu (%s)", s->text, ret,
				 (unsigned long long)value, (unsigned long long)s->value, e.msg);
		}
	}
}

static void test_bytes(void **state)
{
	static const struct sample samples[] = {
		{"0", 1, 0},           {"4096", 1, 4096}, {"512M", 1, 512ull << 20},
		{"4G", 1, 4ull << 30}, {"1k", 1, 1024},   {"1.5G", 1, 3ull << 29},
		{"2T", 1, 2ull << 40}, {"", 0, 0},        {"G", 0, 0},
		{"-1G", 0, 0},         {"4X", 0, 0},      {"4 G", 0, 0},
		{"99999999T", 0, 0},   {"nan", 0, 0},     {NULL, 0, 0},
	};

	(void)state;
	check(units_parse_bytes, samples);
}

static void test_times(void **state)
{
	static const struct sample samples[] = {
		{"30", 1, 30000000},   {"30ms", 1, 30000000}, {"500us", 1, 500000},
		{"2s", 1, 2000000000}, {"7ns", 1, 7},         {"1.5ms", 1, 1500000},
		{"ms", 0, 0},          {"1h", 0, 0},          {"inf", 0, 0},
		{"1e300s", 0, 0},      {"30ms please", 0, 0}, {NULL, 0, 0},
	};

	(void)state;
	check(units_parse_ns, samples);
}

static void test_rates(void **state)
{
	static const struct sample samples[] = {
		{"0", 1, 0},    {"10Gbps", 1, 1250000000}, {"100MB/s", 1, 100000000},
		{"8bps", 1, 1}, {"1000", 1, 1000},         {"1Gbit", 0, 0},
		{NULL, 0, 0},
	};

	(void)state;
	check(units_parse_rate, samples);
}

static void test_u64_bounds(void **state)
{
	struct err e = ERR_INIT;
	uint64_t v;

	(void)state;
	assert_int_equal(units_parse_u64("16", 1, 16, &v, &e), 0);
	assert_int_equal(v, 16);
	assert_true(units_parse_u64("0", 1, 16, &v, &e) < 0);
	assert_true(units_parse_u64("17", 1, 16, &v, &e) < 0);
	assert_true(units_parse_u64("-1", 0, UINT64_MAX, &v, &e) < 0);
	assert_true(units_parse_u64("4x", 0, 16, &v, &e) < 0);
	assert_true(units_parse_u64("", 0, 16, &v, &e) < 0);
	assert_true(units_parse_u64("99999999999999999999", 0, UINT64_MAX, &v, &e) < 0);
}

static void test_format(void **state)
{
	char out[32];

	(void)state;
	assert_string_equal(units_format_bytes(out, sizeof(out), 0), "0.00 B");
	assert_string_equal(units_format_bytes(out, sizeof(out), 3ull << 30), "3.00 GiB");
	assert_string_equal(units_format_bytes(out, sizeof(out), 500ull << 30), "500 GiB");
	assert_string_equal(units_format_ns(out, sizeof(out), 18400000), "18.4 ms");
	assert_string_equal(units_format_rate(out, sizeof(out), 1250000000), "10.0 Gbit/s");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),  cmocka_unit_test(test_times),
		cmocka_unit_test(test_rates),  cmocka_unit_test(test_u64_bounds),
		cmocka_unit_test(test_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
