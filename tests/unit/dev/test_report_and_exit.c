/* The two devices that are there for test programs: debug-exit and guest-report. */
#include <stdlib.h>

#include "tests/unit/dev/fake_machine.h"
#include "vmm/guest_report.h"

static void exit_status(void **state)
{
	struct fake_machine f;
	struct device *d;
	struct err e = ERR_INIT;

	(void)state;
	fake_init(&f);
	assert_int_equal(debug_exit_new(&f.m, &d, &e), 0);
	assert_int_equal(inb(&f, BOARD_DEBUG_EXIT_PORT), 0);
	outb(&f, BOARD_DEBUG_EXIT_PORT, 0);
	assert_int_equal(f.request, MACHINE_EXIT);
	assert_int_equal(f.code, 1);
	io_out(&f, BOARD_DEBUG_EXIT_PORT, 0x21, 4);
	assert_int_equal(f.code, 0x43);
	io_out(&f, BOARD_DEBUG_EXIT_PORT, 0xffffffff, 4);
	assert_int_equal(f.code, 0xff);
	assert_int_equal(f.nr_requests, 3);
	d->ops->reset(d);
	d->ops->free(d);
	fake_fini(&f);
}

static void report_page(void **state)
{
	struct fake_machine f;
	struct fake_machine g;
	struct device *d;
	struct device *other;
	struct err e = ERR_INIT;

	(void)state;
	fake_init(&f);
	fake_init(&g);
	assert_int_equal(guest_report_dev_new(&f.m, &d, &e), 0);
	assert_int_equal(guest_report_dev_new(&g.m, &other, &e), 0);
	assert_int_equal(guest_report_dev_gpa(d), 0);
	io_out(&f, GUEST_REPORT_PORT, 0x123, 4);
	assert_int_equal(guest_report_dev_gpa(d), 0x123000);
	assert_int_equal(io_in(&f, GUEST_REPORT_PORT, 4), 0x123);
	io_out(&f, GUEST_REPORT_PORT, 0xffffffff, 4);                      /* not RAM */
	io_out(&f, GUEST_REPORT_PORT, FAKE_MEMORY_BYTES >> PAGE_SHIFT, 4); /* one past it */
	io_out(&f, GUEST_REPORT_PORT, 0x124, 2);                           /* not 4 bytes */
	assert_int_equal(guest_report_dev_gpa(d), 0x123000);
	dev_migrate(&f, d, &g, other);
	assert_int_equal(guest_report_dev_gpa(other), 0x123000);
	d->ops->reset(d);
	assert_int_equal(guest_report_dev_gpa(d), 0);
	d->ops->free(d);
	other->ops->free(other);
	fake_fini(&f);
	fake_fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exit_status),
		cmocka_unit_test(report_page),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
