/*
 * A device's interrupt line: tells the machine of changes only. Guarded by the device's lock.
 */
#pragma once

#include "vmm/machine.h"

struct irq_line {
	const struct machine *m;
	uint32_t gsi;
	bool level;
};

static inline void irq_line_set(struct irq_line *l, bool level)
{
	if (level == l->level)
		return;
	l->level = level;
	l->m->set_irq(l->m->ctx, l->gsi, level);
}

/*
 * The level that comes with loaded state. A high line is not driven: the interrupt controllers' own
 * state says what became of its edge, and a new one would be an interrupt that the source never had
 * (and state that differs from the source's). KVM loses nothing by it: the pin is in the IOAPIC's
 * irr and the PIC's last_irr, and it is lowered when the device lowers it (KVM_SET_IRQCHIP;
 * arch/x86/kvm/ioapic.c, kvm_set_ioapic).
 */
static inline void irq_line_load(struct irq_line *l, bool level)
{
	if (!level)
		irq_line_set(l, false);
	l->level = level;
}
