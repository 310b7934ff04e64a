/*
 * A peer that sends a nested state that no CPU was ever in: KVM refuses it, we say so, and the vCPU
 * it was offered to is none the worse for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "nested/l1/l1.h"
#include "nested/vmcb.h"
#include "nested/vmcs12.h"
#include "tests/rig/bare.h"

#define MEMORY_BYTES (8u << 20)
#define NO_MEMORY    (1ull << 60) /* beyond what any CPU can address */

static void put32(struct nested_state *s, size_t offset, uint32_t value)
{
	memcpy(s->bytes + sizeof(s->kvm) + offset, &value, sizeof(value));
}

static void put64(struct nested_state *s, size_t offset, uint64_t value)
{
	memcpy(s->bytes + sizeof(s->kvm) + offset, &value, sizeof(value));
}

/* ---- VMX ---- */

static void vmcs_of_another_layout(struct nested_state *s)
{
	put32(s, 0, VMCS12_REVISION + 1);
}

static void controls_that_no_cpu_has(struct nested_state *s)
{
	put32(s, VMCS12_SECONDARY_CONTROLS, UINT32_MAX);
}

static void l1_without_vmx(struct nested_state *s)
{
	put64(s, VMCS12_HOST_CR4, 0);
}

static void ept_without_levels(struct nested_state *s)
{
	put64(s, VMCS12_EPT_POINTER, 0x1006);
}

static void vmcs_in_the_vmxon_region(struct nested_state *s)
{
	s->kvm.hdr.vmx.vmcs12_pa = s->kvm.hdr.vmx.vmxon_pa;
}

static void vmcs_beyond_memory(struct nested_state *s)
{
	s->kvm.hdr.vmx.vmcs12_pa = NO_MEMORY;
}

static void l2_outside_vmx_operation(struct nested_state *s)
{
	s->kvm.hdr.vmx.vmxon_pa = NESTED_NO_GPA;
}

/* ---- SVM ---- */

static void vmcb_without_asid(struct nested_state *s)
{
	put32(s, VMCB_ASID, 0);
}

static void vmcb_that_lets_vmrun_through(struct nested_state *s)
{
	put32(s, VMCB_INTERCEPT_MISC2, 0);
}

static void l1_without_paging(struct nested_state *s)
{
	put64(s, VMCB_SAVE_CR0, 1);
}

static void vmcb_beyond_memory(struct nested_state *s)
{
	s->kvm.hdr.svm.vmcb_pa = NO_MEMORY;
}

struct spoiling {
	enum nested_vendor vendor;
	const char *name;
	void (*spoil)(struct nested_state *);
	const char *says;
};

#define BY_KVM "KVM does not take the state of the guest's hypervisor"

static const struct spoiling spoilings[] = {
	{NESTED_VMX, "a VMCS of another layout", vmcs_of_another_layout, BY_KVM},
	{NESTED_VMX, "controls that no CPU has", controls_that_no_cpu_has, BY_KVM},
	{NESTED_VMX, "L1 without VMX", l1_without_vmx, BY_KVM},
	{NESTED_VMX, "EPT without levels", ept_without_levels, BY_KVM},
	{NESTED_VMX, "the VMCS in the VMXON region", vmcs_in_the_vmxon_region, BY_KVM},
	{NESTED_VMX, "a VMCS beyond memory", vmcs_beyond_memory, BY_KVM},
	{NESTED_VMX, "L2 outside VMX operation", l2_outside_vmx_operation, "L2 without VMCS12"},
	{NESTED_SVM, "a VMCB without ASID", vmcb_without_asid, BY_KVM},
	{NESTED_SVM, "a VMCB that lets VMRUN through", vmcb_that_lets_vmrun_through, BY_KVM},
	{NESTED_SVM, "L1 without paging", l1_without_paging, BY_KVM},
	{NESTED_SVM, "a VMCB beyond memory", vmcb_beyond_memory, BY_KVM},
};

static unsigned int refuse_all(struct bare *b)
{
	enum nested_vendor vendor = bare_view(b).vendor;
	unsigned int nr = 0;

	for (size_t i = 0; i < sizeof(spoilings) / sizeof(spoilings[0]); i++) {
		struct err refusal = ERR_INIT;

		if (spoilings[i].vendor != vendor)
			continue;
		print_message("%s\n", spoilings[i].name);
		bare_refuse(b, spoilings[i].spoil, &refusal);
		if (!strstr(refusal.msg, spoilings[i].says))
			fail_msg("'%s' does not say '%s'", refusal.msg, spoilings[i].says);
		nr++;
	}
	return nr;
}

static void what_no_cpu_was_in_is_refused(void **state)
{
	struct bare *b = bare_boot(
		L1_ELF, "l1.mode=points l1.npt=1 l1.guests=1 l1.rounds=2 l1.marks=2", MEMORY_BYTES);
	unsigned int nr = 0;

	(void)state;
	while (bare_run(b) == BARE_MARK) {
		assert_true(bare_view(b).in_l2);
		nr += refuse_all(b);
	}
	assert_int_equal(bare_value(b), 0); /* L1 and L2 have lost nothing */
	assert_true(nr >= 2 * 4);
	bare_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_no_cpu_was_in_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
