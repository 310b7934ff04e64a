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

static void the_hosts_xcr0_is_no_state_of_the_guest(void **state)
{
	uint8_t xsave[VCPU_XSAVE_MIN_BYTES];

	(void)state;
	memset(xsave, 7, sizeof(xsave));
	vcpu_xsave_tidy(xsave);
	assert_int_equal(xsave[463], 7);
	assert_int_equal(xsave[464], 0);
	assert_int_equal(xsave[511], 0);
	assert_int_equal(xsave[512], 7); /* the header: XSTATE_BV */
}

static int check_xcr0(uint64_t value, bool host_has_xsave, struct err *e)
{
	const struct vcpu_caps caps = {
		.tsc_khz = 1, .xsave_bytes = VCPU_XSAVE_MIN_BYTES, .xcrs = host_has_xsave};
	const struct cpuid leaf0 = {.nr = 1};
	struct vcpu_state s = {.cpuid = leaf0,
			       .tsc_khz = 1,
			       .xsave_bytes = VCPU_XSAVE_MIN_BYTES,
			       .xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = value}}}};

	return vcpu_state_check(&caps, &leaf0, &s, e);
}

static void a_host_without_xsave_takes_x87_alone(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(check_xcr0(1, false, &e), 0);
	assert_int_equal(check_xcr0(7, true, &e), 0);
	assert_true(check_xcr0(7, false, &e) < 0);
	assert_int_equal(e.kind, ERR_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "XCR0 is 0x7"));
}

/* KVM says VALID_SMM of every vCPU; only one that is in this mode, or about to be, needs it. */
static void a_host_without_smm_takes_no_cpu_in_it(void **state)
{
	const struct vcpu_caps without = {.tsc_khz = 1, .xsave_bytes = VCPU_XSAVE_MIN_BYTES};
	const struct vcpu_caps with = {
		.tsc_khz = 1, .xsave_bytes = VCPU_XSAVE_MIN_BYTES, .smm = true};
	const struct cpuid leaf0 = {.nr = 1};
	struct vcpu_state s = {.cpuid = leaf0,
			       .tsc_khz = 1,
			       .xsave_bytes = VCPU_XSAVE_MIN_BYTES,
			       .events = {.flags = KVM_VCPUEVENT_VALID_SMM}};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(vcpu_state_check(&without, &leaf0, &s, &e), 0);
	s.events.smi.pending = 1;
	assert_int_equal(vcpu_state_check(&with, &leaf0, &s, &e), 0);
	assert_true(vcpu_state_check(&without, &leaf0, &s, &e) < 0);
	assert_int_equal(e.kind, ERR_UNSUPPORTED);
	s.events.smi.pending = 0;
	s.events.smi.smm = 1;
	e = (struct err)ERR_INIT;
	assert_true(vcpu_state_check(&without, &leaf0, &s, &e) < 0);
	assert_non_null(strstr(e.msg, "system management mode"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_unusable_segment_has_no_type),
		cmocka_unit_test(the_hosts_xcr0_is_no_state_of_the_guest),
		cmocka_unit_test(a_host_without_xsave_takes_x87_alone),
		cmocka_unit_test(a_host_without_smm_takes_no_cpu_in_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
