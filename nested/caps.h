/*
 * What one host's KVM can do for a guest that is a hypervisor itself, and whether what a guest was
 * promised on one host holds on another. Plain data; any thread.
 *
 * Sources: Linux Documentation/virt/kvm/api.rst (4.114 KVM_GET_NESTED_STATE, 4.3 feature MSRs),
 * Intel SDM vol. 3D appendix A (VMX capability MSRs), AMD APM vol. 3 appendix E.4.9 (CPUID
 * 0x8000000a).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/err.h"

enum nested_vendor {
	NESTED_NONE = 0,
	NESTED_VMX = 1,
	NESTED_SVM = 2
};

/* What the user asked for. */
enum nested_mode {
	NESTED_OFF,
	NESTED_ON,     /* if this host can, else a guest without */
	NESTED_REQUIRE /* or no guest at all */
};

/* IA32_VMX_BASIC (0x480) to IA32_VMX_VMFUNC (0x491), and what comes after it. */
#define NESTED_MAX_VMX_MSRS 24

struct nested_vmx_msr {
	uint32_t index;
	uint64_t value;
};

struct nested_caps {
	enum nested_vendor vendor;
	uint32_t state_bytes; /* KVM_CAP_NESTED_STATE: the most KVM_GET_NESTED_STATE gives */
	/* Pending and injected exceptions are told apart (KVM_CAP_EXCEPTION_PAYLOAD), and a triple
	 * fault of L2 that L1 has not seen yet is state (KVM_CAP_X86_TRIPLE_FAULT_EVENT). */
	bool exception_payload;
	bool triple_fault_event;
	/* SVM: CPUID 0x8000000a */
	uint32_t svm_revision;
	uint32_t svm_asids;
	uint32_t svm_features;
	/* VMX: capability MSRs, ascending */
	uint32_t nr_vmx;
	struct nested_vmx_msr vmx[NESTED_MAX_VMX_MSRS];
};

/* Ask /dev/kvm (@kvm_fd). Returns 0 with vendor NESTED_NONE and the reason and the remedy in @why
 * (@cap bytes) when this host offers no nesting; negative only when KVM does not answer. */
int nested_caps_probe(int kvm_fd, struct nested_caps *out, char *why, size_t cap, struct err *e);

/* Prepare a VM for nesting, before its first vCPU: see exception_payload above. */
int nested_caps_enable(int vm_fd, const struct nested_caps *caps, struct err *e);

/* May a hypervisor that was promised @guest go on where KVM offers @host? ERR_UNSUPPORTED names
 * every difference that forbids it, as many as fit. */
int nested_caps_check(const struct nested_caps *guest, const struct nested_caps *host,
		      struct err *e);

/* "VMX", "SVM", "none". */
const char *nested_vendor_name(enum nested_vendor vendor);

/* The names of the SVM features, CPUID 0x8000000a EDX; NULL: none given. */
extern const char *const nested_svm_features[32];

/* "off", "on" or "require" into @mode; ERR_USAGE otherwise. */
int nested_mode_parse(const char *text, enum nested_mode *mode, struct err *e);
