/*
 * Guest memory as KVM knows it: its memory slots, registered beside whatever else goes on.
 *
 * For a slot KVM allocates tables as long as the slot (reverse maps, page tracking: 10 bytes a
 * page where it shadows page tables), so a big guest's takes long: 0.4 s for 64 GiB, seen on the
 * machine of docs/performance.md. A destination need not wait for that before it takes pages,
 * which come through the memory's file: only vCPUs, their state and dirty logging need the slots.
 *
 * KVM can keep several address spaces, each with slots of its own; a CPU uses the second one in
 * system management mode. A machine that has use for it has the same memory in both. Each slot has
 * a dirty log of its own, and KVM notes a write in that of the address space the CPU was in:
 * a page is dirty if the log of ANY slot with it says so, and is watched again when ALL of them
 * are.
 *
 * KVM_SET_USER_MEMORY_REGION holds KVM's slots_lock all the while, so what else takes that lock
 * (the in-kernel irqchip, ioeventfds) is best made before.
 *
 * Source: Documentation/virt/kvm/api.rst, 4.35 KVM_SET_USER_MEMORY_REGION, 4.8
 * KVM_GET_DIRTY_LOG.
 */
#pragma once

#include <stdbool.h>

#include "vmm/base/err.h"
#include "vmm/mem.h"

struct mem_slots;

#define MEM_MAX_ADDRESS_SPACES 2

/* Begin to register all of @mem, which like @vm_fd is borrowed and outlives the slots, in each of
 * the first @nr_spaces address spaces. */
int mem_slots_new(int vm_fd, const struct guest_mem *mem, uint32_t nr_spaces,
		  struct mem_slots **out, struct err *e);
/* Waits for the registration; KVM lets go of the memory when the VM is closed. NULL is fine. */
void mem_slots_free(struct mem_slots *s);

/* Wait until KVM has all of the memory: before anything that needs it. Cheap once it has. Any
 * thread, any number of times; a failure is told each time. */
int mem_slots_await(struct mem_slots *s, struct err *e);

/* The slots as KVM numbers them: in `index`, the address space is in bits 16 to 31. Any thread. */
uint32_t mem_slots_nr(const struct mem_slots *s);
const struct mem_slot *mem_slots_at(const struct mem_slots *s, uint32_t i);

/* KVM_MEM_LOG_DIRTY_PAGES for all of the memory. One caller at a time. */
int mem_slots_set_logging(struct mem_slots *s, bool on, struct err *e);
