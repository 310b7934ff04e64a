/*
 * One vCPU's nested state: which guest hypervisor structure is current, whether L2 runs, and what
 * KVM keeps of L1 meanwhile. Saved and loaded on the vCPU's thread; else plain data.
 *
 * Place in the order of a load (see vmm/vcpu_state.c): nested_state_leave() before everything, so
 * that the rest lands in L1's registers; nested_state_load() after special registers and MSRs (KVM
 * checks EFER.SVME or CR4.VMXE, IA32_FEATURE_CONTROL and the VMX capability MSRs, and takes what is
 * loaded by then as L2's registers); events after it. (KVM API document 4.115;
 * svm_set_nested_state(), vmx_set_nested_state().)
 */
#pragma once

#include <linux/kvm.h>
#include <stdbool.h>

#include "nested/caps.h"
#include "vmm/base/err.h"

/* Header and two pages: VMCS12 and shadow VMCS12, the largest there is. */
#define NESTED_STATE_MAX_BYTES (sizeof(struct kvm_nested_state) + 2 * 4096)

/* KVM's preemption timer ticks when this bit of L1's TSC changes, whatever the host's does
 * (VMX_MISC_EMULATED_PREEMPTION_TIMER_RATE). */
#define NESTED_TIMER_RATE 5
/* How long a load may take from where it reads the TSC to where KVM does, on a busy host. */
#define NESTED_TIMER_PUT_OFF_MS 50u

/* kvm.size is the bytes in use; 0: the vCPU has no nesting. */
struct nested_state {
	union {
		struct kvm_nested_state kvm;
		uint8_t bytes[NESTED_STATE_MAX_BYTES];
	};
};

static inline bool nested_state_is_none(const struct nested_state *s)
{
	return s->kvm.size == 0;
}

/* Saved states are tidy: what KVM reports and does not take back is zero in them, so that equal
 * states have equal bytes. */
void nested_state_tidy(struct nested_state *s);
int nested_state_save(int vcpu_fd, struct nested_state *s, struct err *e);
int nested_state_load(int vcpu_fd, const struct nested_state *s, struct err *e);

/*
 * VMX: does L2 run with NMIs blocked? Where it does, the vCPU's events must say so, too: KVM loads
 * that from them alone. What it reports in them is a memory of its own, which says "not blocked"
 * from an entry on, even if the NMI that L1 injected with it blocks them (prepare_vmcs02_early(),
 * nmi_known_unmasked).
 */
bool nested_state_blocks_nmis(const struct nested_state *s);

/*
 * VMX: a preemption timer of L2's that was due while the CPU was nowhere, or might be before the
 * load is over, is due NESTED_TIMER_PUT_OFF_MS from now. KVM takes the time that is left for a
 * number without a sign, and a deadline that has passed for one that is hours away
 * (vmx_calc_preemption_timer_value()). @l1_tsc is what L1's TSC reads just before the load.
 */
void nested_state_put_off_timer(struct nested_state *s, uint64_t l1_tsc, uint32_t tsc_khz);

/* Out of L2 and, with VMX, out of VMX operation: the state of a CPU that was just switched on. */
int nested_state_leave(int vcpu_fd, enum nested_vendor vendor, struct err *e);

/* A state from outside: is it of this vendor, does it fit this KVM, is it well formed? ERR_STREAM
 * or ERR_UNSUPPORTED names what is wrong. */
int nested_state_check(const struct nested_state *s, const struct nested_caps *host, struct err *e);
