#include "vmm/vcpu_state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/guest_time.h"
#include "vmm/kvm.h"

/* Two hosts' measurements of the same nominal frequency differ by about this much; QEMU and
 * Firecracker tolerate the same. */
#define TSC_TOLERANCE_PPM 250u
#define XCR0_X87          1u

/* Of an XSAVE area, what the CPU leaves to software (SDM vol. 1, 13.4.1). */
#define XSAVE_SOFTWARE_AT    464
#define XSAVE_SOFTWARE_BYTES 48

#define VCPU_IOCTL(fd, request, arg, e) \
	(ioctl((fd), (request), (arg)) < 0 ? err_sys((e), #request) : 0)

void vcpu_caps_init(int vm_fd, struct vcpu_caps *caps)
{
	int bytes = kvm_check(vm_fd, KVM_CAP_XSAVE2);

	*caps = (struct vcpu_caps){
		.xsave2 = bytes > 0,
		.xsave_bytes =
			bytes > (int)VCPU_XSAVE_MIN_BYTES ? (uint32_t)bytes : VCPU_XSAVE_MIN_BYTES,
		.sregs2 = kvm_check(vm_fd, KVM_CAP_SREGS2) > 0,
		.xcrs = kvm_check(vm_fd, KVM_CAP_XCRS) > 0,
		.smm = kvm_check(vm_fd, KVM_CAP_X86_SMM) > 0,
		.tsc_control = kvm_check(vm_fd, KVM_CAP_TSC_CONTROL) > 0,
	};
}

/* Ten banks, and MCG_CTL if KVM has it: the same on every host, because the guest counts them. */
int vcpu_set_up_mce(int kvm_fd, int vcpu_fd, struct err *e)
{
	const uint64_t mcg_ctl_p = 1ull << 8;
	uint64_t supported = 0;
	uint64_t cap;

	if (!kvm_check(kvm_fd, KVM_CAP_MCE) ||
	    ioctl(kvm_fd, KVM_X86_GET_MCE_CAP_SUPPORTED, &supported) < 0)
		return 0;
	cap = (supported & mcg_ctl_p) | VCPU_NR_MCE_BANKS;
	return VCPU_IOCTL(vcpu_fd, KVM_X86_SETUP_MCE, &cap, e);
}

int vcpu_tsc_khz(int vcpu_fd, struct vcpu_caps *caps, struct err *e)
{
	int khz = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);

	if (khz <= 0)
		return err_sys(e, "KVM_GET_TSC_KHZ says %d: the host's TSC is unusable", khz);
	caps->tsc_khz = (uint32_t)khz;
	return 0;
}

int vcpu_caps_probe(int kvm_fd, int vcpu_fd, struct vcpu_caps *caps, struct err *e)
{
	uint64_t tsc = 0;
	int ret = msr_list_probe(kvm_fd, vcpu_fd, &caps->msrs, e);

	if (ret == 0)
		ret = msr_set(vcpu_fd, MSR_TSC, VCPU_TSC_FAR, e);
	if (ret == 0)
		ret = msr_get(vcpu_fd, MSR_TSC, &tsc, e);
	caps->tsc_fixed = tsc < VCPU_TSC_FAR;
	return ret;
}

int vcpu_state_init(struct vcpu_state *s, uint32_t xsave_bytes, struct err *e)
{
	memset(s, 0, sizeof(*s));
	s->xsave_bytes = xsave_bytes;
	s->xsave = calloc(1, xsave_bytes);
	if (!s->xsave)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for vCPU state");
	return 0;
}

void vcpu_state_fini(struct vcpu_state *s)
{
	free(s->xsave);
	s->xsave = NULL;
}

void vcpu_sregs_tidy(struct kvm_sregs2 *s)
{
	struct kvm_segment *segments[] = {&s->cs, &s->ds, &s->es, &s->fs,
					  &s->gs, &s->ss, &s->tr, &s->ldt};

	for (size_t i = 0; i < sizeof(segments) / sizeof(segments[0]); i++)
		if (segments[i]->unusable)
			segments[i]->type = 0;
}

static int get_sregs(int fd, const struct vcpu_caps *caps, struct kvm_sregs2 *s, struct err *e)
{
	struct kvm_sregs old;

	memset(s, 0, sizeof(*s));
	if (caps->sregs2)
		return VCPU_IOCTL(fd, KVM_GET_SREGS2, s, e);
	if (ioctl(fd, KVM_GET_SREGS, &old) < 0)
		return err_sys(e, "KVM_GET_SREGS");
	/* The two agree up to and with apic_base. The interrupt bitmap that follows in the old one
	 * repeats what KVM_GET_VCPU_EVENTS says. */
	memcpy(s, &old, offsetof(struct kvm_sregs2, flags));
	return 0;
}

int vcpu_sregs_get(int fd, const struct vcpu_caps *caps, struct kvm_sregs2 *s, struct err *e)
{
	int ret = get_sregs(fd, caps, s, e);

	if (ret == 0)
		vcpu_sregs_tidy(s);
	return ret;
}

int vcpu_sregs_set(int fd, const struct vcpu_caps *caps, const struct kvm_sregs2 *s, struct err *e)
{
	struct kvm_sregs2 sregs = *s;
	struct kvm_sregs old = {0};

	if (caps->sregs2)
		return VCPU_IOCTL(fd, KVM_SET_SREGS2, &sregs, e);
	memcpy(&old, s, offsetof(struct kvm_sregs2, flags));
	return VCPU_IOCTL(fd, KVM_SET_SREGS, &old, e);
}

void vcpu_xsave_tidy(uint8_t *xsave)
{
	memset(xsave + XSAVE_SOFTWARE_AT, 0, XSAVE_SOFTWARE_BYTES);
}

static int get_xsave(int fd, const struct vcpu_caps *caps, struct vcpu_state *s, struct err *e)
{
	int ret = caps->xsave2 ? VCPU_IOCTL(fd, KVM_GET_XSAVE2, s->xsave, e)
			       : VCPU_IOCTL(fd, KVM_GET_XSAVE, s->xsave, e);

	if (ret == 0)
		vcpu_xsave_tidy(s->xsave);
	return ret;
}

static int get_msrs(int fd, const struct vcpu_caps *caps, struct vcpu_state *s, struct err *e)
{
	int ret = msrs_save(fd, &caps->msrs, &s->msrs, e);

	if (ret < 0)
		return ret;
	s->tsc_khz = caps->tsc_khz;
	/* Value and moment side by side: the destination adds the time that passed since. */
	ret = msr_get(fd, MSR_TSC, &s->tsc, e);
	s->tsc_realtime_ns = guest_time_realtime_ns();
	return ret;
}

/*
 * Ordering rules:
 *  - MP state first: KVM_GET_MP_STATE makes KVM act on INIT and SIPI that arrived meanwhile
 *    (kvm_apic_accept_events), which changes nearly everything else.
 *  - MP state before nested state too: an event that ends L2 may be taken by it.
 *  - Events last: other GETs may turn pending state into injected state.
 *  - The rest may come in any order while no vCPU runs.
 */
/* A CPU without XSAVE has no XCR0. Its guests are as those of others are after a reset (SDM vol.
 * 1, 13.3), and can go there. */
static int get_xcrs(int fd, const struct vcpu_caps *caps, struct kvm_xcrs *x, struct err *e)
{
	if (caps->xcrs)
		return VCPU_IOCTL(fd, KVM_GET_XCRS, x, e);
	*x = (struct kvm_xcrs){.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = XCR0_X87}}};
	return 0;
}

static int get_events(int fd, struct vcpu_state *s, struct err *e)
{
	int ret = VCPU_IOCTL(fd, KVM_GET_VCPU_EVENTS, &s->events, e);

	if (nested_state_blocks_nmis(&s->nested))
		s->events.nmi.masked = 1;
	return ret;
}

int vcpu_state_save(int fd, const struct vcpu_caps *caps, struct vcpu_state *s, struct err *e)
{
	int ret = VCPU_IOCTL(fd, KVM_GET_MP_STATE, &s->mp_state, e);

	if (ret == 0)
		ret = VCPU_IOCTL(fd, KVM_GET_REGS, &s->regs, e);
	if (ret == 0)
		ret = vcpu_sregs_get(fd, caps, &s->sregs, e);
	if (ret == 0)
		ret = get_xsave(fd, caps, s, e);
	if (ret == 0)
		ret = get_xcrs(fd, caps, &s->xcrs, e);
	if (ret == 0)
		ret = VCPU_IOCTL(fd, KVM_GET_DEBUGREGS, &s->debugregs, e);
	if (ret == 0)
		ret = VCPU_IOCTL(fd, KVM_GET_LAPIC, &s->lapic, e);
	if (ret == 0)
		ret = get_msrs(fd, caps, s, e);
	if (ret == 0 && caps->nested.vendor != NESTED_NONE)
		ret = nested_state_save(fd, &s->nested, e);
	if (ret == 0)
		ret = get_events(fd, s, e);
	return ret;
}

static int check_tsc(const struct vcpu_caps *caps, const struct vcpu_state *s, struct err *e)
{
	uint64_t tolerance = (uint64_t)s->tsc_khz * TSC_TOLERANCE_PPM / 1000000;
	uint64_t apart = s->tsc_khz > caps->tsc_khz ? s->tsc_khz - caps->tsc_khz
						    : caps->tsc_khz - s->tsc_khz;

	if (s->tsc_khz == 0)
		return err_set(e, ERR_STREAM, EBADMSG, "a TSC frequency of zero");
	if (apart <= tolerance || caps->tsc_control)
		return 0;
	return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
		       "the guest's TSC runs at %u kHz, this host's at %u kHz, and its KVM cannot "
		       "scale it (KVM_CAP_TSC_CONTROL)",
		       s->tsc_khz, caps->tsc_khz);
}

static int check_xcrs(const struct vcpu_caps *caps, const struct vcpu_state *s, struct err *e)
{
	for (uint32_t i = 0; i < s->xcrs.nr_xcrs && !caps->xcrs; i++)
		if (s->xcrs.xcrs[i].value != XCR0_X87)
			return err_set(
				e, ERR_UNSUPPORTED, ENOTSUP,
				"the guest uses extended CPU state (XCR%u is 0x%llx), and this "
				"host's CPU has no XSAVE",
				s->xcrs.xcrs[i].xcr, (unsigned long long)s->xcrs.xcrs[i].value);
	return 0;
}

static int check_smm(const struct vcpu_caps *caps, const struct vcpu_state *s, struct err *e)
{
	bool used = s->events.flags & KVM_VCPUEVENT_VALID_SMM &&
		    (s->events.smi.smm || s->events.smi.pending);

	if (!used || caps->smm)
		return 0;
	return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
		       "a CPU of the guest is in system management mode or about to be, and this "
		       "host's KVM has none (KVM_CAP_X86_SMM)");
}

int vcpu_state_check(const struct vcpu_caps *caps, const struct cpuid *host,
		     const struct vcpu_state *s, struct err *e)
{
	int ret = cpuid_check(&s->cpuid, host, e);

	if (ret == 0)
		ret = check_tsc(caps, s, e);
	if (ret == 0 && !nested_state_is_none(&s->nested))
		ret = nested_state_check(&s->nested, &caps->nested, e);
	if (ret == 0)
		ret = check_xcrs(caps, s, e);
	if (ret == 0)
		ret = check_smm(caps, s, e);
	if (ret < 0)
		return ret;
	if (s->xsave_bytes > caps->xsave_bytes)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "the guest has %u bytes of extended CPU state and this host's KVM "
			       "takes %u",
			       s->xsave_bytes, caps->xsave_bytes);
	return 0;
}

static int set_xsave(int fd, const struct vcpu_caps *caps, const struct vcpu_state *s,
		     struct err *e)
{
	uint8_t *area;
	int ret;

	if (s->xsave_bytes >= caps->xsave_bytes)
		return VCPU_IOCTL(fd, KVM_SET_XSAVE, s->xsave, e);
	/* KVM reads as many bytes as KVM_CAP_XSAVE2 says, however few a source had. */
	area = calloc(1, caps->xsave_bytes);
	if (!area)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for vCPU state");
	memcpy(area, s->xsave, s->xsave_bytes);
	ret = VCPU_IOCTL(fd, KVM_SET_XSAVE, area, e);
	free(area);
	return ret;
}

/*
 * The guest's TSC goes on from what it was, plus the time the guest was away.
 *
 * KVM takes a write that is within a second of what this VM's TSC should read as "synchronize with
 * the other vCPUs" and uses their offset instead of the value (kvm_synchronize_tsc). That is
 * wanted among the vCPUs of one load: their values were read microseconds apart and come out
 * exactly in step. It is not wanted for the first of them, whose predecessor would be the value
 * from vCPU creation or from an earlier run: vm_forget_tsc() has moved that far away.
 */
static int load_tsc(int fd, const struct vcpu_caps *caps, const struct vcpu_state *s, struct err *e)
{
	uint64_t cycles;

	if (s->tsc_khz != caps->tsc_khz && caps->tsc_control &&
	    ioctl(fd, KVM_SET_TSC_KHZ, (unsigned long)s->tsc_khz) < 0)
		return err_sys(e, "KVM_SET_TSC_KHZ %u", s->tsc_khz);
	cycles = (uint64_t)((unsigned __int128)guest_time_away_ns(s->tsc_realtime_ns) * s->tsc_khz /
			    1000000);
	return msr_set(fd, MSR_TSC, s->tsc + cycles, e);
}

static int set_smm(int fd, const struct vcpu_state *s, struct err *e)
{
	struct kvm_vcpu_events events = {.flags = KVM_VCPUEVENT_VALID_SMM, .smi = s->events.smi};

	if (!(s->events.flags & KVM_VCPUEVENT_VALID_SMM))
		return 0;
	return VCPU_IOCTL(fd, KVM_SET_VCPU_EVENTS, &events, e);
}

static int load_nested(int fd, const struct vcpu_state *s, struct err *e)
{
	struct nested_state nested = s->nested;
	uint64_t tsc = 0;
	int ret = set_smm(fd, s, e);

	if (ret == 0)
		ret = msr_get(fd, MSR_TSC, &tsc, e);
	if (ret < 0)
		return ret;
	nested_state_put_off_timer(&nested, tsc, s->tsc_khz);
	return nested_state_load(fd, &nested, e);
}

/*
 * Ordering rules:
 *  - CPUID first: it decides which bits of CR4, EFER, XCR0 and which MSRs KVM takes.
 *  - Out of L2 before anything but CPUID: what follows is meant for a CPU that is in no guest, and
 *    the VMX capability MSRs cannot be written in VMX operation (vmx_set_vmx_msr).
 *  - MP state before LAPIC and events: pending INIT or SIPI is handled by it.
 *  - KVM_SET_SREGS carries the APIC base, that is the APIC's mode, and KVM_SET_LAPIC checks the
 *    register page against it (x2APIC keeps its id elsewhere): SREGS before LAPIC.
 *  - LAPIC before MSRs: IA32_TSC_DEADLINE is dropped unless the LAPIC timer is in deadline mode.
 *  - TSC before IA32_TSC_DEADLINE (the last of the MSRs): the deadline is compared with it.
 *  - REGS before events: KVM_SET_REGS discards a pending exception.
 *  - Nested state after REGS, SREGS and MSRs: it takes what they loaded for L2's and puts L1's own
 *    beside it (nested/state.h).
 *  - System management mode before nested state: in that mode KVM takes other nested states than
 *    outside (vmx_set_nested_state, svm_set_nested_state), and changing it later ends L2.
 *  - Events last: SREGS, LAPIC and nested state change what is pending.
 */
int vcpu_state_load(int fd, const struct vcpu_caps *caps, const struct vcpu_state *s,
		    bool set_cpuid, struct err *e)
{
	struct vcpu_state *w = (struct vcpu_state *)(uintptr_t)s; /* ioctl() knows no const */
	int ret = set_cpuid ? cpuid_apply(fd, &s->cpuid, e) : 0;

	if (ret == 0 && caps->nested.vendor != NESTED_NONE)
		ret = nested_state_leave(fd, caps->nested.vendor, e);
	if (ret == 0)
		ret = VCPU_IOCTL(fd, KVM_SET_MP_STATE, &w->mp_state, e);
	if (ret == 0)
		ret = vcpu_sregs_set(fd, caps, &s->sregs, e);
	if (ret == 0)
		ret = VCPU_IOCTL(fd, KVM_SET_REGS, &w->regs, e);
	if (ret == 0 && caps->xcrs)
		ret = VCPU_IOCTL(fd, KVM_SET_XCRS, &w->xcrs, e);
	if (ret == 0)
		ret = set_xsave(fd, caps, s, e);
	if (ret == 0)
		ret = VCPU_IOCTL(fd, KVM_SET_DEBUGREGS, &w->debugregs, e);
	if (ret == 0)
		ret = VCPU_IOCTL(fd, KVM_SET_LAPIC, &w->lapic, e);
	if (ret == 0)
		ret = load_tsc(fd, caps, s, e);
	if (ret == 0)
		ret = msrs_load(fd, &s->msrs, e);
	if (ret == 0 && !nested_state_is_none(&s->nested))
		ret = load_nested(fd, s, e);
	if (ret == 0)
		ret = VCPU_IOCTL(fd, KVM_SET_VCPU_EVENTS, &w->events, e);
	return ret;
}
