#include <string.h>

#include "migration/params.h"
#include "migration/report.h"
#include "tests/unit/cmocka_all.h"

static void expect(const struct migration_params *p, const char *complaint)
{
	struct err e = ERR_INIT;
	int ret = migration_params_check(p, &e);

	if (!complaint) {
		assert_int_equal(ret, 0);
		return;
	}
	assert_true(ret < 0);
	assert_int_equal(e.kind, ERR_USAGE);
	if (!strstr(e.msg, complaint))
		fail_msg("'%s' does not say '%s'", e.msg, complaint);
}

static void test_defaults_are_good(void **state)
{
	struct migration_params p;

	(void)state;
	migration_params_init(&p);
	expect(&p, NULL);
	assert_int_equal(p.downtime_limit_ns, 300000000);
	assert_int_equal(p.nr_channels, 1);
	assert_string_equal(p.codec, "auto");
	assert_string_equal(p.tracker, "bitmap");
	assert_false(p.verify);
}

static void test_refusals_name_the_field(void **state)
{
	struct migration_params p;

	(void)state;
	migration_params_init(&p);
	p.nr_channels = 0;
	expect(&p, "channels");
	p.nr_channels = MIGRATION_MAX_CHANNELS + 1;
	expect(&p, "channels");
	migration_params_init(&p);
	p.downtime_limit_ns = 0;
	expect(&p, "downtime limit");
	migration_params_init(&p);
	strcpy(p.codec, "gzip");
	expect(&p, "there is no codec 'gzip'");
	migration_params_init(&p);
	strcpy(p.tracker, "guess");
	expect(&p, "there is no dirty tracker 'guess'");
	strcpy(p.tracker, "clear-log");
	expect(&p, NULL);
}

static void test_every_status_and_phase_has_a_name(void **state)
{
	(void)state;
	for (int s = MIGRATION_NONE; s <= MIGRATION_UNKNOWN; s++)
		assert_true(migration_status_name((enum migration_status)s)[0] != '\0');
	for (int p = 0; p < NR_PHASES; p++)
		assert_string_not_equal(migration_phase_name((enum migration_phase)p), "unknown");
	assert_string_equal(migration_phase_name(NR_PHASES), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults_are_good),
		cmocka_unit_test(test_refusals_name_the_field),
		cmocka_unit_test(test_every_status_and_phase_has_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
