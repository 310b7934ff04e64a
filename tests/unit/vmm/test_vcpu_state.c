/* vmm/vcpu_state.c: what can be said of a state without a vCPU. */
#include "tests/unit/cmocka_all.h"

#include <string.h>

#include "vmm/vcpu_state.h"

static void an_unusable_segment_has_no_type(void **state)
{
	struct kvm_sregs2 s = {.fs = {.unusable = 1, .type = 1}, .ss = {.unusable = 1, .dpl = 3}};

	(void)state;
	s.cs.type = 11;
	s.ldt = (struct kvm_segment){.unusable = 1, .type = 2};
	vcpu_sregs_tidy(&s);
	assert_int_equal(s.fs.type, 0);
	assert_int_equal(s.ldt.type, 0);
	assert_int_equal(s.cs.type, 11);
	assert_int_equal(s.ss.dpl, 3); /* is the CPL, whatever the rest (SDM vol. 3, 24.4.1) */
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(an_unusable_segment_has_no_type)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
