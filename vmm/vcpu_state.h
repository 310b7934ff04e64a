/*
 * Everything KVM knows about one vCPU, as plain data, and the order in which KVM wants it saved
 * and loaded. On the vCPU's thread; the other vCPUs must not run meanwhile.
 */
#pragma once

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "nested/state.h"
#include "vmm/base/err.h"
#include "vmm/cpuid.h"
#include "vmm/vcpu_msrs.h"

#define VCPU_XSAVE_MIN_BYTES 4096u
#define VCPU_XSAVE_MAX_BYTES 65536u

/* How this host's KVM wants to be asked: probed once for a VM, immutable afterwards. */
struct vcpu_caps {
	bool xsave2;          /* KVM_CAP_XSAVE2 */
	uint32_t xsave_bytes; /* what KVM_GET_XSAVE(2) writes and KVM_SET_XSAVE reads */
	bool sregs2;          /* KVM_CAP_SREGS2 */
	bool xcrs;            /* KVM_CAP_XCRS: absent where the CPU, or an L1's, has no XSAVE */
	bool smm;             /* KVM_CAP_X86_SMM: there is a system management mode */
	bool tsc_control;     /* KVM_CAP_TSC_CONTROL: the TSC can be scaled */
	bool tsc_fixed;       /* writes to IA32_TSC are ignored */
	uint32_t tsc_khz;
	struct msr_list msrs;
	struct nested_caps nested; /* vendor NESTED_NONE: the guest is no hypervisor */
};

struct vcpu_state {
	uint32_t id;
	struct cpuid cpuid;
	uint32_t tsc_khz;
	struct kvm_mp_state mp_state;
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	uint32_t xsave_bytes;
	uint8_t *xsave; /* owned */
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct msr_values msrs;
	uint64_t tsc;
	uint64_t tsc_realtime_ns;
	struct nested_state nested;
};

/* Half a lifetime away from any guest's TSC: see load_tsc() in vcpu_state.c. */
#define VCPU_TSC_FAR (1ull << 62)

/* Learning about a host, in this order: what does not depend on a vCPU; the TSC's frequency; and
 * once the CPUID and the machine-check banks are set up (every vCPU needs those), the rest. The
 * last leaves that vCPU's TSC at VCPU_TSC_FAR. */
void vcpu_caps_init(int vm_fd, struct vcpu_caps *caps);
int vcpu_tsc_khz(int vcpu_fd, struct vcpu_caps *caps, struct err *e);
int vcpu_set_up_mce(int kvm_fd, int vcpu_fd, struct err *e);
int vcpu_caps_probe(int kvm_fd, int vcpu_fd, struct vcpu_caps *caps, struct err *e);

int vcpu_state_init(struct vcpu_state *s, uint32_t xsave_bytes, struct err *e);
void vcpu_state_fini(struct vcpu_state *s);

/* Fill @s in, but for id and cpuid, which the VM knows. @s has xsave_bytes of @caps. */
int vcpu_state_save(int vcpu_fd, const struct vcpu_caps *caps, struct vcpu_state *s, struct err *e);

/* @host is what this KVM offers (cpuid_build()). Everything that can be refused without touching
 * the vCPU is refused here. */
int vcpu_state_check(const struct vcpu_caps *caps, const struct cpuid *host,
		     const struct vcpu_state *s, struct err *e);

/* A vCPU whose load failed is not to be run. @set_cpuid: its CPUID differs from @s's. */
int vcpu_state_load(int vcpu_fd, const struct vcpu_caps *caps, const struct vcpu_state *s,
		    bool set_cpuid, struct err *e);

/* Clears the type of segments that are unusable: it means nothing there, and KVM sets its accessed
 * bit on load where the CPU runs real mode natively (__vmx_set_segment). Then equal states have
 * equal bytes. */
void vcpu_sregs_tidy(struct kvm_sregs2 *s);

/* Clears what is software's in an XSAVE area of VCPU_XSAVE_MIN_BYTES or more: KVM reports the
 * host's XCR0 there, and reads nothing (xstate_fx_sw_bytes in arch/x86/kernel/fpu/xstate.c). */
void vcpu_xsave_tidy(uint8_t *xsave);

/* The special registers alone, by whichever call this KVM has, tidy. */
int vcpu_sregs_get(int vcpu_fd, const struct vcpu_caps *caps, struct kvm_sregs2 *s, struct err *e);
int vcpu_sregs_set(int vcpu_fd, const struct vcpu_caps *caps, const struct kvm_sregs2 *s,
		   struct err *e);
