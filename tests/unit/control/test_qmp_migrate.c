/* Migration over QMP: parameters, capabilities, query-migrate; errors as QEMU 7.2 words them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "control/qmp_dispatch.h"
#include "fake_target.h"

static struct fake_target fake;
static struct qmp_peer peer;

static int setup(void **state)
{
	(void)state;
	fake_target_init(&fake);
	peer = (struct qmp_peer){.negotiated = true};
	return 0;
}

static json_t *ask(const char *command, const char *args)
{
	const struct qmp_target target = {&fake_ops, &fake};
	char request[512];
	json_t *answer;

	snprintf(request, sizeof(request), "{\"execute\":\"%s\",\"arguments\":%s}", command, args);
	answer = qmp_answer(&target, &peer, request, strlen(request));
	assert_non_null(answer);
	return answer;
}

static json_t *result(const char *command, const char *args)
{
	json_t *answer = ask(command, args);
	json_t *value = json_incref(json_object_get(answer, "return"));

	assert_non_null(value);
	json_decref(answer);
	return value;
}

static void expect_error(const char *command, const char *args, const char *text)
{
	json_t *answer = ask(command, args);
	const char *desc =
		json_string_value(json_object_get(json_object_get(answer, "error"), "desc"));

	assert_non_null(desc);
	if (!strstr(desc, text))
		fail_msg("'%s' does not say '%s'", desc, text);
	json_decref(answer);
}

static json_int_t number(json_t *json, const char *name)
{
	json_t *value = json_object_get(json, name);

	assert_true(json_is_integer(value));
	return json_integer_value(value);
}

static void test_migrate_arguments(void **state)
{
	(void)state;
	expect_error("migrate", "{}", "Parameter 'uri' is missing");
	expect_error("migrate", "{\"uri\":3}",
		     "Invalid parameter type for 'uri', expected: string");
	json_decref(result("migrate", "{\"uri\":\"tcp:h:1\",\"detach\":true}"));
	assert_string_equal(fake.uri, "tcp:h:1");
	json_decref(result("migrate_cancel", "{}"));
	assert_int_equal(fake.nr_cancels, 1);
}

static void test_parameters_in_qemus_units(void **state)
{
	struct migration_params p;
	json_t *now;

	(void)state;
	json_decref(result("migrate-set-parameters",
			   "{\"downtime-limit\":30,\"max-bandwidth\":125000000,"
			   "\"multifd-channels\":4,\"multifd-compression\":\"lz4\","
			   "\"x-godwit-tracker\":\"clear-log\",\"x-godwit-max-rounds\":9}"));
	migration_settings_resolve(&fake.settings, &p);
	assert_int_equal(p.downtime_limit_ns, 30000000);
	assert_int_equal(p.max_bytes_per_s, 125000000);
	assert_string_equal(p.codec, "lz4");
	assert_string_equal(p.tracker, "clear-log");
	assert_int_equal(p.max_rounds, 9);
	assert_int_equal(p.nr_channels, 1); /* until the multifd capability is on, as in QEMU */
	json_decref(result("migrate-set-capabilities",
			   "{\"capabilities\":[{\"capability\":\"multifd\",\"state\":true}]}"));
	migration_settings_resolve(&fake.settings, &p);
	assert_int_equal(p.nr_channels, 4);
	now = result("query-migrate-parameters", "{}");
	assert_int_equal(number(now, "downtime-limit"), 30);
	assert_int_equal(number(now, "x-godwit-downtime-limit-ns"), 30000000);
	assert_int_equal(number(now, "multifd-channels"), 4);
	assert_string_equal(json_string_value(json_object_get(now, "x-godwit-codec")), "lz4");
	json_decref(now);
}

static void test_bad_parameters_change_nothing(void **state)
{
	struct migration_settings before = fake.settings;

	(void)state;
	expect_error("migrate-set-parameters", "{\"downtime-limit\":-1}",
		     "Parameter 'downtime-limit' expects an integer in the range of");
	expect_error("migrate-set-parameters", "{\"downtime-limit\":\"x\"}",
		     "Invalid parameter type for 'downtime-limit', expected: integer");
	expect_error("migrate-set-parameters", "{\"max-bandwidth\":5,\"multifd-channels\":0}",
		     "Parameter 'multifd-channels' expects a value between 1 and 16");
	expect_error("migrate-set-parameters", "{\"cpu-throttle-initial\":0}",
		     "Parameter 'cpu-throttle-initial' expects an integer in the range of 1 to 99");
	expect_error("migrate-set-parameters",
		     "{\"cpu-throttle-initial\":50,\"max-cpu-throttle\":40}",
		     "Parameter 'max-cpu-throttle' expects an integer in the range of "
		     "cpu-throttle-initial to 99");
	expect_error("migrate-set-parameters", "{\"multifd-compression\":\"zip\"}",
		     "Parameter 'multifd-compression' does not accept value 'zip'");
	expect_error("migrate-set-parameters", "{\"x-godwit-codec\":\"aaaaaaaaaaaaaaaaaaaaaa\"}",
		     "does not accept value");
	expect_error("migrate-set-parameters", "{\"xbzrle-cache-size\":1}",
		     "Parameter 'xbzrle-cache-size' is unexpected");
	assert_memory_equal(&before, &fake.settings, sizeof(before));
}

static void test_capabilities(void **state)
{
	json_t *list;

	(void)state;
	expect_error("migrate-set-capabilities",
		     "{\"capabilities\":[{\"capability\":\"zz\",\"state\":true}]}",
		     "Parameter 'capability' does not accept value 'zz'");
	expect_error("migrate-set-capabilities",
		     "{\"capabilities\":[{\"capability\":\"multifd\"}]}",
		     "Parameter 'capabilities[0].state' is missing");
	expect_error("migrate-set-capabilities", "{\"capabilities\":[3]}",
		     "Invalid parameter type for 'capabilities[0]', expected: object");
	expect_error("migrate-set-capabilities",
		     "{\"capabilities\":[{\"capability\":\"multifd\",\"state\":true},"
		     "{\"capability\":\"zz\",\"state\":true}]}",
		     "does not accept value 'zz'");
	assert_false(fake.settings.multifd);
	list = result("query-migrate-capabilities", "{}");
	assert_int_equal(json_array_size(list), 5);
	json_decref(list);
}

static void test_no_change_during_a_migration(void **state)
{
	(void)state;
	fake.active = true;
	expect_error("migrate-set-parameters", "{\"downtime-limit\":1}",
		     "There's a migration process in progress: wait for its end or cancel it");
	expect_error("migrate-set-capabilities", "{\"capabilities\":[]}",
		     "There's a migration process in progress: wait for its end or cancel it");
}

static void fill_report(struct migration_report *r)
{
	r->status = MIGRATION_COMPLETED;
	strcpy(r->uri, "tcp:h:1");
	r->total_ns = 2000000000;
	r->setup_ns = 3000000;
	r->downtime_ns = 8400000;
	r->ram_bytes = 4ull << 30;
	r->wire_bytes = 1000000000;
	r->nr_channels = 1;
	r->nr_rounds = 2;
	r->rounds[0] = (struct round_report){
		.number = 1, .zero_pages = 10, .raw_pages = 20, .wire_bytes = 900000000};
	r->rounds[1] =
		(struct round_report){.number = 2, .compressed_pages = 5, .wire_bytes = 100000000};
}

static void test_query_migrate(void **state)
{
	json_t *info = result("query-migrate", "{}");
	json_t *ram;

	(void)state;
	assert_int_equal(json_object_size(info), 0);
	json_decref(info);
	fake.has_report = true;
	fill_report(&fake.report);
	info = result("query-migrate", "{}");
	assert_string_equal(json_string_value(json_object_get(info, "status")), "completed");
	assert_int_equal(number(info, "total-time"), 2000);
	assert_int_equal(number(info, "downtime"), 8);
	assert_int_equal(number(info, "setup-time"), 3);
	ram = json_object_get(info, "ram");
	assert_int_equal(number(ram, "transferred"), 1000000000);
	assert_int_equal(number(ram, "downtime-bytes"), 100000000);
	assert_int_equal(number(ram, "precopy-bytes"), 900000000);
	assert_int_equal(number(ram, "duplicate"), 10);
	assert_int_equal(number(ram, "normal"), 25);
	assert_int_equal(number(ram, "dirty-sync-count"), 2);
	assert_true(json_real_value(json_object_get(ram, "mbps")) == 4000.0);
	assert_int_equal(
		json_array_size(json_object_get(json_object_get(info, "x-godwit"), "rounds")), 2);
	json_decref(info);
}

static void test_failed_and_unknown_say_why(void **state)
{
	struct err *e = &fake.report.error;
	json_t *info;

	(void)state;
	fake.has_report = true;
	fake.report.status = MIGRATION_UNKNOWN;
	err_set(e, ERR_PEER, ECONNRESET, "connection lost \xc3");
	info = result("query-migrate", "{}");
	assert_string_equal(json_string_value(json_object_get(info, "status")), "failed");
	assert_string_equal(json_string_value(json_object_get(info, "error-desc")),
			    "connection lost ?");
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(info, "x-godwit"), "status")),
		"unknown");
	json_decref(info);
}

static void test_socket_address(void **state)
{
	json_t *info;
	json_t *address;

	(void)state;
	fake.listen_address = "tcp:127.0.0.1:4444";
	info = result("query-migrate", "{}");
	address = json_array_get(json_object_get(info, "socket-address"), 0);
	assert_string_equal(json_string_value(json_object_get(address, "port")), "4444");
	json_decref(info);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_migrate_arguments, setup),
		cmocka_unit_test_setup(test_parameters_in_qemus_units, setup),
		cmocka_unit_test_setup(test_bad_parameters_change_nothing, setup),
		cmocka_unit_test_setup(test_capabilities, setup),
		cmocka_unit_test_setup(test_no_change_during_a_migration, setup),
		cmocka_unit_test_setup(test_query_migrate, setup),
		cmocka_unit_test_setup(test_failed_and_unknown_say_why, setup),
		cmocka_unit_test_setup(test_socket_address, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
