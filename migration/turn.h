/*
 * Does the guest get its turn on processors that it shares with its own migration?
 *
 * Where they are few (and source and destination on one host make few of many), a vCPU waits behind
 * the senders for as long as a round takes. Paused then, it has felt both waits as one. So a guest
 * that has been kept waiting runs for a moment before it is paused: what it writes meanwhile goes
 * with the last round. Of the engine's thread, as the struct is.
 */
#pragma once

#include <stdint.h>

#include "vmm/vm.h"

struct turn {
	uint64_t at_ns; /* 0: not marked */
	uint64_t cpu_ns[VM_MAX_CPUS];
};

/* From here on is "of late". */
void turn_mark(struct turn *t, struct vm *vm);

/* The guest runs: return at once if no vCPU can have waited for longer than a scheduler's tick
 * since the mark (or there is none), else once each has run for a moment. A vCPU that sleeps (HLT)
 * looks as if it waited, and costs the few milliseconds after which this gives up. */
void turn_await(const struct turn *t, struct vm *vm);
