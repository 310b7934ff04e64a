/*
 * The interrupt controllers, timer and clock that live in KVM: a PIC pair, an IOAPIC, a PIT and
 * kvmclock, each wrapped as a device so that the machine resets, saves and loads them like any
 * other. They answer their ports inside KVM, so they claim nothing on the bus.
 */
#pragma once

#include <stdint.h>

#include "vmm/device.h"

/* Before the first vCPU: the addresses KVM needs for itself, the interrupt controllers (each vCPU
 * made later gets a LAPIC) and the timer. */
int irqchip_create(int vm_fd, struct err *e);

int pic_new(int vm_fd, struct device **out, struct err *e);
int ioapic_new(int vm_fd, struct device **out, struct err *e);
int pit_new(int vm_fd, struct device **out, struct err *e);
/* Load this last: it restarts the guest's clock. */
int kvmclock_new(int vm_fd, struct device **out, struct err *e);
