/* Does one host's nesting hold on another? A table of what each VMX capability MSR means, and the
 * feature bits of SVM; every difference that forbids a move is named. */
#include "nested/caps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* How a guest's value must relate to a host's (KVM's vmx_restore_vmx_*(), Intel SDM appendix A). */
enum rule {
	RULE_CONTROLS, /* low half: must be 1; high half: may be 1 */
	RULE_SUBSET,   /* every bit set is a feature */
	RULE_FIXED0,   /* every bit set is an obligation */
	RULE_EQUAL
};

struct vmx_msr {
	uint32_t index;
	const char *name;
	enum rule rule;
	uint64_t compared;       /* the bits that mean something here */
	const char *const *bits; /* names of the features, from bit 0 (controls: 32) on */
};

static const char *const pin_bits[32] = {
	[0] = "external-interrupt exiting", [3] = "NMI exiting",       [5] = "virtual NMIs",
	[6] = "preemption timer",           [7] = "posted interrupts",
};

static const char *const proc_bits[32] = {
	[2] = "interrupt-window exiting",
	[3] = "TSC offsetting",
	[7] = "HLT exiting",
	[9] = "INVLPG exiting",
	[10] = "MWAIT exiting",
	[11] = "RDPMC exiting",
	[12] = "RDTSC exiting",
	[15] = "CR3-load exiting",
	[16] = "CR3-store exiting",
	[19] = "CR8-load exiting",
	[20] = "CR8-store exiting",
	[21] = "TPR shadow",
	[22] = "NMI-window exiting",
	[23] = "MOV-DR exiting",
	[24] = "unconditional I/O exiting",
	[25] = "I/O bitmaps",
	[27] = "monitor trap flag",
	[28] = "MSR bitmaps",
	[29] = "MONITOR exiting",
	[30] = "PAUSE exiting",
	[31] = "secondary controls",
};

static const char *const secondary_bits[32] = {
	[0] = "APIC access",      [1] = "EPT",
	[2] = "descriptor exits", [3] = "RDTSCP",
	[4] = "x2APIC mode",      [5] = "VPID",
	[6] = "WBINVD exiting",   [7] = "unrestricted guest",
	[8] = "APIC registers",   [9] = "virtual-interrupt delivery",
	[10] = "PAUSE loop",      [11] = "RDRAND exiting",
	[12] = "INVPCID",         [13] = "VM functions",
	[14] = "VMCS shadowing",  [15] = "ENCLS exiting",
	[16] = "RDSEED exiting",  [17] = "page-modification logging",
	[18] = "EPT #VE",         [20] = "XSAVES",
	[22] = "mode-based EPT",  [25] = "TSC scaling",
	[26] = "user-wait",
};

static const char *const exit_bits[32] = {
	[2] = "save debug controls",
	[9] = "64-bit host",
	[12] = "load PERF_GLOBAL_CTRL",
	[15] = "acknowledge interrupt",
	[18] = "save PAT",
	[19] = "load PAT",
	[20] = "save EFER",
	[21] = "load EFER",
	[22] = "save preemption timer",
	[23] = "clear BNDCFGS",
	[28] = "load CET state",
};

static const char *const entry_bits[32] = {
	[2] = "load debug controls", [9] = "IA-32e guest", [13] = "load PERF_GLOBAL_CTRL",
	[14] = "load PAT",           [15] = "load EFER",   [16] = "load BNDCFGS",
	[20] = "load CET state",
};

static const char *const basic_bits[64] = {
	[54] = "INS and OUTS information",
	[56] = "exceptions with any error code",
};

static const char *const ept_bits[64] = {
	[0] = "execute-only EPT",
	[6] = "EPT of 4 levels",
	[7] = "EPT of 5 levels",
	[14] = "EPT write-back",
	[16] = "EPT 2 MiB pages",
	[17] = "EPT 1 GiB pages",
	[20] = "INVEPT",
	[21] = "EPT accessed and dirty flags",
	[25] = "INVEPT single",
	[26] = "INVEPT all",
	[32] = "INVVPID",
	[40] = "INVVPID address",
	[41] = "INVVPID single",
	[42] = "INVVPID all",
	[43] = "INVVPID retaining globals",
};

#define ALL UINT64_MAX

static const struct vmx_msr vmx_msrs[] = {
	/* Revision, sizes and memory type; and what is a feature of the rest. */
	{0x480, "IA32_VMX_BASIC", RULE_EQUAL, 0x00bc1fff7fffffff, NULL},
	{0x480, "IA32_VMX_BASIC", RULE_SUBSET, 1ull << 54 | 1ull << 56, basic_bits},
	{0x481, "pin-based controls", RULE_CONTROLS, ALL, pin_bits},
	{0x482, "processor-based controls", RULE_CONTROLS, ALL, proc_bits},
	{0x483, "VM-exit controls", RULE_CONTROLS, ALL, exit_bits},
	{0x484, "VM-entry controls", RULE_CONTROLS, ALL, entry_bits},
	/* Activity states, VMWRITE to any field, ...; the rest counts things. */
	{0x485, "IA32_VMX_MISC", RULE_SUBSET, 0x600041e0, NULL},
	{0x486, "IA32_VMX_CR0_FIXED0", RULE_FIXED0, ALL, NULL},
	{0x487, "IA32_VMX_CR0_FIXED1", RULE_SUBSET, ALL, NULL},
	{0x488, "IA32_VMX_CR4_FIXED0", RULE_FIXED0, ALL, NULL},
	{0x489, "IA32_VMX_CR4_FIXED1", RULE_SUBSET, ALL, NULL},
	{0x48b, "secondary processor-based controls", RULE_CONTROLS, ALL, secondary_bits},
	{0x48c, "IA32_VMX_EPT_VPID_CAP", RULE_SUBSET, ALL, ept_bits},
	{0x48d, "true pin-based controls", RULE_CONTROLS, ALL, pin_bits},
	{0x48e, "true processor-based controls", RULE_CONTROLS, ALL, proc_bits},
	{0x48f, "true VM-exit controls", RULE_CONTROLS, ALL, exit_bits},
	{0x490, "true VM-entry controls", RULE_CONTROLS, ALL, entry_bits},
	{0x491, "IA32_VMX_VMFUNC", RULE_SUBSET, ALL, NULL},
};

const char *const nested_svm_features[32] = {
	[0] = "npt",          [1] = "lbrv",           [2] = "svm_lock",    [3] = "nrip_save",
	[4] = "tsc_scale",    [5] = "vmcb_clean",     [6] = "flushbyasid", [7] = "decodeassists",
	[10] = "pausefilter", [12] = "pfthreshold",   [13] = "avic",       [15] = "v_vmsave_vmload",
	[16] = "vgif",        [17] = "gmet",          [18] = "x2avic",     [20] = "v_spec_ctrl",
	[25] = "vnmi",        [28] = "svme_addr_chk",
};

/* The list of differences: "a, b, c"; what does not fit is cut off. */
struct differences {
	char text[ERR_MSG_BYTES * 3 / 4];
};

static void add(struct differences *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct differences *d, const char *fmt, ...)
{
	size_t used = strlen(d->text);
	va_list ap;

	if (used)
		snprintf(d->text + used, sizeof(d->text) - used, ", ");
	used = strlen(d->text);
	va_start(ap, fmt);
	vsnprintf(d->text + used, sizeof(d->text) - used, fmt, ap);
	va_end(ap);
}

static void add_bits(struct differences *d, const char *what, uint64_t bits,
		     const char *const *names, int shift)
{
	for (; bits; bits &= bits - 1) {
		int bit = __builtin_ctzll(bits);
		const char *name = names ? names[bit - shift] : NULL;

		if (name)
			add(d, "%s (%s)", name, what);
		else
			add(d, "%s bit %d", what, bit - shift);
	}
}

/* What must be 1 on this host and need not be for the guest. */
static void add_obligations(struct differences *d, const struct vmx_msr *m, uint64_t bits)
{
	for (; bits; bits &= bits - 1) {
		int bit = __builtin_ctzll(bits);
		const char *name = m->bits ? m->bits[bit] : NULL;

		if (name)
			add(d, "%s that can be off (%s)", name, m->name);
		else
			add(d, "bit %d that can be 0 (%s)", bit, m->name);
	}
}

static void compare_controls(const struct vmx_msr *m, uint64_t guest, uint64_t host,
			     struct differences *d)
{
	const uint64_t may = 0xffffffffull << 32;

	add_bits(d, m->name, guest & ~host & may, m->bits, 32);
	add_obligations(d, m, host & ~guest & ~may);
}

static void compare(const struct vmx_msr *m, uint64_t guest, uint64_t host, struct differences *d)
{
	guest &= m->compared;
	host &= m->compared;
	switch (m->rule) {
	case RULE_CONTROLS:
		compare_controls(m, guest, host, d);
		break;
	case RULE_SUBSET:
		add_bits(d, m->name, guest & ~host, m->bits, 0);
		break;
	case RULE_FIXED0:
		add_obligations(d, m, host & ~guest);
		break;
	case RULE_EQUAL:
		if (guest != host)
			add(d, "%s 0x%" PRIx64 " (here 0x%" PRIx64 ")", m->name, guest, host);
		break;
	}
}

static bool find(const struct nested_caps *c, uint32_t index, uint64_t *value)
{
	for (uint32_t i = 0; i < c->nr_vmx; i++)
		if (c->vmx[i].index == index) {
			*value = c->vmx[i].value;
			return true;
		}
	return false;
}

static void compare_vmx(const struct nested_caps *guest, const struct nested_caps *host,
			struct differences *d)
{
	for (size_t i = 0; i < sizeof(vmx_msrs) / sizeof(vmx_msrs[0]); i++) {
		const struct vmx_msr *m = &vmx_msrs[i];
		uint64_t g;
		uint64_t h;

		if (!find(guest, m->index, &g))
			continue;
		if (find(host, m->index, &h))
			compare(m, g, h, d);
		else
			add(d, "%s (MSR 0x%x)", m->name, m->index);
	}
}

static void compare_svm(const struct nested_caps *guest, const struct nested_caps *host,
			struct differences *d)
{
	add_bits(d, "SVM", guest->svm_features & ~host->svm_features, nested_svm_features, 0);
	if (guest->svm_asids > host->svm_asids)
		add(d, "%u address space ids (here %u)", guest->svm_asids, host->svm_asids);
	if (guest->svm_revision > host->svm_revision)
		add(d, "SVM revision %u (here %u)", guest->svm_revision, host->svm_revision);
}

static void compare_kvm(const struct nested_caps *guest, const struct nested_caps *host,
			struct differences *d)
{
	if (guest->state_bytes > host->state_bytes)
		add(d, "nested state of up to %u bytes (here %u)", guest->state_bytes,
		    host->state_bytes);
	if (guest->exception_payload && !host->exception_payload)
		add(d, "KVM_CAP_EXCEPTION_PAYLOAD");
	if (guest->triple_fault_event && !host->triple_fault_event)
		add(d, "KVM_CAP_X86_TRIPLE_FAULT_EVENT");
}

int nested_caps_check(const struct nested_caps *guest, const struct nested_caps *host,
		      struct err *e)
{
	struct differences d = {.text = ""};

	if (guest->vendor != host->vendor)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "the guest's hypervisor uses %s and this host offers %s",
			       nested_vendor_name(guest->vendor), nested_vendor_name(host->vendor));
	if (guest->vendor == NESTED_VMX)
		compare_vmx(guest, host, &d);
	if (guest->vendor == NESTED_SVM)
		compare_svm(guest, host, &d);
	compare_kvm(guest, host, &d);
	if (!d.text[0])
		return 0;
	return err_set(
		e, ERR_UNSUPPORTED, ENOTSUP,
		"this host lacks for the guest's hypervisor: %s; start the guest on the older "
		"of the two hosts",
		d.text);
}
