/*
 * A blank machine: what every machine has, whatever it will be: a VM of KVM's, its interrupt chips
 * and its first vCPU.
 *
 * For KVM these are the dear part of a machine: tens of milliseconds each on a busy host, most of
 * them waiting for RCU. A destination makes them while it has nothing else to do, so that a guest
 * that arrives does not wait for them.
 *
 * Nothing of it is particular to a guest: of KVM's capabilities that have to be chosen before the
 * first vCPU is made, godwit uses none.
 */
#pragma once

#include "vmm/base/err.h"

/* Descriptors. Who takes one puts -1 here. */
struct vm_blank {
	int kvm_fd;
	int vm_fd;
	int vcpu_fd; /* of vCPU 0 */
};

/* Any thread. */
int vm_blank_new(struct vm_blank **out, struct err *e);

/* Closes what has not been taken. NULL is fine. */
void vm_blank_free(struct vm_blank *b);
