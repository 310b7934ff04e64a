/* control/nested_lines.c: what a hypervisor and its guest say of themselves, and what is not
 * theirs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "control/nested_lines.h"

static const char said[] =
	"67 errors=3 cpus=1\n" /* the end of a line that began before */
	"L1: kernel 6.1, its guest: fill=1M\n"
	"L1: busy t=1 mem_ok=9 mem_bad=0 mono_back=0 timer=9 late_us=70 late_max_us=999 "
	"real_drift_us=0\n"
	"L2: t=1.2 pages=5 rate=5 maxgap_us=300 peak_us=90000 gaps=2 errors=0 cpus=1\r\n"
	"L1: busy t=2 mem_ok=9 mem_bad=1 mono_back=2 timer=9 late_us=40 late_max_us=999 "
	"real_drift_us=0\n"
	"L2: t=2.2 pages=5 rate=5 maxgap_us=100 peak_us=90000 gaps=2 errors=4 cpus=1\n"
	"L2: t=3.2 pages=5 rate=5 maxgap_us=900 peak_u[   12.3] a kernel's message\n"
	"L1: busy t=3 mem_ok=9 mem_bad=1 mono_back=2 timer=9 late_us=990000";

static void whole_lines_count(void **state)
{
	struct lines l;

	(void)state;
	lines_read(said, &l);
	assert_int_equal(l.l1.nr, 2);
	assert_int_equal(l.l1.gap_ns, 70000);
	assert_int_equal(l.l1.nr_errors, 3);
	assert_int_equal(l.l2.nr, 2);
	assert_int_equal(l.l2.gap_ns, 300000);
	assert_int_equal(l.l2.nr_errors, 4);
}

static void silence_is_nothing(void **state)
{
	struct lines l;

	(void)state;
	lines_read("", &l);
	assert_int_equal(l.l1.nr + l.l2.nr, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_lines_count),
		cmocka_unit_test(silence_is_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
