/*
 * System management mode, for machines with test devices: kvm-unit-tests send SMIs and want to go
 * on after them, which is firmware's business.
 *
 * A CPU comes out of reset with SMBASE 0x30000, in memory that an operating system uses. Firmware
 * gives each CPU one of its own between 0xa0000 and 0xbffff, where nobody else has anything: an SMI
 * enters it at SMBASE + 0x8000, and saves the CPU from SMBASE + 0xfe00 to + 0xffff, so these must
 * not overlap between CPUs. A machine here begins where firmware would have left it, with a handler
 * that does nothing: RSM. Unlike a PC's, that memory is neither hidden nor locked: a guest may look
 * at it and put a handler of its own there.
 *
 * KVM runs a CPU that is in this mode in a second address space, whose memory slots are its own
 * (vmm/mem_slots.h); without any the CPU has no memory.
 *
 * Sources: Intel SDM vol. 3C, 34.4 and 34.11; AMD APM vol. 2, 10.2; Documentation/virt/kvm/api.rst,
 * 4.35 and KVM_CAP_MULTI_ADDRESS_SPACE.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"
#include "vmm/mem.h"

#define SMM_ENTRY 0x8000u /* from SMBASE */

/* A CPU's SMBASE: 1 KiB apart, entries and save areas of VM_MAX_CPUS lie in each other's gaps. */
#define SMM_BASE(cpu) (0xa0000u + (cpu)*0x400u)

/* How many address spaces a VM's memory is to be in so that SMM works: 2, or 1 where this KVM has
 * no such mode. */
uint32_t smm_nr_address_spaces(int vm_fd);

/* Give the CPU its SMBASE. On the vCPU's thread. */
int smm_set_base(int vcpu_fd, uint32_t cpu, struct err *e);

/* Put a handler where each of @nr_cpus enters. */
int smm_put_handlers(struct guest_mem *mem, uint32_t nr_cpus, struct err *e);
