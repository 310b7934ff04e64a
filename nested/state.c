#include "nested/state.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "nested/vmcb.h"
#include "nested/vmcs12.h"

#define PAGE_MASK 0xfffull
#define NO_PA     UINT64_MAX

#define BLOCKED_BY_NMI  (1u << 3)  /* of the interruptibility (SDM vol. 3C, table 24-3) */
#define EXIT_SAVE_TIMER (1u << 22) /* of the exit controls (table 24-13) */

#define SVM_FLAGS \
	(KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING | KVM_STATE_NESTED_GIF_SET)
#define SMM_FLAGS   (KVM_STATE_NESTED_SMM_GUEST_MODE | KVM_STATE_NESTED_SMM_VMXON)
#define VMX_PENDING (KVM_STATE_NESTED_RUN_PENDING | KVM_STATE_NESTED_MTF_PENDING)
#define VMX_FLAGS   (KVM_STATE_NESTED_GUEST_MODE | VMX_PENDING | KVM_STATE_NESTED_EVMCS)

static const size_t header_bytes = sizeof(struct kvm_nested_state);

/*
 * The save area that KVM hands out is all of its VMCB for L1, of which it takes back what a #VMEXIT
 * loads (svm_copy_vmrun_state; shadow stacks since Linux 6.18, branch records later still). The
 * rest is whatever lay there. Cleared, equal states have equal bytes.
 */
static void keep_l1_registers(uint8_t *page)
{
	static const struct {
		uint16_t offset, bytes;
	} kept[] = {
		{VMCB_SAVE_ES, 4 * VMCB_SEGMENT_BYTES},
		{VMCB_SAVE_GDTR, VMCB_SEGMENT_BYTES},
		{VMCB_SAVE_IDTR, VMCB_SEGMENT_BYTES},
		{VMCB_SAVE_EFER, 8},
		{VMCB_SAVE_CR4, 24 /* CR3, CR0 */},
		{VMCB_SAVE_RFLAGS, 16 /* RIP */},
		{VMCB_SAVE_RSP, 40 /* S_CET, SSP, ISST_ADDR, RAX */},
		{VMCB_SAVE_DBGCTL, 40 /* BR_FROM, BR_TO, LASTEXCPFROM, LASTEXCPTO */},
	};
	uint8_t clean[VMCB_BYTES] = {0};

	memcpy(clean, page, VMCB_CONTROL_BYTES);
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		memcpy(clean + kept[i].offset, page + kept[i].offset, kept[i].bytes);
	memcpy(page, clean, sizeof(clean));
}

/* Of a VMCS12 whose layout we know: else 0. */
static uint32_t vmcs12_u32(const struct nested_state *s, size_t offset)
{
	uint32_t revision, value;

	memcpy(&revision, s->bytes + header_bytes, sizeof(revision));
	memcpy(&value, s->bytes + header_bytes + offset, sizeof(value));
	return revision == VMCS12_REVISION ? value : 0;
}

/*
 * While L2 runs, KVM saves the CPU's guest-linear address, which tells of L0's last exit, not of
 * L1's (sync_vmcs02_to_vmcs12). L1 is told another when L2 exits to it, so it is no state.
 */
static void forget_linear_address(struct nested_state *s)
{
	if (vmcs12_u32(s, 0) == VMCS12_REVISION)
		memset(s->bytes + header_bytes + VMCS12_GUEST_LINEAR_ADDRESS, 0, 8);
}

/*
 * Where exits save what is left of L2's preemption timer, KVM saves that with the state, too: it
 * counts down, and is not looked at beside the deadline. Elsewhere it is what L1 has written.
 */
static void forget_remaining_time(struct nested_state *s)
{
	if (s->kvm.hdr.vmx.flags & KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE &&
	    vmcs12_u32(s, VMCS12_EXIT_CONTROLS) & EXIT_SAVE_TIMER)
		memset(s->bytes + header_bytes + VMCS12_TIMER_VALUE, 0, 4);
}

void nested_state_tidy(struct nested_state *s)
{
	if (!(s->kvm.flags & KVM_STATE_NESTED_GUEST_MODE) ||
	    s->kvm.size < header_bytes + VMCB_BYTES)
		return;
	if (s->kvm.format == KVM_STATE_NESTED_FORMAT_SVM) {
		keep_l1_registers(s->bytes + header_bytes);
	} else {
		forget_linear_address(s);
		forget_remaining_time(s);
	}
}

bool nested_state_blocks_nmis(const struct nested_state *s)
{
	return s->kvm.format == KVM_STATE_NESTED_FORMAT_VMX &&
	       s->kvm.flags & KVM_STATE_NESTED_GUEST_MODE &&
	       vmcs12_u32(s, VMCS12_INTERRUPTIBILITY) & BLOCKED_BY_NMI;
}

void nested_state_put_off_timer(struct nested_state *s, uint64_t l1_tsc, uint32_t tsc_khz)
{
	struct kvm_vmx_nested_state_hdr *h = &s->kvm.hdr.vmx;
	uint64_t soon = (l1_tsc + (uint64_t)tsc_khz * NESTED_TIMER_PUT_OFF_MS) >> NESTED_TIMER_RATE;

	if (s->kvm.format == KVM_STATE_NESTED_FORMAT_VMX &&
	    h->flags & KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE &&
	    h->preemption_timer_deadline < soon)
		h->preemption_timer_deadline = soon;
}

int nested_state_save(int fd, struct nested_state *s, struct err *e)
{
	memset(s, 0, sizeof(*s));
	s->kvm.size = sizeof(*s);
	if (ioctl(fd, KVM_GET_NESTED_STATE, s) < 0)
		return err_sys(e, "KVM_GET_NESTED_STATE");
	nested_state_tidy(s);
	return 0;
}

int nested_state_load(int fd, const struct nested_state *s, struct err *e)
{
	if (ioctl(fd, KVM_SET_NESTED_STATE, s) == 0)
		return 0;
	return err_sys(e,
		       "KVM does not take the state of the guest's hypervisor "
		       "(KVM_SET_NESTED_STATE, format %u, flags 0x%x, %u bytes)",
		       s->kvm.format, s->kvm.flags, s->kvm.size);
}

int nested_state_leave(int fd, enum nested_vendor vendor, struct err *e)
{
	struct kvm_nested_state s = {.size = sizeof(s)};

	if (vendor == NESTED_SVM) {
		s.format = KVM_STATE_NESTED_FORMAT_SVM;
		s.flags = KVM_STATE_NESTED_GIF_SET;
	} else {
		s.format = KVM_STATE_NESTED_FORMAT_VMX;
		s.hdr.vmx.vmxon_pa = s.hdr.vmx.vmcs12_pa = NO_PA;
	}
	return ioctl(fd, KVM_SET_NESTED_STATE, &s) < 0 ? err_sys(e, "KVM_SET_NESTED_STATE of none")
						       : 0;
}

static int malformed(const char *what, uint64_t value, struct err *e)
{
	return err_set(e, ERR_STREAM, EBADMSG, "nested state: %s 0x%" PRIx64, what, value);
}

static int check_svm(const struct kvm_nested_state *s, struct err *e)
{
	bool in_l2 = s->flags & KVM_STATE_NESTED_GUEST_MODE;

	if (s->flags & ~SVM_FLAGS)
		return malformed("unknown SVM flags", s->flags, e);
	if (!in_l2 && s->flags & KVM_STATE_NESTED_RUN_PENDING)
		return malformed("a pending entry outside L2, flags", s->flags, e);
	if (s->size != header_bytes + (in_l2 ? VMCB_BYTES : 0))
		return malformed("SVM size", s->size, e);
	if (in_l2 && s->hdr.svm.vmcb_pa & PAGE_MASK)
		return malformed("VMCB address", s->hdr.svm.vmcb_pa, e);
	return 0;
}

static int check_vmx_header(const struct kvm_vmx_nested_state_hdr *h, struct err *e)
{
	bool vmx_on = h->vmxon_pa != NO_PA, has_vmcs = h->vmcs12_pa != NO_PA;

	if (h->flags & ~(uint32_t)KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE)
		return malformed("unknown flags of VMX", h->flags, e);
	if (h->smm.flags & ~SMM_FLAGS)
		return malformed("unknown flags of SMM", h->smm.flags, e);
	if (vmx_on && h->vmxon_pa & PAGE_MASK)
		return malformed("VMXON address", h->vmxon_pa, e);
	if (has_vmcs && h->vmcs12_pa & PAGE_MASK)
		return malformed("VMCS12 address", h->vmcs12_pa, e);
	if (!vmx_on && has_vmcs)
		return malformed("outside VMX operation, and a VMCS12 at", h->vmcs12_pa, e);
	if (!vmx_on && h->smm.flags)
		return malformed("outside VMX operation, and flags of SMM", h->smm.flags, e);
	return 0;
}

static int check_vmx(const struct kvm_nested_state *s, struct err *e)
{
	const struct kvm_vmx_nested_state_hdr *h = &s->hdr.vmx;
	size_t data = s->size - header_bytes;
	bool in_l2 = s->flags & KVM_STATE_NESTED_GUEST_MODE;

	if (s->flags & ~VMX_FLAGS)
		return malformed("unknown VMX flags", s->flags, e);
	if (s->flags & KVM_STATE_NESTED_EVMCS)
		return err_set(
			e, ERR_UNSUPPORTED, ENOTSUP,
			"nested state: the enlightened VMCS of Hyper-V guests is not offered");
	if (!in_l2 && s->flags & VMX_PENDING)
		return malformed("a pending entry or step outside L2, flags", s->flags, e);
	if (data % 4096 || data > 2 * 4096)
		return malformed("VMX size", s->size, e);
	if (in_l2 && (h->vmxon_pa == NO_PA || h->vmcs12_pa == NO_PA || data == 0))
		return malformed("L2 without VMCS12, flags", s->flags, e);
	return check_vmx_header(h, e);
}

int nested_state_check(const struct nested_state *s, const struct nested_caps *host, struct err *e)
{
	uint16_t format = host->vendor == NESTED_VMX ? KVM_STATE_NESTED_FORMAT_VMX
						     : KVM_STATE_NESTED_FORMAT_SVM;

	if (s->kvm.format != format)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "nested state of format %u, and this host's KVM has %u (%s)",
			       s->kvm.format, format, nested_vendor_name(host->vendor));
	if (s->kvm.size < header_bytes || s->kvm.size > sizeof(*s))
		return malformed("size", s->kvm.size, e);
	if (s->kvm.size > host->state_bytes)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "nested state of %u bytes, and this host's KVM takes %u",
			       s->kvm.size, host->state_bytes);
	return format == KVM_STATE_NESTED_FORMAT_SVM ? check_svm(&s->kvm, e)
						     : check_vmx(&s->kvm, e);
}
