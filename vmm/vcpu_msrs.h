/*
 * Model-specific registers: which ones are saved, saving and loading them, and their names.
 * On the vCPU's thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"

#define VCPU_MAX_MSRS     768
#define VCPU_NR_MCE_BANKS 10u /* machine-check banks every vCPU is given */

#define MSR_TSC          0x10u
#define MSR_TSC_DEADLINE 0x6e0u

/* The MSRs one host's KVM saves: probed once, the same for all vCPUs. */
struct msr_list {
	uint32_t nr;
	uint32_t index[VCPU_MAX_MSRS];
};

struct msr_values {
	uint32_t nr;
	uint32_t index[VCPU_MAX_MSRS];
	uint64_t value[VCPU_MAX_MSRS];
};

/* KVM's index list and the few that KVM keeps but does not list, less those it will not read, or
 * not write back, on a vCPU with this CPUID. The TSC is not among them. */
int msr_list_probe(int kvm_fd, int vcpu_fd, struct msr_list *out, struct err *e);

int msrs_save(int vcpu_fd, const struct msr_list *list, struct msr_values *out, struct err *e);

/* In the order given. A rejected MSR is ERR_UNSUPPORTED and named. */
int msrs_load(int vcpu_fd, const struct msr_values *values, struct err *e);

int msr_get(int vcpu_fd, uint32_t index, uint64_t *value, struct err *e);
int msr_set(int vcpu_fd, uint32_t index, uint64_t value, struct err *e);

/* "IA32_PAT"; "an MSR without a name here" if unknown. */
const char *msr_name(uint32_t index);
