/*
 * A virtual CPU and its thread, which is the only caller of that vCPU's ioctls.
 *
 * The controller asks (pause, resume, call); the thread answers at the next moment it is outside
 * KVM_RUN. Pausing sets kvm_run.immediate_exit and sends a signal: the flag closes the race between
 * the check and the ioctl (KVM API document, section 5). Before a vCPU reports itself paused it
 * re-enters KVM_RUN once with immediate_exit set, because the result of an exit for PIO/MMIO only
 * reaches its registers on re-entry ("must re-enter to complete", same place).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "vmm/base/err.h"

struct vcpu;
struct kvm_run;

/* What happened on a vCPU that it cannot deal with itself. Called on the vCPU thread. */
enum vcpu_stop {
	VCPU_STOP_SHUTDOWN /* triple fault */,
	VCPU_STOP_ERROR
};

struct vcpu_config {
	int kvm_fd;
	int fd; /* from vcpu_create(); vcpu_new() takes it over, also on failure */
	uint32_t id;
	struct bus *bus;
	/* true from a handler means: park before the next guest instruction. */
	void (*on_stop)(void *ctx, uint32_t id, enum vcpu_stop why, const char *text);
	/* A vCPU exit nobody here knows (dirty ring full, ...). Return true if it was handled. */
	bool (*on_exit)(void *ctx, uint32_t id, struct kvm_run *run);
	void *ctx;
};

/* The vCPU itself, KVM's part of it. */
int vcpu_create(int vm_fd, uint32_t id, int *fd, struct err *e);

/* Gives it a thread, paused. */
int vcpu_new(const struct vcpu_config *config, struct vcpu **out, struct err *e);
void vcpu_free(struct vcpu *v);

/* Ask to pause (returns at once), then wait for it. Any thread but the vCPU's own. */
void vcpu_request_pause(struct vcpu *v);
void vcpu_wait_paused(struct vcpu *v);
void vcpu_resume(struct vcpu *v);

/* Do not enter the guest before @deadline_ns (CLOCK_MONOTONIC): a guest that rests now and then is
 * a slower guest. Ends early when a pause is asked for; 0 ends it at once. Any thread but the
 * vCPU's own. */
void vcpu_rest_until(struct vcpu *v, uint64_t deadline_ns);

/* On its own thread: stop before the next guest instruction (as if a pause was requested). */
void vcpu_park_self(struct vcpu *v);

/* Run @fn on the paused vCPU's thread with its fd. vcpu_call waits for it; start/finish let many
 * vCPUs work at the same time. */
typedef int (*vcpu_fn)(int vcpu_fd, void *arg, struct err *e);
int vcpu_call(struct vcpu *v, vcpu_fn fn, void *arg, struct err *e);
void vcpu_call_start(struct vcpu *v, vcpu_fn fn, void *arg);
int vcpu_call_finish(struct vcpu *v, struct err *e);

/* Processor time its thread has had so far, in the guest and out of it; stands still while it
 * waits. Any thread. */
uint64_t vcpu_cpu_time_ns(const struct vcpu *v);

pid_t vcpu_tid(const struct vcpu *v);
uint64_t vcpu_nr_exits(const struct vcpu *v);
