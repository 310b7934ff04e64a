/*
 * One vCPU's state as a VcpuState message and back (proto/state.proto). Plain conversion, any
 * thread; what comes back in is hostile until checked here.
 */
#pragma once

#include "nested/wire.h"
#include "proto/state.pb-c.h"
#include "vmm/vcpu_state.h"

/* A message that points into itself and into the vcpu_state it was made from. */
struct vcpu_wire {
	Godwit__VcpuState msg;
	Godwit__Regs regs;
	Godwit__Sregs sregs;
	Godwit__Segment segments[8];
	Godwit__DebugRegs debugregs;
	Godwit__NestedState nested;
	uint64_t pdptrs[4];
	uint64_t db[4];
	uint64_t xcrs[2 * KVM_MAX_XCRS];
	uint32_t cpuid[CPUID_MAX_ENTRIES * CPUID_ENTRY_WORDS];
};

void vcpu_wire_fill(struct vcpu_wire *w, struct vcpu_state *s);

/* @s is initialized here (vcpu_state_fini() it, also after failure). */
int vcpu_wire_parse(const Godwit__VcpuState *msg, struct vcpu_state *s, struct err *e);
