/*
 * vCPUs at power-on, and vCPU 0 at the entry point of an image. On the vCPU's thread.
 *
 * Power-on state is what KVM gives a new vCPU: it is kept when the VM is made and loaded again on
 * reset, so that nothing here has to know what a reset CPU looks like.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"
#include "vmm/boot/boot.h"
#include "vmm/vcpu_state.h"

/* Remember a vCPU that never ran. */
int cpu_keep_power_on(int vcpu_fd, const struct vcpu_caps *caps, struct vcpu_state *power_on,
		      struct err *e);

/* Back to @power_on: vCPU 0 runnable at the reset vector, the others waiting for INIT and SIPI. The
 * TSC starts at (nearly) zero. */
int cpu_reset(int vcpu_fd, const struct vcpu_caps *caps, const struct vcpu_state *power_on,
	      struct err *e);

/* Put a reset vCPU 0 where @entry says. The GDT's descriptors are read from @mem, as the CPU would
 * do if it loaded the selectors 0x10 and 0x18. */
int cpu_enter_image(int vcpu_fd, const struct vcpu_caps *caps, const struct guest_mem *mem,
		    const struct boot_entry *entry, struct err *e);

/* Put a reset vCPU 0 at @gpa in real mode, CS:IP as ACPI wants it of a waking vector: 16-byte
 * paragraph and the rest. ERR_STATE if real mode cannot reach it. */
int cpu_enter_real_mode(int vcpu_fd, const struct vcpu_caps *caps, uint32_t gpa, struct err *e);
