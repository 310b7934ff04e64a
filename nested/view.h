/*
 * A vCPU's nested state for people: is L2 running, whose control block is current, what is about to
 * happen. Plain data; any thread.
 *
 * The VMCS12 in nested state has KVM's own layout, which Linux promises not to change
 * (arch/x86/kvm/vmx/vmcs12.h, "field offsets must not change").
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nested/state.h"

#define NESTED_NO_GPA UINT64_MAX

struct nested_view {
	enum nested_vendor vendor; /* NONE: the vCPU has no nesting, nothing else is set */
	bool in_l2;
	bool run_pending;  /* L1 has asked to enter L2 and not one of its instructions has run */
	bool step_pending; /* VMX: L2's last instruction owes L1 an exit by the monitor trap flag */
	bool timer;        /* VMX: L2's preemption timer runs */
	bool gif;          /* SVM: the global interrupt flag; VMX: always set */
	bool smm;          /* VMX: L2 was interrupted by SMM */
	uint64_t vmxon_gpa;   /* VMX, or NESTED_NO_GPA */
	uint64_t control_gpa; /* current VMCB12 or VMCS12, or NESTED_NO_GPA */
	/* What follows is known while L2 runs. */
	bool nested_paging;
	uint64_t nested_cr3; /* or the EPT pointer */
	uint64_t l1_rip;     /* where L1 goes on after an exit */
	uint32_t injected;   /* EVENTINJ or VM-entry interruption info; bit 31: valid */
	uint32_t asid;       /* SVM */
};

void nested_view_decode(const struct nested_state *s, struct nested_view *view);

/* "SVM: in L2, VMCB at 0x203000, ..." in one line; cut off at @cap. */
void nested_view_text(const struct nested_view *view, char *out, size_t cap);
