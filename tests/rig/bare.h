/*
 * A machine of one vCPU without threads, for tests that stop a guest at one exact instruction: the
 * caller is the vCPU's thread. It saves and loads by the same code as struct vm (vmm/vcpu_state.h).
 * Its guest may be a hypervisor. Whatever fails, fails the running cmocka test.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "nested/view.h"
#include "vmm/vcpu_state.h"

struct bare;

/* A value of bare_value() beside those of enum l1_mark. */
#define BARE_MARK_SMM 0x10

/* Why bare_run() returned. */
enum bare_stop {
	BARE_MARK, /* the guest wrote bare_value() to L1_MARK_PORT; the write is complete */
	BARE_DONE  /* ... to L1_DONE_PORT */
};

/* Skips the test where there is no KVM, or guests cannot be hypervisors. */
struct bare *bare_boot(const char *kernel, const char *append, uint64_t memory_bytes);
void bare_free(struct bare *b);

enum bare_stop bare_run(struct bare *b);
uint8_t bare_value(const struct bare *b);
/* From a mark right before an entry into L2 to where KVM has executed the entry and L2 has not
 * begun: KVM is held up in it (tests/rig/page_hold.h) over the page that the guest has named by
 * L1_MSR_MAP_PORT, which every entry reads. */
void bare_run_to_entry(struct bare *b);

/* A #DB has come up and is not delivered yet: SVM, L2's last instruction was stepped. */
bool bare_trap_pending(struct bare *b);

/* Send an SMI: the next stop is in system management mode, with BARE_MARK_SMM. Skips the test where
 * KVM has no such mode. */
void bare_smi(struct bare *b);

/* VMX, in L2: its last instruction owes L1 an exit by the monitor trap flag. Bochs' CPUs have no
 * such flag, so KVM is told, by a load, that this one had. */
void bare_owe_step(struct bare *b);

struct nested_view bare_view(struct bare *b);

/* Save, destroy, make anew, load, save again: every register must be as it was. */
void bare_move(struct bare *b);

/* The same, but away until L2's preemption timer is overdue (VMX): all that may change is when it
 * is due. */
void bare_move_late(struct bare *b);

/* Offer the machine its own state as @spoil has changed it. It must be refused, and @refusal says
 * how; after that the machine takes the sound state, and every register is as it was. */
void bare_refuse(struct bare *b, void (*spoil)(struct nested_state *), struct err *refusal);
