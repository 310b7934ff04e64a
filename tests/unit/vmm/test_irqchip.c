/* vmm/irqchip.c: where interrupt lines lead. */
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "need_kvm.h"
#include "vmm/irqchip.h"
#include "vmm/kvm.h"

struct pins {
	uint32_t ioapic;
	uint32_t pic; /* master in bits 0 to 7, slave in 8 to 15 */
};

static struct pins pending(int vm_fd)
{
	struct kvm_irqchip chip[3] = {{.chip_id = KVM_IRQCHIP_IOAPIC},
				      {.chip_id = KVM_IRQCHIP_PIC_MASTER},
				      {.chip_id = KVM_IRQCHIP_PIC_SLAVE}};

	for (int i = 0; i < 3; i++)
		assert_int_equal(ioctl(vm_fd, KVM_GET_IRQCHIP, &chip[i]), 0);
	/* bit 2 of the master is the slave, no device */
	return (struct pins){chip[0].chip.ioapic.irr,
			     (chip[1].chip.pic.irr & ~4u) | (uint32_t)chip[2].chip.pic.irr << 8};
}

static void leads_to(int vm_fd, uint32_t gsi, uint32_t ioapic, uint32_t pic)
{
	struct kvm_irq_level line = {.irq = gsi, .level = 1};
	struct pins before = pending(vm_fd);
	struct pins raised;

	assert_int_equal(ioctl(vm_fd, KVM_IRQ_LINE, &line), 0);
	raised = pending(vm_fd);
	assert_int_equal(raised.ioapic & ~before.ioapic, ioapic);
	assert_int_equal(raised.pic & ~before.pic, pic);
	line.level = 0;
	assert_int_equal(ioctl(vm_fd, KVM_IRQ_LINE, &line), 0);
}

/* As the MADT tells the guest: the PIT is on pin 2, every other line on its own. */
static void lines_lead_where_the_madt_says(void **state)
{
	struct err e = ERR_INIT;
	int kvm_fd;
	int vm_fd;

	(void)state;
	need_kvm();
	assert_int_equal(kvm_open(&kvm_fd, &e), 0);
	vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	assert_true(vm_fd >= 0);
	assert_int_equal(irqchip_create(vm_fd, &e), 0);
	leads_to(vm_fd, 0, 1u << 2, 1u << 0);
	leads_to(vm_fd, 1, 1u << 1, 1u << 1);
	leads_to(vm_fd, 2, 0, 0);
	for (uint32_t gsi = 3; gsi < 16; gsi++)
		leads_to(vm_fd, gsi, 1u << gsi, 1u << gsi);
	for (uint32_t gsi = 16; gsi < KVM_IOAPIC_NUM_PINS; gsi++)
		leads_to(vm_fd, gsi, 1u << gsi, 0);
	close(vm_fd);
	close(kvm_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_lead_where_the_madt_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
