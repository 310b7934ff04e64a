/* Reports: JSON there and back, and text that fits on a terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/report_json.h"
#include "control/report_text.h"

static struct migration_report sample(uint32_t nr_rounds)
{
	struct migration_report r = {
		.status = MIGRATION_COMPLETED,
		.ended = true,
		.uri = "tcp:127.0.0.1:4444",
		.tracker = "clear-log",
		.codec = "auto",
		.policy = "patient",
		.nr_channels = 2,
		.nr_fallbacks = 1,
		.verified = true,
		.started_ns = 123456789,
		.total_ns = 1520000000,
		.setup_ns = 3000000,
		.phase = PHASE_COMMIT,
		.ram_bytes = 4ull << 30,
		.wire_bytes = 3ull << 30,
		.bytes_per_s = 1200000000,
		.dirty_pages_per_s = 50000,
		.downtime_limit_ns = 30000000,
		.predicted_downtime_ns = 12300000,
		.downtime_ns = 8100000,
		.blackout = {.present = true, .gap_ns = 9200000, .precopy_max_ns = 1100000},
		.nr_rounds = nr_rounds,
	};

	for (int p = 0; p < NR_PHASES; p++)
		r.phase_ns[p] = 1000000ull * (unsigned int)(p + 1);
	for (uint32_t i = 0; i < nr_rounds; i++)
		r.rounds[i] = (struct round_report){
			.number = i + 1,
			.duration_ns = 1210000000,
			.dirty_pages = 1048576,
			.skipped_pages = 99999,
			.zero_pages = 262144,
			.raw_pages = 786432,
			.compressed_pages = 123456789,
			.wire_bytes = 3ull << 30,
			.dirty_pages_per_s = 50000,
			.predicted_downtime_ns = 410000000,
		};
	return r;
}

static void test_json_round_trip(void **state)
{
	struct migration_report before = sample(REPORT_MAX_ROUNDS);
	struct migration_report after;
	json_t *json = report_to_json(&before);

	(void)state;
	report_from_json(json, &after);
	assert_memory_equal(&before, &after, sizeof(before));
	json_decref(json);
	before.blackout.below = true;
	json = report_to_json(&before);
	report_from_json(json, &after);
	assert_true(after.blackout.below);
	json_decref(json);
}

static void test_json_of_a_failure(void **state)
{
	struct migration_report before = {.status = MIGRATION_UNKNOWN};
	struct migration_report after;
	json_t *json;

	(void)state;
	err_set(&before.error, ERR_PEER, ECONNRESET, "no answer");
	json = report_to_json(&before);
	assert_true(json_is_null(json_object_get(json, "blackout")));
	report_from_json(json, &after);
	assert_int_equal(after.status, MIGRATION_UNKNOWN);
	assert_string_equal(after.error.msg, "no answer");
	assert_false(after.blackout.present);
	json_decref(json);
}

static void test_odd_json_is_survived(void **state)
{
	static const char *const odd[] = {
		"{}", "[]", "null", "{\"rounds\":3,\"phase_ns\":[],\"status\":7,\"blackout\":1}",
		"{\"total_ns\":-5,\"nr_channels\":\"x\",\"rounds\":[1,null,{}]}"};
	struct migration_report r;

	(void)state;
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		json_t *json = json_loads(odd[i], JSON_DECODE_ANY, NULL);

		report_from_json(json, &r);
		assert_int_equal(r.total_ns, 0);
		json_decref(json);
	}
	report_from_json(NULL, &r);
	assert_int_equal(r.status, MIGRATION_NONE);
}

static char *text_of(const struct migration_report *r, bool arrived)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	report_print(out, r, arrived);
	fclose(out);
	return text;
}

static void expect_narrow(const char *text)
{
	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n')
		if (strcspn(line, "\n") > 80)
			fail_msg("too wide: %.*s", (int)strcspn(line, "\n"), line);
}

static void test_text(void **state)
{
	struct migration_report r = sample(3);
	char *text = text_of(&r, false);

	(void)state;
	expect_narrow(text);
	assert_non_null(strstr(text, "Migrated to tcp:127.0.0.1:4444 in 1.52 s\n"));
	assert_non_null(strstr(text, "verified"));
	assert_non_null(strstr(text, "1 of 2 channels fell back to TCP"));
	assert_non_null(strstr(text, "limit 30.0 ms  predicted 12.3 ms  claimed 8.10 ms"));
	assert_non_null(strstr(text, "guest felt 9.20 ms at the switch-over, at most 1.10 ms"));
	free(text);
	text = text_of(&r, true);
	assert_non_null(strstr(text, "Received the guest at "));
	free(text);
	r.blackout.below = true;
	text = text_of(&r, false);
	assert_non_null(strstr(text, "guest felt less than 9.20 ms at the switch-over, at most"));
	free(text);
}

/* What has nothing to do takes no room: a guest without disks, a migration without digests. */
static void test_text_of_the_steps(void **state)
{
	struct migration_report r = sample(1);
	char *text;

	(void)state;
	r.disks.nr = 1;
	text = text_of(&r, false);
	assert_non_null(strstr(text, "  disks       4.00 ms     precopy     5.00 ms"));
	assert_non_null(strstr(text, "  offer "));
	assert_non_null(strstr(text, "  verify "));
	free(text);
	r.disks.nr = 0;
	r.verified = false;
	text = text_of(&r, false);
	assert_non_null(strstr(text, "  track       3.00 ms\n  precopy     5.00 ms"));
	assert_null(strstr(text, "disks"));
	assert_null(strstr(text, "offer"));
	assert_null(strstr(text, "verif"));
	free(text);
}

static void test_text_without_rounds(void **state)
{
	struct migration_report r = {.status = MIGRATION_FAILED, .uri = "tcp:h:1"};
	char *text;

	(void)state;
	err_set(&r.error, ERR_PEER, ECONNREFUSED, "connection refused");
	text = text_of(&r, false);
	assert_string_equal(text, "Migration to tcp:h:1 failed after 0.00 ns\n"
				  "  connection refused\n");
	free(text);
}

static void test_progress_fits(void **state)
{
	struct migration_report r = sample(3);
	char line[200];

	(void)state;
	r.remaining_bytes = 1ull << 30;
	for (int s = MIGRATION_NONE; s <= MIGRATION_DEVICE; s++) {
		r.status = (enum migration_status)s;
		assert_true(strlen(report_progress(line, sizeof(line), &r, false)) < 80);
	}
	r.status = MIGRATION_ACTIVE;
	assert_string_equal(report_progress(line, sizeof(line), &r, false),
			    "round 4  75 %  9.60 Gbit/s  dirty 50000 pages/s  downtime 12.3 ms "
			    "predicted");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json_round_trip),
		cmocka_unit_test(test_json_of_a_failure),
		cmocka_unit_test(test_odd_json_is_survived),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_text_of_the_steps),
		cmocka_unit_test(test_text_without_rounds),
		cmocka_unit_test(test_progress_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
