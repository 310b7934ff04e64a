#include "vmm/vm_private.h"

#include <errno.h>
#include <string.h>

#include "vmm/dev/devices.h"
#include "vmm/dev/serial_backend.h"
#include "vmm/irqchip.h"

/* By reference: the arguments of one call are evaluated in any order. */
int vm_add_device(struct vm *vm, int made, struct device *const *d, struct err *e)
{
	if (made < 0)
		return made;
	if (vm->nr_devices == VM_MAX_DEVICES) {
		(*d)->ops->free(*d);
		return err_set(e, ERR_STATE, ENOSPC, "more than %d devices", VM_MAX_DEVICES);
	}
	vm->devices[vm->nr_devices++] = *d;
	return 0;
}

static int make_uart(struct vm *vm, struct device **out, struct err *e)
{
	struct serial_backend *backend;
	int ret = serial_backend_new(vm->config.serial, &backend, e);

	if (ret < 0)
		return ret;
	return uart16550_new(&vm->machine, backend, out, e);
}

static int make_debug_exit(struct vm *vm, struct err *e)
{
	struct device *d;

	if (!vm->config.debug_exit)
		return 0;
	return vm_add_device(vm, debug_exit_new(&vm->machine, &d, e), &d, e);
}

static int make_test_devices(struct vm *vm, struct err *e)
{
	const struct machine *m = &vm->machine;
	struct device *d = NULL;
	int ret;

	if (!vm->config.test_devices)
		return 0;
	ret = vm_add_device(vm, fw_cfg_new(m, vm->config.nr_cpus, &d, e), &d, e);
	if (ret == 0)
		ret = vm_add_device(vm, shutdown_port_new(m, &d, e), &d, e);
	if (ret == 0)
		ret = vm_add_device(vm, test_device_new(m, &d, e), &d, e);
	if (ret == 0)
		ret = vm_add_device(vm, hpet_new(m, &d, e), &d, e);
	return ret;
}

static int new_exit_counter(int vcpu_fd, void *arg, struct err *e)
{
	struct vm *vm = arg;
	struct device *d;

	return vm_add_device(vm, exit_counter_new(&vm->machine, vcpu_fd, &d, e), &d, e);
}

/* On the vCPU's thread, which alone may use its descriptor. */
static int make_exit_counter(struct vm *vm, struct err *e)
{
	return vm->config.exit_counter ? vcpu_call(vm->cpus[0].vcpu, new_exit_counter, vm, e) : 0;
}

/*
 * What the machine is made of, in the order its state is loaded in (the vCPUs come before all of
 * it). A device that raises interrupt lines when loaded stands after the interrupt controllers;
 * those stand after the LAPICs, because an IOAPIC delivers what it has pending when it is loaded.
 */
int vm_add_devices(struct vm *vm, struct err *e)
{
	const struct machine *m = &vm->machine;
	struct device *d = NULL, *rtc = NULL;
	int ret;

	ret = vm_add_device(vm, pic_new(vm->fd, &d, e), &d, e);
	if (ret == 0)
		ret = vm_add_device(vm, ioapic_new(vm->fd, &d, e), &d, e);
	if (ret == 0)
		ret = vm_add_device(vm, pit_new(vm->fd, &d, e), &d, e);
	if (ret == 0)
		ret = vm_add_device(vm, make_uart(vm, &d, e), &d, e);
	if (ret == 0)
		ret = vm_add_device(vm, rtc_new(m, &rtc, e), &rtc, e);
	if (ret == 0)
		ret = vm_add_device(vm, i8042_new(m, &d, e), &d, e);
	if (ret == 0)
		ret = vm_add_device(vm, acpi_pm_new(m, &vm->acpi_pm, e), &vm->acpi_pm, e);
	if (ret == 0 && vm->config.test_devices)
		acpi_pm_add_sleep(vm->acpi_pm, rtc);
	if (ret == 0)
		ret = make_debug_exit(vm, e);
	if (ret == 0)
		ret = make_test_devices(vm, e);
	if (ret == 0)
		ret = make_exit_counter(vm, e);
	if (ret == 0)
		ret = vm_add_device(vm, guest_report_dev_new(m, &vm->guest_report, e),
				    &vm->guest_report, e);
	if (ret == 0)
		ret = vm_add_virtio(vm, e);
	if (ret == 0)
		ret = vm_add_device(vm, kvmclock_new(vm->fd, &d, e), &d, e);
	return ret;
}

void vm_free_devices(struct vm *vm)
{
	while (vm->nr_devices) {
		struct device *d = vm->devices[--vm->nr_devices];

		d->ops->free(d);
	}
}

const struct device *vm_find_device(const struct vm *vm, const char *type, uint32_t instance)
{
	for (uint32_t i = 0; i < vm->nr_devices; i++)
		if (vm->devices[i]->instance == instance &&
		    strcmp(vm->devices[i]->ops->type, type) == 0)
			return vm->devices[i];
	return NULL;
}

int vm_check_device_version(const struct device *d, uint32_t version, struct err *e)
{
	if (version >= d->ops->oldest_loadable && version <= d->ops->state_version)
		return 0;
	return err_set(e, ERR_UNSUPPORTED, EPROTO,
		       "%s: state version %u, this godwit loads %u to %u", d->ops->type, version,
		       d->ops->oldest_loadable, d->ops->state_version);
}
