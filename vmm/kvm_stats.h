/*
 * KVM's binary statistics of one vCPU (KVM API document, 4.133 KVM_GET_STATS_FD): one number, by
 * name. Reading is one pread(2) and needs no vCPU thread; any thread.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"

struct kvm_stat {
	int fd;
	int64_t offset;
};

/* @name: "exits", "halt_exits", ... ERR_UNSUPPORTED where KVM (Linux before 5.14) has none. */
int kvm_stat_open(int vcpu_fd, const char *name, struct kvm_stat *out, struct err *e);
void kvm_stat_close(struct kvm_stat *s);
/* 0 when it cannot be read. */
uint64_t kvm_stat_read(const struct kvm_stat *s);
