/*
 * /dev/kvm: opening it with errors that say what to do, and asking it what it can.
 *
 * Judged by KVM's own capabilities only, never by CPU flags: there are hosts with a working KVM
 * whose CPUID shows neither VMX nor SVM. Any thread.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"

struct kvm_cpuid2;

/* Open /dev/kvm, check the API version and every capability godwit cannot do without. */
int kvm_open(int *kvm_fd, struct err *e);

/* KVM_CHECK_EXTENSION on a system or VM fd: 0 if absent, else the capability's value. */
int kvm_check(int fd, unsigned long cap);

/* One of the capabilities kvm_open() insists on, for `godwit doctor`: NULL past the last. */
const char *kvm_required_cap(uint32_t i, unsigned long *cap);

/* The whole KVM_GET_SUPPORTED_CPUID; free(*out). */
int kvm_supported_cpuid(int kvm_fd, struct kvm_cpuid2 **out, struct err *e);

/* KVM_GET_MSR_INDEX_LIST; free(*indices). */
int kvm_msr_index_list(int kvm_fd, uint32_t **indices, uint32_t *nr, struct err *e);
