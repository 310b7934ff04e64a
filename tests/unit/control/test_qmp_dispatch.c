/* Requests and answers, compared with what QEMU 7.2 says to the same requests. */
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

static json_t *ask(const char *request)
{
	const struct qmp_target target = {&fake_ops, &fake};
	json_t *answer = qmp_answer(&target, &peer, request, strlen(request));

	assert_non_null(answer);
	return answer;
}

static void expect_error(const char *request, const char *class, const char *desc)
{
	json_t *answer = ask(request);
	json_t *error = json_object_get(answer, "error");

	assert_non_null(error);
	assert_string_equal(json_string_value(json_object_get(error, "class")), class);
	assert_string_equal(json_string_value(json_object_get(error, "desc")), desc);
	json_decref(answer);
}

static void expect(const char *request, const char *answer_text)
{
	json_t *answer = ask(request);
	char *text = json_dumps(answer, JSON_SORT_KEYS | JSON_COMPACT);

	assert_string_equal(text, answer_text);
	free(text);
	json_decref(answer);
}

static void expect_done(const char *request)
{
	expect(request, "{\"return\":{}}");
}

static void test_negotiation(void **state)
{
	(void)state;
	peer.negotiated = false;
	expect_error("{\"execute\":\"query-status\"}", "CommandNotFound",
		     "Expecting capabilities negotiation with 'qmp_capabilities'");
	expect_error("{\"execute\":\"qmp_capabilities\",\"arguments\":{\"x\":1}}", "GenericError",
		     "Parameter 'x' is unexpected");
	assert_false(peer.negotiated);
	expect("{\"execute\":\"qmp_capabilities\",\"id\":\"a\"}", "{\"id\":\"a\",\"return\":{}}");
	assert_true(peer.negotiated);
	expect_error("{\"execute\":\"qmp_capabilities\"}", "CommandNotFound",
		     "Capabilities negotiation is already complete, command ignored");
}

static void test_envelope(void **state)
{
	(void)state;
	expect_error("[1]", "GenericError", "QMP input must be a JSON object");
	expect_error("3", "GenericError", "QMP input must be a JSON object");
	expect_error("{\"exec\":\"foo\"}", "GenericError", "QMP input member 'exec' is unexpected");
	expect_error("{\"execute\":3}", "GenericError",
		     "QMP input member 'execute' must be a string");
	expect_error("{\"execute\":\"query-status\",\"arguments\":3}", "GenericError",
		     "QMP input member 'arguments' must be an object");
	expect_error("{}", "GenericError", "QMP input lacks member 'execute'");
	expect_error("{\"execute\":\"foo\"}", "CommandNotFound",
		     "The command foo has not been found");
	expect_error("{\"execute\":\"query-status\",\"arguments\":{\"zz\":3}}", "GenericError",
		     "Parameter 'zz' is unexpected");
}

static void test_broken_json_is_an_error(void **state)
{
	static const char *const broken[] = {"garbage",    "{",
					     "{\"a\":1,}", "\"\\ud800\"",
					     "{\"a\" 1}",  "{\"execute\":\"\xff\"}",
					     "",           "{\"a\":1}{"};

	(void)state;
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		json_t *answer = ask(broken[i]);

		assert_non_null(json_object_get(answer, "error"));
		json_decref(answer);
	}
}

static void test_any_id_comes_back(void **state)
{
	(void)state;
	expect("{\"execute\":\"stop\",\"id\":{\"x\":[1,null]}}",
	       "{\"id\":{\"x\":[1,null]},\"return\":{}}");
	expect("{\"execute\":\"nope\",\"id\":7}",
	       "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"The command nope has not been "
	       "found\"},\"id\":7}");
}

static void test_machine_queries(void **state)
{
	(void)state;
	expect("{\"execute\":\"query-status\"}",
	       "{\"return\":{\"running\":true,\"singlestep\":false,\"status\":\"running\"}}");
	fake.status = VM_POSTMIGRATE;
	expect("{\"execute\":\"query-status\"}", "{\"return\":{\"running\":false,\"singlestep\":"
						 "false,\"status\":\"postmigrate\"}}");
	expect("{\"execute\":\"query-kvm\"}", "{\"return\":{\"enabled\":true,\"present\":true}}");
	expect("{\"execute\":\"x-godwit-guest-memory\"}",
	       "{\"return\":{\"fd\":9,\"pid\":7,\"report-gpa\":1150976,\"slots\":[{\"bytes\":"
	       "268435456,\"gpa\":0,\"slot\":0}]}}");
	expect("{\"execute\":\"x-godwit-guest-blackout\"}",
	       "{\"return\":{\"gap_ns\":5,\"precopy_max_ns\":3,\"present\":true}}");
}

static void test_nested(void **state)
{
	(void)state;
	expect("{\"execute\":\"x-godwit-nested\"}",
	       "{\"return\":[{\"control-gpa\":12288,\"cpu-index\":0,\"entry-pending\":false,"
	       "\"gif\":"
	       "true,\"in-l2\":true,\"l1-rip\":1065368,\"nested-paging\":false,\"step-pending\":"
	       "false,\"text\":\"SVM: in "
	       "L2, VMCB at 0x3000, shadow paging, L1 goes on at 0x104198\",\"vendor\":\"SVM\"},"
	       "{\"cpu-index\":1,\"entry-pending\":false,\"gif\":false,\"in-l2\":false,\"step-"
	       "pending\":false,\"text\":"
	       "\"no nesting\",\"vendor\":\"none\"}]}");
}

static void test_cpus(void **state)
{
	json_t *answer = ask("{\"execute\":\"query-cpus-fast\"}");
	json_t *list = json_object_get(answer, "return");

	(void)state;
	assert_int_equal(json_array_size(list), 2);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 1), "thread-id")),
			 101);
	json_decref(answer);
}

static void test_verbs_reach_the_machine(void **state)
{
	(void)state;
	expect_done("{\"execute\":\"stop\"}");
	assert_int_equal(fake.status, VM_PAUSED);
	expect_done("{\"execute\":\"cont\"}");
	assert_int_equal(fake.status, VM_RUNNING);
	assert_int_equal(fake.nr_forced, 0);
	expect_done("{\"execute\":\"cont\",\"arguments\":{\"x-godwit-force\":true}}");
	assert_int_equal(fake.nr_forced, 1);
	expect_done("{\"execute\":\"system_reset\"}");
	expect_done("{\"execute\":\"system_powerdown\"}");
	expect_done("{\"execute\":\"quit\"}");
	assert_int_equal(fake.nr_resets + fake.nr_powerdowns + fake.nr_quits, 3);
	fake.refuse = true;
	expect_error("{\"execute\":\"cont\"}", "GenericError", "the fake refuses");
}

static void test_every_command_survives_every_argument(void **state)
{
	static const char *const values[] = {
		"1",    "-1", "\"\"",  "\"tcp:h:1\"", "null", "true",           "[]",
		"[{}]", "{}", "1e300", "1.5",         "[1]",  "[{\"state\":1}]"};
	static const char *const names[] = {"uri", "capabilities", "downtime-limit", "x"};
	const struct qmp_command *c;
	char request[256];

	(void)state;
	for (size_t n = 0; (c = qmp_command_at(n)); n++)
		for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
			for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
				snprintf(request, sizeof(request),
					 "{\"execute\":\"%s\",\"arguments\":{\"%s\":%s}}", c->name,
					 names[k], values[i]);
				json_decref(ask(request));
			}
}

static void test_too_long(void **state)
{
	const struct qmp_target target = {&fake_ops, &fake};
	json_t *answer = qmp_answer(&target, &peer, NULL, 0);

	(void)state;
	assert_non_null(json_object_get(answer, "error"));
	json_decref(answer);
}

static void test_commands_are_listed(void **state)
{
	json_t *answer = ask("{\"execute\":\"query-commands\"}");
	json_t *list = json_object_get(answer, "return");
	const struct qmp_command *c;
	size_t nr = 0;

	(void)state;
	for (size_t n = 0; (c = qmp_command_at(n)); n++)
		nr++;
	assert_int_equal(json_array_size(list), nr + 1); /* and qmp_capabilities */
	json_decref(answer);
}

static void test_announce_self(void **state)
{
	(void)state;
	expect_done("{\"execute\":\"announce-self\"}");
	assert_int_equal(fake.announced.initial_ms, 50);
	assert_int_equal(fake.announced.max_ms, 550);
	assert_int_equal(fake.announced.rounds, 5);
	assert_int_equal(fake.announced.step_ms, 100);
	expect_done("{\"execute\":\"migrate-set-parameters\",\"arguments\":{"
		    "\"announce-step\":7}}");
	expect_done("{\"execute\":\"announce-self\",\"arguments\":{\"initial\":1,\"rounds\":2}}");
	assert_int_equal(fake.announced.initial_ms, 1);
	assert_int_equal(fake.announced.rounds, 2);
	assert_int_equal(fake.announced.step_ms, 7);
	assert_int_equal(fake.settings.params.announce.initial_ms, 50);
	expect_error("{\"execute\":\"announce-self\",\"arguments\":{\"rounds\":1001}}",
		     "GenericError",
		     "Parameter 'announce-rounds' expects a value between 0 and 1000");
	fake.refuse = true;
	expect_error("{\"execute\":\"announce-self\"}", "GenericError", "the fake refuses");
}

static void test_balloon(void **state)
{
	(void)state;
	expect_done("{\"execute\":\"balloon\",\"arguments\":{\"value\":268435456}}");
	expect("{\"execute\":\"query-balloon\"}",
	       "{\"return\":{\"actual\":268435456,\"x-godwit-stats\":{\"stat-swap-in\":7}}}");
	expect_error("{\"execute\":\"balloon\",\"arguments\":{\"value\":0}}", "GenericError",
		     "Parameter 'value' expects a size");
	expect_error("{\"execute\":\"balloon\"}", "GenericError", "Parameter 'value' is missing");
	fake.refuse = true;
	expect_error("{\"execute\":\"query-balloon\"}", "GenericError", "the fake refuses");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_negotiation, setup),
		cmocka_unit_test_setup(test_announce_self, setup),
		cmocka_unit_test_setup(test_balloon, setup),
		cmocka_unit_test_setup(test_envelope, setup),
		cmocka_unit_test_setup(test_broken_json_is_an_error, setup),
		cmocka_unit_test_setup(test_any_id_comes_back, setup),
		cmocka_unit_test_setup(test_machine_queries, setup),
		cmocka_unit_test_setup(test_cpus, setup),
		cmocka_unit_test_setup(test_nested, setup),
		cmocka_unit_test_setup(test_verbs_reach_the_machine, setup),
		cmocka_unit_test_setup(test_every_command_survives_every_argument, setup),
		cmocka_unit_test_setup(test_too_long, setup),
		cmocka_unit_test_setup(test_commands_are_listed, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
