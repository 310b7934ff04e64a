/*
 * What to do when KVM_RUN returns: port and memory accesses go to the bus, everything else that a
 * vCPU cannot deal with becomes a one-line text. On the vCPU's thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bus;
struct kvm_run;

#define VCPU_EXIT_TEXT_BYTES 256

enum vcpu_exit {
	VCPU_EXIT_DONE,      /* handled; its result reaches the registers on re-entry */
	VCPU_EXIT_SHUTDOWN,  /* triple fault, or a shutdown event: text filled in */
	VCPU_EXIT_UNHANDLED, /* text says what it was */
};

enum vcpu_exit vcpu_exit_dispatch(struct kvm_run *run, struct bus *bus, int vcpu_fd,
				  char text[VCPU_EXIT_TEXT_BYTES]);

/* KVM_RUN itself failed with @code (positive errno). */
void vcpu_exit_describe_errno(int code, int vcpu_fd, char text[VCPU_EXIT_TEXT_BYTES]);
