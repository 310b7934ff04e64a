/* nested/compat.c: what forbids a move is named; what does not, is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "nested/caps.h"

#define FEATURE_NPT   (1u << 0)
#define FEATURE_NRIPS (1u << 3)
#define FEATURE_VGIF  (1u << 16)

static struct nested_caps svm(uint32_t features)
{
	return (struct nested_caps){.vendor = NESTED_SVM,
				    .state_bytes = 4224,
				    .exception_payload = true,
				    .triple_fault_event = true,
				    .svm_revision = 1,
				    .svm_asids = 8,
				    .svm_features = features};
}

static struct nested_caps vmx(uint32_t index, uint64_t value)
{
	return (struct nested_caps){
		.vendor = NESTED_VMX, .state_bytes = 8320, .nr_vmx = 1, .vmx = {{index, value}}};
}

static void refused(const struct nested_caps *guest, const struct nested_caps *host,
		    const char *names)
{
	struct err e = ERR_INIT;

	assert_true(nested_caps_check(guest, host, &e) < 0);
	assert_int_equal(e.kind, ERR_UNSUPPORTED);
	if (!strstr(e.msg, names))
		fail_msg("'%s' does not say '%s'", e.msg, names);
}

static void taken(const struct nested_caps *guest, const struct nested_caps *host)
{
	struct err e = ERR_INIT;

	if (nested_caps_check(guest, host, &e) < 0)
		fail_msg("%s", e.msg);
}

static void another_vendor(void **state)
{
	struct nested_caps guest = svm(0);
	struct nested_caps host = vmx(0x480, 0);

	(void)state;
	refused(&guest, &host, "uses SVM and this host offers VMX");
	host.vendor = NESTED_NONE;
	refused(&guest, &host, "uses SVM and this host offers none");
}

static void an_svm_feature_less(void **state)
{
	struct nested_caps guest = svm(FEATURE_NPT | FEATURE_NRIPS | FEATURE_VGIF | 1u << 30);
	struct nested_caps host = svm(FEATURE_NPT);

	(void)state;
	refused(&guest, &host, "nrip_save (SVM), vgif (SVM), SVM bit 30");
	taken(&host, &guest);
}

static void fewer_asids(void **state)
{
	struct nested_caps guest = svm(FEATURE_NPT);
	struct nested_caps host = guest;

	(void)state;
	host.svm_asids = 4;
	refused(&guest, &host, "8 address space ids (here 4)");
	taken(&host, &guest);
}

static void an_older_svm(void **state)
{
	struct nested_caps guest = svm(FEATURE_NPT);
	struct nested_caps host = guest;

	(void)state;
	guest.svm_revision = 2;
	refused(&guest, &host, "SVM revision 2 (here 1)");
	taken(&host, &guest);
}

static void a_smaller_state(void **state)
{
	struct nested_caps guest = svm(0);
	struct nested_caps host = guest;

	(void)state;
	host.state_bytes = 128;
	refused(&guest, &host, "nested state of up to 4224 bytes (here 128)");
}

static void an_older_kvm(void **state)
{
	struct nested_caps guest = svm(0);
	struct nested_caps host = guest;

	(void)state;
	host.triple_fault_event = host.exception_payload = false;
	refused(&guest, &host, "KVM_CAP_EXCEPTION_PAYLOAD, KVM_CAP_X86_TRIPLE_FAULT_EVENT");
	taken(&host, &guest);
}

static void a_vmx_control_less(void **state)
{
	struct nested_caps guest = vmx(0x48b, (1ull << 1 | 1ull << 7) << 32);
	struct nested_caps host = vmx(0x48b, (1ull << 1) << 32);

	(void)state;
	refused(&guest, &host, "unrestricted guest (secondary processor-based controls)");
	taken(&host, &guest);
}

static void a_vmx_control_that_cannot_be_off(void **state)
{
	struct nested_caps guest = vmx(0x48d, 0x16 | 0x7full << 32);
	struct nested_caps host = vmx(0x48d, 0x1e | 0x7full << 32);

	(void)state;
	refused(&guest, &host, "NMI exiting that can be off (true pin-based controls)");
	taken(&host, &guest);
}

static void an_ept_feature_less(void **state)
{
	struct nested_caps guest = vmx(0x48c, 1ull << 21 | 1ull << 6 | 1ull << 32);
	struct nested_caps host = vmx(0x48c, 1ull << 6);

	(void)state;
	refused(&guest, &host, "EPT accessed and dirty flags (IA32_VMX_EPT_VPID_CAP), INVVPID");
	taken(&host, &guest);
}

static void a_fixed_bit_more(void **state)
{
	struct nested_caps guest = vmx(0x486, 0x80000021);
	struct nested_caps host = vmx(0x486, 0x80000031);

	(void)state;
	refused(&guest, &host, "bit 4 that can be 0 (IA32_VMX_CR0_FIXED0)");
	taken(&host, &guest);
}

static void another_vmcs_revision(void **state)
{
	struct nested_caps guest = vmx(0x480, 0x00d8100011e57ed0);
	struct nested_caps host = vmx(0x480, 0x00d8100011e57ed1);

	(void)state;
	refused(&guest, &host, "IA32_VMX_BASIC 0x98100011e57ed0 (here 0x98100011e57ed1)");
}

static void a_missing_vmx_msr(void **state)
{
	struct nested_caps guest = vmx(0x491, 1);
	struct nested_caps host = vmx(0x480, 0);

	(void)state;
	refused(&guest, &host, "IA32_VMX_VMFUNC (MSR 0x491)");
}

/* One difference for each capability MSR there is: none is forgotten. */
static void every_vmx_msr_is_looked_at(void **state)
{
	static const struct {
		uint32_t index;
		uint64_t guest, host;
		const char *says;
	} all[] = {
		{0x480, 1ull << 54, 0, "INS and OUTS information (IA32_VMX_BASIC)"},
		{0x481, 1ull << 39, 0, "posted interrupts (pin-based controls)"},
		{0x481, 1ull << 36, 0, "pin-based controls bit 4"},
		{0x482, 1ull << 60, 0, "MSR bitmaps (processor-based controls)"},
		{0x483, 1ull << 53, 0, "load EFER (VM-exit controls)"},
		{0x483, 1ull << 60, 0, "load CET state (VM-exit controls)"},
		{0x484, 1ull << 47, 0, "load EFER (VM-entry controls)"},
		{0x485, 1ull << 6, 0, "IA32_VMX_MISC bit 6"},
		{0x486, 0, 1, "bit 0 that can be 0 (IA32_VMX_CR0_FIXED0)"},
		{0x487, 1ull << 18, 0, "IA32_VMX_CR0_FIXED1 bit 18"},
		{0x488, 0, 1ull << 13, "bit 13 that can be 0 (IA32_VMX_CR4_FIXED0)"},
		{0x489, 1ull << 12, 0, "IA32_VMX_CR4_FIXED1 bit 12"},
		{0x48b, 1ull << 33, 0, "EPT (secondary processor-based controls)"},
		{0x48c, 1ull << 16, 0, "EPT 2 MiB pages (IA32_VMX_EPT_VPID_CAP)"},
		{0x48d, 1ull << 35, 0, "NMI exiting (true pin-based controls)"},
		{0x48e, 0, 1ull << 7, "HLT exiting that can be off (true processor-based"},
		{0x48f, 0, 1ull << 9, "64-bit host that can be off (true VM-exit controls)"},
		{0x490, 1ull << 46, 0, "load PAT (true VM-entry controls)"},
		{0x491, 1, 0, "IA32_VMX_VMFUNC bit 0"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		struct nested_caps guest = vmx(all[i].index, all[i].guest);
		struct nested_caps host = vmx(all[i].index, all[i].host);

		refused(&guest, &host, all[i].says);
		taken(&host, &guest);
	}
}

static void everything_missing_still_fits(void **state)
{
	struct nested_caps guest = vmx(0x48c, UINT64_MAX);
	struct nested_caps host = vmx(0x48c, 0);

	(void)state;
	refused(&guest, &host, "start the guest on the older of the two hosts");
}

static void modes_are_three(void **state)
{
	enum nested_mode mode = NESTED_OFF;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(nested_mode_parse("require", &mode, &e), 0);
	assert_int_equal(mode, NESTED_REQUIRE);
	assert_int_equal(nested_mode_parse("on", &mode, &e), 0);
	assert_int_equal(mode, NESTED_ON);
	assert_true(nested_mode_parse("yes", &mode, &e) < 0);
	assert_int_equal(e.kind, ERR_USAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(another_vendor),
		cmocka_unit_test(an_svm_feature_less),
		cmocka_unit_test(fewer_asids),
		cmocka_unit_test(an_older_svm),
		cmocka_unit_test(a_smaller_state),
		cmocka_unit_test(an_older_kvm),
		cmocka_unit_test(a_vmx_control_less),
		cmocka_unit_test(a_vmx_control_that_cannot_be_off),
		cmocka_unit_test(an_ept_feature_less),
		cmocka_unit_test(a_fixed_bit_more),
		cmocka_unit_test(another_vmcs_revision),
		cmocka_unit_test(a_missing_vmx_msr),
		cmocka_unit_test(every_vmx_msr_is_looked_at),
		cmocka_unit_test(everything_missing_still_fits),
		cmocka_unit_test(modes_are_three),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
