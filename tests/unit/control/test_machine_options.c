/* control/machine_options.c: what one option implies for others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/machine_options.h"

static struct session_config apply(const struct machine_options *o, bool incoming)
{
	struct session_config config = {0};
	struct err e = ERR_INIT;

	if (machine_options_apply(o, incoming, &config, &e) < 0)
		fail_msg("%s", e.msg);
	return config;
}

static struct machine_options some_machine(void)
{
	return (struct machine_options){
		.kernel = "/dev/null", .serial = "null", .memory_bytes = 64 << 20, .nr_cpus = 1};
}

static void test_devices_are_for_tests_of_hypervisors_too(void **state)
{
	struct machine_options o = some_machine();

	(void)state;
	assert_int_equal(apply(&o, false).vm.nested, NESTED_OFF);
	assert_false(apply(&o, false).vm.debug_exit);
	o.test_devices = true;
	assert_int_equal(apply(&o, false).vm.nested, NESTED_ON);
	assert_true(apply(&o, false).vm.debug_exit);
	o.nested = "off";
	assert_int_equal(apply(&o, false).vm.nested, NESTED_OFF);
	o.nested = "require";
	assert_int_equal(apply(&o, false).vm.nested, NESTED_REQUIRE);
}

/* Whether it may be a hypervisor comes with the guest. */
static void an_arriving_guest_is_what_it_was(void **state)
{
	struct machine_options o = {.serial = "null", .test_devices = true};

	(void)state;
	assert_int_equal(apply(&o, true).vm.nested, NESTED_OFF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_devices_are_for_tests_of_hypervisors_too),
		cmocka_unit_test(an_arriving_guest_is_what_it_was),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
