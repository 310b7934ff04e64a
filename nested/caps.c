#include "nested/caps.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define LEAF_FEATURES     0x1u
#define LEAF_EXT_FEATURES 0x80000001u
#define LEAF_SVM          0x8000000au
#define FEATURE_VMX       (1u << 5) /* leaf 1 ECX */
#define FEATURE_SVM       (1u << 2) /* leaf 0x80000001 ECX */

#define MSR_VMX_FIRST 0x480u
#define MSR_VMX_LAST  0x4ffu

#define MAX_CPUID_ENTRIES 256u
#define MAX_FEATURE_MSRS  512u

static int check(int fd, unsigned long cap)
{
	int value = ioctl(fd, KVM_CHECK_EXTENSION, cap);

	return value < 0 ? 0 : value;
}

static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid2 *c, uint32_t function)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == function)
			return &c->entries[i];
	return NULL;
}

static void read_cpuid(const struct kvm_cpuid2 *c, struct nested_caps *out)
{
	const struct kvm_cpuid_entry2 *basic = leaf(c, LEAF_FEATURES);
	const struct kvm_cpuid_entry2 *ext = leaf(c, LEAF_EXT_FEATURES);
	const struct kvm_cpuid_entry2 *svm = leaf(c, LEAF_SVM);

	if (basic && basic->ecx & FEATURE_VMX) {
		out->vendor = NESTED_VMX;
	} else if (ext && ext->ecx & FEATURE_SVM && svm) {
		out->vendor = NESTED_SVM;
		out->svm_revision = svm->eax & 0xff;
		out->svm_asids = svm->ebx;
		out->svm_features = svm->edx;
	}
}

static int probe_vendor(int kvm_fd, struct nested_caps *out, struct err *e)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + MAX_CPUID_ENTRIES * sizeof(c->entries[0]));
	int ret = 0;

	if (!c)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for CPUID");
	c->nent = MAX_CPUID_ENTRIES;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, c) < 0)
		ret = err_sys(e, "KVM_GET_SUPPORTED_CPUID");
	else
		read_cpuid(c, out);
	free(c);
	return ret;
}

static int get_feature_msr(int kvm_fd, uint32_t index, uint64_t *value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} one = {.head.nmsrs = 1, .entry.index = index};
	int nr = ioctl(kvm_fd, KVM_GET_MSRS, &one);

	*value = one.entry.data;
	return nr;
}

static void sort_msrs(struct nested_caps *c)
{
	for (uint32_t i = 1; i < c->nr_vmx; i++)
		for (uint32_t k = i; k > 0 && c->vmx[k].index < c->vmx[k - 1].index; k--) {
			struct nested_vmx_msr other = c->vmx[k];

			c->vmx[k] = c->vmx[k - 1];
			c->vmx[k - 1] = other;
		}
}

/* KVM gives the values a new vCPU will have through the system descriptor (API document, 4.68). */
static int probe_vmx_msrs(int kvm_fd, struct nested_caps *out, struct err *e)
{
	struct {
		struct kvm_msr_list head;
		uint32_t room[MAX_FEATURE_MSRS];
	} list = {.head.nmsrs = MAX_FEATURE_MSRS};

	if (ioctl(kvm_fd, KVM_GET_MSR_FEATURE_INDEX_LIST, &list) < 0)
		return err_sys(e, "KVM_GET_MSR_FEATURE_INDEX_LIST");
	for (uint32_t i = 0; i < list.head.nmsrs; i++) {
		uint32_t index = list.head.indices[i];
		uint64_t value;

		if (index < MSR_VMX_FIRST || index > MSR_VMX_LAST ||
		    out->nr_vmx == NESTED_MAX_VMX_MSRS)
			continue;
		if (get_feature_msr(kvm_fd, index, &value) == 1)
			out->vmx[out->nr_vmx++] = (struct nested_vmx_msr){index, value};
	}
	sort_msrs(out);
	return 0;
}

static int no_nesting(struct nested_caps *out, char *why, size_t cap, const char *text)
{
	*out = (struct nested_caps){.vendor = NESTED_NONE};
	snprintf(why, cap, "%s", text);
	return 0;
}

int nested_caps_probe(int kvm_fd, struct nested_caps *out, char *why, size_t cap, struct err *e)
{
	int ret;

	*out = (struct nested_caps){
		.state_bytes = (uint32_t)check(kvm_fd, KVM_CAP_NESTED_STATE),
		.exception_payload = check(kvm_fd, KVM_CAP_EXCEPTION_PAYLOAD) > 0,
		.triple_fault_event = check(kvm_fd, KVM_CAP_X86_TRIPLE_FAULT_EVENT) > 0,
	};
	snprintf(why, cap, "%s", "");
	ret = probe_vendor(kvm_fd, out, e);
	if (ret < 0)
		return ret;
	if (out->vendor == NESTED_NONE)
		return no_nesting(
			out, why, cap,
			"KVM offers guests neither VMX nor SVM: load kvm_intel or kvm_amd "
			"with nested=1, on a CPU (or in a VM) that has VMX or SVM");
	if (out->state_bytes == 0)
		return no_nesting(out, why, cap,
				  "KVM cannot save nested state (KVM_CAP_NESTED_STATE), so a guest "
				  "with guests could not move: use Linux 5.8 or later");
	return out->vendor == NESTED_VMX ? probe_vmx_msrs(kvm_fd, out, e) : 0;
}

static int enable(int vm_fd, unsigned long cap, const char *name, struct err *e)
{
	struct kvm_enable_cap c = {.cap = (uint32_t)cap, .args = {1}};

	return ioctl(vm_fd, KVM_ENABLE_CAP, &c) < 0 ? err_sys(e, "KVM_ENABLE_CAP %s", name) : 0;
}

/*
 * Without KVM_CAP_EXCEPTION_PAYLOAD, KVM_GET_VCPU_EVENTS reports an exception that is only pending
 * as injected. Loaded back so, it would go straight into L2 although L1 intercepts it: a #PF that
 * L1 must see would be lost (kvm_vcpu_ioctl_x86_get_vcpu_events, "deliberately conflate").
 */
int nested_caps_enable(int vm_fd, const struct nested_caps *caps, struct err *e)
{
	int ret = 0;

	if (caps->exception_payload)
		ret = enable(vm_fd, KVM_CAP_EXCEPTION_PAYLOAD, "EXCEPTION_PAYLOAD", e);
	if (ret == 0 && caps->triple_fault_event)
		ret = enable(vm_fd, KVM_CAP_X86_TRIPLE_FAULT_EVENT, "TRIPLE_FAULT_EVENT", e);
	return ret;
}

const char *nested_vendor_name(enum nested_vendor vendor)
{
	switch (vendor) {
	case NESTED_VMX:
		return "VMX";
	case NESTED_SVM:
		return "SVM";
	case NESTED_NONE:
		break;
	}
	return "none";
}

int nested_mode_parse(const char *text, enum nested_mode *mode, struct err *e)
{
	static const char *const names[] = {"off", "on", "require"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(text, names[i])) {
			*mode = (enum nested_mode)i;
			return 0;
		}
	return err_set(e, ERR_USAGE, EINVAL, "'%.40s' is not off, on or require", text);
}
