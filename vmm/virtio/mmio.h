/*
 * virtio over MMIO, version 2 registers (virtio 1.2, 4.2), as a device of the machine
 * (vmm/device.h): one window of 4 KiB and one interrupt line a device, found by the guest through
 * the DSDT ("LNRO0005").
 *
 * Kicks: KVM writes an eventfd for a store to QueueNotify (KVM_IOEVENTFD), so a kick costs no exit
 * to user space; where the machine has no ioeventfd (unit tests) the register's handler writes it.
 *
 * Interrupts: level-triggered by KVM_IRQ_LINE from the I/O thread, high while InterruptStatus is
 * not 0, and not by irqfd: for an IOAPIC pin KVM hands an irqfd to a kernel workqueue
 * (virt/kvm/eventfd.c, irqfd_wakeup), which is later than the ioctl and, worse, may be after the
 * state was saved. The ioctl has been delivered when it returns, so a paused machine has no
 * interrupt under way, and a line that is high already costs nothing.
 */
#pragma once

#include "vmm/device.h"
#include "vmm/machine.h"
#include "vmm/virtio/virtio.h"

#define VIRTIO_MMIO_BASE  0xd0000000u /* in the hole below 4 GiB, where no RAM ever is */
#define VIRTIO_MMIO_BYTES 0x1000u

/* Where slot @slot (0 to VIRTIO_MAX_DEVICES - 1) is. */
uint32_t virtio_mmio_base(uint32_t slot);
/* Its own line: 16-23 first, which nothing on a PC uses, then what is free of the ISA's. */
uint32_t virtio_mmio_gsi(uint32_t slot);

/* Takes over @kind. @face as in virtio_kind_new_fn: offers exactly its features, or fails. */
int virtio_mmio_new(const struct machine *m, struct virtio_kind *kind, uint32_t slot,
		    uint32_t instance, const struct virtio_face *face, struct device **out,
		    struct err *e);

/* What the guest sees of @d, which virtio_mmio_new() made. Any thread. */
void virtio_mmio_face(const struct device *d, struct virtio_face *face);
struct virtio_kind *virtio_mmio_kind(const struct device *d);
