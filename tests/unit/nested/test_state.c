/* nested/state.c, wire.c, view.c: states that came from outside, there and back, and in words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "nested/view.h"
#include "nested/vmcb.h"
#include "nested/vmcs12.h"
#include "nested/wire.h"

#define HEADER sizeof(struct kvm_nested_state)

static const struct nested_caps svm_host = {.vendor = NESTED_SVM, .state_bytes = 4224};
static const struct nested_caps vmx_host = {.vendor = NESTED_VMX, .state_bytes = 8320};

static struct nested_state svm_in_l2(void)
{
	struct nested_state s = {.kvm = {.format = KVM_STATE_NESTED_FORMAT_SVM,
					 .flags = KVM_STATE_NESTED_GUEST_MODE |
						  KVM_STATE_NESTED_RUN_PENDING |
						  KVM_STATE_NESTED_GIF_SET,
					 .size = HEADER + VMCB_BYTES,
					 .hdr.svm.vmcb_pa = 0x203000}};

	s.bytes[HEADER + VMCB_NESTED_CTL] = 1;
	s.bytes[HEADER + VMCB_NESTED_CR3 + 1] = 0x50;
	s.bytes[HEADER + VMCB_ASID] = 7;
	s.bytes[HEADER + VMCB_EVENT_INJ] = 0x21;
	s.bytes[HEADER + VMCB_EVENT_INJ + 3] = 0x80;
	s.bytes[HEADER + VMCB_SAVE_RIP + 2] = 0x10;
	return s;
}

static struct nested_state vmx_in_l2(void)
{
	struct nested_state s = {.kvm = {.format = KVM_STATE_NESTED_FORMAT_VMX,
					 .flags = KVM_STATE_NESTED_GUEST_MODE,
					 .size = HEADER + 4096,
					 .hdr.vmx = {.vmxon_pa = 0x1000,
						     .vmcs12_pa = 0x2000,
						     .flags = 1,
						     .preemption_timer_deadline = 99}}};

	s.bytes[HEADER + 751] = 0x80; /* secondary controls */
	s.bytes[HEADER + 804] = 2;    /* EPT */
	s.bytes[HEADER + 121] = 0x60;
	s.bytes[HEADER + 674] = 0x11;
	return s;
}

static void there_and_back(struct nested_state *s)
{
	Godwit__NestedState m;
	struct nested_state back;
	struct err e = ERR_INIT;

	nested_state_wire_fill(&m, s);
	assert_int_equal(nested_state_wire_parse(&m, &back, &e), 0);
	assert_memory_equal(s, &back, sizeof(back));
}

static void a_state_survives_the_wire(void **state)
{
	struct nested_state svm = svm_in_l2();
	struct nested_state vmx = vmx_in_l2();

	(void)state;
	there_and_back(&svm);
	there_and_back(&vmx);
}

static void no_message_is_no_nesting(void **state)
{
	struct nested_state s;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(nested_state_wire_parse(NULL, &s, &e), 0);
	assert_true(nested_state_is_none(&s));
}

static void a_newer_version_is_refused(void **state)
{
	struct nested_state s = svm_in_l2();
	Godwit__NestedState m;
	struct err e = ERR_INIT;

	(void)state;
	nested_state_wire_fill(&m, &s);
	m.version = NESTED_STATE_VERSION + 1;
	assert_true(nested_state_wire_parse(&m, &s, &e) < 0);
	assert_int_equal(e.kind, ERR_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "version 2"));
}

static void too_much_data_is_refused(void **state)
{
	static uint8_t data[NESTED_STATE_MAX_BYTES];
	struct nested_state s = svm_in_l2();
	Godwit__NestedState m;
	struct err e = ERR_INIT;

	(void)state;
	nested_state_wire_fill(&m, &s);
	m.data = (ProtobufCBinaryData){.len = sizeof(data), .data = data};
	assert_true(nested_state_wire_parse(&m, &s, &e) < 0);
	assert_int_equal(e.kind, ERR_STREAM);
}

/* Every byte of the save area that KVM takes back for L1 is kept, and no other (AMD APM vol. 2,
 * appendix B). */
static void what_a_vmexit_loads_is_kept(void **state)
{
	static const struct {
		uint16_t from, to;
	} kept[] = {{0x000, 0x440},  /* control; ES, CS, SS, DS */
		    {0x460, 0x470},  /* GDTR */
		    {0x480, 0x490},  /* IDTR */
		    {0x4d0, 0x4d8},  /* EFER */
		    {0x548, 0x560},  /* CR4, CR3, CR0 */
		    {0x570, 0x580},  /* RFLAGS, RIP */
		    {0x5d8, 0x600},  /* RSP, S_CET, SSP, ISST_ADDR, RAX */
		    {0x670, 0x698}}; /* DBGCTL, branch records */
	struct nested_state s = svm_in_l2();
	uint8_t expected[VMCB_BYTES] = {0};

	(void)state;
	memset(s.bytes + HEADER, 0x41, VMCB_BYTES);
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		memset(expected + kept[i].from, 0x41, (size_t)(kept[i].to - kept[i].from));
	nested_state_tidy(&s);
	assert_memory_equal(s.bytes + HEADER, expected, VMCB_BYTES);
}

/* What L0's last exit left behind is not the guest's, and does not come back from a load. */
static void l0s_linear_address_is_forgotten(void **state)
{
	struct nested_state s = vmx_in_l2(), before = s;
	const size_t at = HEADER + VMCS12_GUEST_LINEAR_ADDRESS;

	(void)state;
	memcpy(s.bytes + HEADER, &(uint32_t){VMCS12_REVISION}, 4);
	memset(s.bytes + at, 0x41, 8);
	nested_state_tidy(&s);
	assert_memory_equal(s.bytes + HEADER + 4, before.bytes + HEADER + 4, 4092);

	/* Outside L2 it tells of L1's guest's last exit. */
	s.kvm.flags = 0;
	memset(s.bytes + at, 0x41, 8);
	nested_state_tidy(&s);
	assert_int_equal(s.bytes[at], 0x41);
}

/* What KVM's own events may not say. */
static void l2s_word_counts_for_nmis(void **state)
{
	struct nested_state s = vmx_in_l2(), svm = svm_in_l2();

	(void)state;
	s.bytes[HEADER + VMCS12_INTERRUPTIBILITY] = 1 << 3;
	assert_false(nested_state_blocks_nmis(&s)); /* a layout that we do not know */
	memcpy(s.bytes + HEADER, &(uint32_t){VMCS12_REVISION}, 4);
	assert_true(nested_state_blocks_nmis(&s));
	s.kvm.flags = 0; /* L2's, and L1 runs */
	assert_false(nested_state_blocks_nmis(&s));
	s = vmx_in_l2();
	memcpy(s.bytes + HEADER, &(uint32_t){VMCS12_REVISION}, 4);
	s.bytes[HEADER + VMCS12_INTERRUPTIBILITY] = 1 << 0;
	assert_false(nested_state_blocks_nmis(&s));
	memset(svm.bytes + HEADER, 0xff, VMCB_BYTES);
	assert_false(nested_state_blocks_nmis(&svm));
}

/* 1 MHz: a ms is 1000 cycles, and the timer ticks every 32. */
static void an_overdue_timer_is_put_off(void **state)
{
	struct nested_state s = vmx_in_l2();
	__u64 *deadline = &s.kvm.hdr.vmx.preemption_timer_deadline;

	(void)state;
	*deadline = 9000;
	nested_state_put_off_timer(&s, 100 * 32, 1000);
	assert_int_equal(*deadline, 9000); /* has time */
	nested_state_put_off_timer(&s, 9001 * 32, 1000);
	assert_int_equal(*deadline, 9001 + 50000 / 32);
	s.kvm.hdr.vmx.flags = 0;
	*deadline = 0;
	nested_state_put_off_timer(&s, 9001 * 32, 1000);
	assert_int_equal(*deadline, 0); /* does not run */
}

static void svm_has_no_timer(void **state)
{
	struct nested_state s = svm_in_l2(), before = s;

	(void)state;
	nested_state_put_off_timer(&s, UINT64_MAX / 2, 1000);
	assert_memory_equal(&s, &before, sizeof(s));
}

static void what_is_left_of_a_timer_is_forgotten(void **state)
{
	struct nested_state s = vmx_in_l2();

	(void)state;
	memcpy(s.bytes + HEADER, &(uint32_t){VMCS12_REVISION}, 4);
	s.bytes[HEADER + VMCS12_TIMER_VALUE] = 0x41;
	nested_state_tidy(&s);
	assert_int_equal(s.bytes[HEADER + VMCS12_TIMER_VALUE], 0x41); /* L1's own */
	s.bytes[HEADER + VMCS12_EXIT_CONTROLS + 2] = 0x40;
	nested_state_tidy(&s);
	assert_int_equal(s.bytes[HEADER + VMCS12_TIMER_VALUE], 0);
	assert_int_equal(s.bytes[HEADER + VMCS12_EXIT_CONTROLS + 2], 0x40);
	s.bytes[HEADER + VMCS12_TIMER_VALUE] = 0x41;
	s.kvm.hdr.vmx.flags = 0; /* of an earlier entry */
	nested_state_tidy(&s);
	assert_int_equal(s.bytes[HEADER + VMCS12_TIMER_VALUE], 0x41);
}

static void another_layout_is_left_alone(void **state)
{
	struct nested_state s = vmx_in_l2(), before;

	(void)state;
	memset(s.bytes + HEADER, 0x41, 4096);
	before = s;
	nested_state_tidy(&s);
	assert_memory_equal(&s, &before, sizeof(s));
}

static void bad(const struct nested_state *s, const struct nested_caps *host, const char *names)
{
	struct err e = ERR_INIT;

	assert_true(nested_state_check(s, host, &e) < 0);
	if (!strstr(e.msg, names))
		fail_msg("'%s' does not say '%s'", e.msg, names);
}

static void what_is_malformed_is_named(void **state)
{
	struct nested_state s = svm_in_l2();
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(nested_state_check(&s, &svm_host, &e), 0);
	bad(&s, &vmx_host, "format 1, and this host's KVM has 0 (VMX)");
	s.kvm.hdr.svm.vmcb_pa |= 8;
	bad(&s, &svm_host, "VMCB address");
	s = svm_in_l2();
	s.kvm.flags = KVM_STATE_NESTED_RUN_PENDING;
	bad(&s, &svm_host, "pending entry outside L2");
	s = svm_in_l2();
	s.kvm.flags |= 0x8;
	bad(&s, &svm_host, "unknown SVM flags");
	s = svm_in_l2();
	s.kvm.size = HEADER;
	bad(&s, &svm_host, "SVM size");
	s = vmx_in_l2();
	assert_int_equal(nested_state_check(&s, &vmx_host, &e), 0);
	s.kvm.flags |= KVM_STATE_NESTED_MTF_PENDING;
	assert_int_equal(nested_state_check(&s, &vmx_host, &e), 0);
	s.kvm.hdr.vmx.vmcs12_pa = UINT64_MAX;
	bad(&s, &vmx_host, "L2 without VMCS12");
	s = vmx_in_l2();
	s.kvm.flags |= KVM_STATE_NESTED_EVMCS;
	bad(&s, &vmx_host, "Hyper-V");
	s = vmx_in_l2();
	s.kvm.flags = KVM_STATE_NESTED_MTF_PENDING;
	bad(&s, &vmx_host, "a pending entry or step outside L2, flags 0x8");
	s = vmx_in_l2();
	s.kvm.size = HEADER + 100;
	bad(&s, &vmx_host, "VMX size");
	s = vmx_in_l2();
	s.kvm.hdr.vmx.vmcs12_pa |= 8;
	bad(&s, &vmx_host, "VMCS12 address 0x2008");
	s.kvm.hdr.vmx.vmxon_pa |= 8;
	bad(&s, &vmx_host, "VMXON address 0x1008");
	s.kvm.flags |= 0x100;
	bad(&s, &vmx_host, "unknown VMX flags 0x101");
	s = vmx_in_l2();
	s.kvm.hdr.vmx.flags |= 2;
	bad(&s, &vmx_host, "unknown flags of VMX 0x3");
	s = vmx_in_l2();
	s.kvm.hdr.vmx.smm.flags = 4;
	bad(&s, &vmx_host, "unknown flags of SMM 0x4");
	s.kvm.size = HEADER - 1;
	bad(&s, &vmx_host, "size 0x7f");
}

/* A CPU that has not executed VMXON. */
static void outside_vmx_operation_there_is_nothing(void **state)
{
	const struct nested_state none = {
		.kvm = {.size = HEADER,
			.hdr.vmx = {.vmxon_pa = UINT64_MAX, .vmcs12_pa = UINT64_MAX}}};
	struct nested_state s = none;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(nested_state_check(&s, &vmx_host, &e), 0);
	s.kvm.hdr.vmx.vmcs12_pa = 0x2000;
	bad(&s, &vmx_host, "outside VMX operation, and a VMCS12 at 0x2000");
	s = none;
	s.kvm.hdr.vmx.smm.flags = KVM_STATE_NESTED_SMM_VMXON;
	bad(&s, &vmx_host, "outside VMX operation, and flags of SMM 0x2");
}

/* Every bit that KVM may set in a state that it has saved itself. */
static void all_that_is_pending_is_taken(void **state)
{
	struct nested_state s = vmx_in_l2();
	struct err e = ERR_INIT;

	(void)state;
	s.kvm.flags |= KVM_STATE_NESTED_RUN_PENDING | KVM_STATE_NESTED_MTF_PENDING;
	assert_int_equal(nested_state_check(&s, &vmx_host, &e), 0);
}

static void a_kvm_with_less_room_refuses(void **state)
{
	struct nested_caps host = svm_host;
	struct nested_state s = svm_in_l2();

	(void)state;
	host.state_bytes = 128;
	bad(&s, &host, "takes 128");
}

static void the_view_tells_svm(void **state)
{
	struct nested_state s = svm_in_l2();
	struct nested_view v;
	char text[256];

	(void)state;
	nested_view_decode(&s, &v);
	nested_view_text(&v, text, sizeof(text));
	assert_string_equal(text, "SVM: in L2, entry pending, VMCB at 0x203000, nested paging by "
				  "0x5000, ASID 7, injecting 0x80000021, L1 goes on at 0x100000");
	s = (struct nested_state){.kvm = {.format = KVM_STATE_NESTED_FORMAT_SVM, .size = HEADER}};
	nested_view_decode(&s, &v);
	nested_view_text(&v, text, sizeof(text));
	assert_string_equal(text, "SVM: in L1, GIF clear");
}

static void the_view_tells_vmx(void **state)
{
	struct nested_state s = vmx_in_l2();
	struct nested_view v;
	char text[256];

	(void)state;
	nested_view_decode(&s, &v);
	nested_view_text(&v, text, sizeof(text));
	assert_string_equal(text, "VMX: in L2, preemption timer runs, VMCS at 0x2000, VMXON at "
				  "0x1000, nested paging by "
				  "0x6000, L1 goes on at 0x110000");
	s.kvm.flags |= KVM_STATE_NESTED_MTF_PENDING;
	nested_view_decode(&s, &v);
	nested_view_text(&v, text, sizeof(text));
	assert_non_null(strstr(text, "VMX: in L2, step pending, preemption timer runs, VMCS at"));
}

/* Bits that the CPU would not look at. */
static void stale_controls_are_no_nested_paging(void **state)
{
	struct nested_state s = vmx_in_l2();
	struct nested_view v;

	(void)state;
	s.bytes[HEADER + 751] = 0;
	nested_view_decode(&s, &v);
	assert_false(v.nested_paging);
	assert_int_equal(v.nested_cr3, 0);
}

static void a_view_is_cut_off(void **state)
{
	struct nested_state s = svm_in_l2();
	struct nested_view v;
	char text[12];

	(void)state;
	nested_view_decode(&s, &v);
	nested_view_text(&v, text, sizeof(text));
	assert_string_equal(text, "SVM: in L2,");
}

static void capabilities_survive_the_wire(void **state)
{
	struct nested_caps caps = {.vendor = NESTED_VMX,
				   .state_bytes = 8320,
				   .exception_payload = true,
				   .nr_vmx = 2,
				   .vmx = {{0x480, 1}, {0x48b, 2}}};
	struct nested_caps_wire w;
	struct nested_caps back;
	struct err e = ERR_INIT;

	(void)state;
	nested_caps_wire_fill(&w, &caps);
	assert_int_equal(nested_caps_wire_parse(&w.msg, &back, &e), 0);
	assert_memory_equal(&caps, &back, sizeof(caps));
	w.msg.vendor = 3;
	assert_true(nested_caps_wire_parse(&w.msg, &back, &e) < 0);
	w.msg.vendor = NESTED_VMX;
	w.msg.n_vmx_value = 1;
	assert_true(nested_caps_wire_parse(&w.msg, &back, &e) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_state_survives_the_wire),
		cmocka_unit_test(no_message_is_no_nesting),
		cmocka_unit_test(a_newer_version_is_refused),
		cmocka_unit_test(too_much_data_is_refused),
		cmocka_unit_test(what_a_vmexit_loads_is_kept),
		cmocka_unit_test(l0s_linear_address_is_forgotten),
		cmocka_unit_test(l2s_word_counts_for_nmis),
		cmocka_unit_test(what_is_left_of_a_timer_is_forgotten),
		cmocka_unit_test(an_overdue_timer_is_put_off),
		cmocka_unit_test(svm_has_no_timer),
		cmocka_unit_test(another_layout_is_left_alone),
		cmocka_unit_test(what_is_malformed_is_named),
		cmocka_unit_test(outside_vmx_operation_there_is_nothing),
		cmocka_unit_test(all_that_is_pending_is_taken),
		cmocka_unit_test(a_kvm_with_less_room_refuses),
		cmocka_unit_test(the_view_tells_svm),
		cmocka_unit_test(the_view_tells_vmx),
		cmocka_unit_test(stale_controls_are_no_nested_paging),
		cmocka_unit_test(a_view_is_cut_off),
		cmocka_unit_test(capabilities_survive_the_wire),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
