#include "vmm/vm_private.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/acpi/acpi.h"
#include "vmm/blank.h"
#include "vmm/boot/boot.h"
#include "vmm/cpu_reset.h"
#include "vmm/dev/devices.h"
#include "vmm/kvm.h"
#include "vmm/smm.h"

/* ---- Making one ---- */

static int copy_string(const char *from, const char **to, struct err *e)
{
	*to = from ? strdup(from) : NULL;
	if (from && !*to)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory");
	return 0;
}

static int copy_config(const struct vm_config *from, struct vm_config *to, struct err *e)
{
	*to = (struct vm_config){.memory_bytes = from->memory_bytes,
				 .nr_cpus = from->nr_cpus,
				 .debug_exit = from->debug_exit,
				 .test_devices = from->test_devices,
				 .exit_counter = from->exit_counter,
				 .nested = from->nested,
				 .copied_disks = from->copied_disks,
				 .nr_virtio = from->nr_virtio};
	memcpy(to->virtio, from->virtio, sizeof(to->virtio));
	if (copy_string(from->cpu, &to->cpu, e) < 0)
		return -e->code;
	return copy_string(from->serial, &to->serial, e);
}

static int check_nr_cpus(const struct vm *vm, struct err *e)
{
	int max = kvm_check(vm->kvm_fd, KVM_CAP_MAX_VCPUS);

	if (vm->config.nr_cpus >= 1 && vm->config.nr_cpus <= VM_MAX_CPUS &&
	    (!max || vm->config.nr_cpus <= (uint32_t)max))
		return 0;
	return err_set(e, ERR_USAGE, EINVAL, "%u vCPUs: must be 1 to %d", vm->config.nr_cpus,
		       max && max < VM_MAX_CPUS ? max : VM_MAX_CPUS);
}

static int begin_with_blank(struct vm *vm, struct err *e)
{
	int ret = vm->blank ? 0 : vm_blank_new(&vm->blank, e);

	if (ret < 0)
		return ret;
	vm->kvm_fd = vm->blank->kvm_fd;
	vm->fd = vm->blank->vm_fd;
	vm->nr_spaces = vm->config.test_devices ? smm_nr_address_spaces(vm->fd) : 1;
	return check_nr_cpus(vm, e);
}

static void set_irq(void *ctx, uint32_t gsi, bool level)
{
	struct vm *vm = ctx;
	struct kvm_irq_level l = {.irq = gsi, .level = level};

	/* Fails only without an irqchip, and vm_new makes one. */
	ioctl(vm->fd, KVM_IRQ_LINE, &l);
}

static void note_host(struct vm *vm)
{
	size_t used = strlen(vm->host_notes);

	if (vm->caps.tsc_fixed)
		snprintf(
			vm->host_notes + used, sizeof(vm->host_notes) - used,
			"%sthis host's KVM ignores writes to IA32_TSC: a guest sees the TSC of the "
			"host it is on, and sees it jump when it migrates between hosts that "
			"booted at different times",
			used ? "; " : "");
}

static int build(struct vm *vm, struct err *e)
{
	struct vcpu_config cpu = {.on_stop = vm_cpu_stopped, .ctx = vm};
	int ret = begin_with_blank(vm, e);

	if (ret == 0 && !vm->mem)
		ret = guest_mem_new(vm->config.memory_bytes, &vm->mem, e);
	if (ret == 0)
		ret = bus_new(&vm->bus, e);
	if (ret < 0)
		return ret;
	vm->machine = (struct machine){.ctx = vm,
				       .bus = vm->bus,
				       .mem = vm->mem,
				       .set_irq = set_irq,
				       .request = vm_machine_request,
				       .add_ioeventfd = vm_add_ioeventfd};
	cpu.kvm_fd = vm->kvm_fd;
	cpu.bus = vm->bus;
	ret = vm_make_cpus(vm, &cpu, e);
	if (ret == 0)
		ret = vm_add_devices(vm, e);
	/* Born paused in every respect, so that the first save or load finds devices at rest. */
	if (ret == 0)
		ret = vm_stop_locked(vm, e);
	/* Last, because it holds a lock of KVM's that much of the above takes too. */
	if (ret == 0)
		ret = mem_slots_new(vm->fd, vm->mem, vm->nr_spaces, &vm->slots, e);
	if (ret == 0)
		note_host(vm);
	return ret;
}

int vm_new(const struct vm_config *config, vm_event_fn on_event, void *ctx, struct vm **out,
	   struct err *e)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	int ret;

	if (!vm) {
		guest_mem_free(config->memory);
		vm_blank_free(config->blank);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory");
	}
	vm->mem = config->memory;
	vm->blank = config->blank;
	vm->on_event = on_event;
	vm->event_ctx = ctx;
	pthread_mutex_init(&vm->verbs, NULL);
	pthread_mutex_init(&vm->requests, NULL);
	atomic_init(&vm->status, VM_PRELAUNCH);
	ret = copy_config(config, &vm->config, e);
	if (ret == 0 && config->kernel)
		ret = boot_image_open(config->kernel, config->initrd, config->append, &vm->image,
				      e);
	if (ret == 0)
		ret = build(vm, e);
	if (ret < 0) {
		vm_free(vm);
		return ret;
	}
	*out = vm;
	return 0;
}

void vm_free(struct vm *vm)
{
	struct err e = ERR_INIT;

	if (!vm)
		return;
	/* All vCPUs stop before the first goes: one that still runs may reach a device. */
	if (vm->cpus)
		vm_stop_locked(vm, &e);
	vm_free_cpus(vm);
	vm_free_devices(vm);
	bus_free(vm->bus);
	mem_slots_free(vm->slots);
	/* The VM before its memory: KVM must not map what is being unmapped. */
	vm_blank_free(vm->blank);
	guest_mem_free(vm->mem);
	pthread_mutex_destroy(&vm->requests);
	pthread_mutex_destroy(&vm->verbs);
	boot_image_free(vm->image);
	free((void *)(uintptr_t)vm->config.cpu);
	free((void *)(uintptr_t)vm->config.serial);
	free(vm);
}

/* ---- Booting and resetting ---- */

struct entry_job {
	struct vm *vm;
	struct boot_entry entry;
};

static int enter_image(int vcpu_fd, void *arg, struct err *e)
{
	struct entry_job *job = arg;

	return cpu_enter_image(vcpu_fd, &job->vm->caps, job->vm->mem, &job->entry, e);
}

static int load_image(struct vm *vm, struct err *e)
{
	struct acpi_mmio_device virtio[VIRTIO_MAX_DEVICES];
	struct acpi_config acpi = {.nr_cpus = vm->config.nr_cpus,
				   .devices = virtio,
				   .nr_devices = vm_list_virtio(vm, virtio),
				   .sleeps = vm->config.test_devices};
	struct entry_job job = {.vm = vm};
	uint64_t rsdp_gpa;
	int ret = acpi_install(vm->mem, &acpi, &rsdp_gpa, e);

	if (ret == 0 && vm->config.test_devices)
		ret = smm_put_handlers(vm->mem, vm->config.nr_cpus, e);
	if (ret == 0)
		ret = boot_load(vm->mem, vm->image, rsdp_gpa, &job.entry, e);
	if (ret == 0)
		ret = vcpu_call(vm->cpus[0].vcpu, enter_image, &job, e);
	return ret;
}

static void forget_request(struct vm *vm)
{
	pthread_mutex_lock(&vm->requests);
	vm->request = (struct vm_request){.pending = false};
	pthread_mutex_unlock(&vm->requests);
}

static int power_on(struct vm *vm, struct err *e)
{
	int ret = vm_stop_locked(vm, e);

	if (ret == 0)
		ret = mem_slots_await(vm->slots, e);
	if (ret == 0)
		ret = vm_reset_cpus(vm, e);
	if (ret < 0)
		return ret;
	for (uint32_t i = 0; i < vm->nr_devices; i++)
		vm->devices[i]->ops->reset(vm->devices[i]);
	forget_request(vm);
	return load_image(vm, e);
}

/* Asked before anything is touched: without an image a reset would only destroy the guest. */
static int check_image(const struct vm *vm, struct err *e)
{
	return vm->image ? 0 : err_set(e, ERR_STATE, ENOENT, "the machine has no image to boot");
}

int vm_boot(struct vm *vm, struct err *e)
{
	int ret;

	pthread_mutex_lock(&vm->verbs);
	if (vm_status(vm) != VM_PRELAUNCH)
		ret = err_set(e, ERR_STATE, EBUSY, "the machine has been booted already");
	else
		ret = check_image(vm, e);
	if (ret == 0)
		ret = power_on(vm, e);
	pthread_mutex_unlock(&vm->verbs);
	return ret;
}

/* If the guest asked, it asks again when it goes on, here or there. */
static int refuse_restart(struct vm *vm, struct err *e)
{
	pthread_mutex_lock(&vm->requests);
	vm->request.announced = false;
	pthread_mutex_unlock(&vm->requests);
	return err_set(e, ERR_STATE, EBUSY, "the guest is being migrated (%s)",
		       vm_status_name(vm_status(vm)));
}

static bool may_restart(enum vm_status status)
{
	return status != VM_POSTMIGRATE && status != VM_FINISH_MIGRATE && status != VM_INMIGRATE;
}

static int reset(struct vm *vm, struct err *e)
{
	enum vm_status before = vm_status(vm);
	int ret;

	if (!may_restart(before))
		return refuse_restart(vm, e);
	ret = check_image(vm, e);
	if (ret < 0)
		return ret;
	ret = power_on(vm, e);
	vm_set_status(vm, VM_PAUSED);
	if (ret == 0 && before == VM_RUNNING)
		vm_start_locked(vm);
	return ret;
}

int vm_reset(struct vm *vm, struct err *e)
{
	int ret;

	pthread_mutex_lock(&vm->verbs);
	ret = reset(vm, e);
	pthread_mutex_unlock(&vm->verbs);
	return ret < 0 ? err_prefix(e, "resetting the guest") : 0;
}

struct wake_job {
	struct vm *vm;
	uint32_t vector;
};

static int enter_real_mode(int fd, void *arg, struct err *e)
{
	struct wake_job *job = arg;

	return cpu_enter_real_mode(fd, &job->vm->caps, job->vector, e);
}

static int wake(struct vm *vm, struct err *e)
{
	enum vm_status before = vm_status(vm);
	struct wake_job job = {.vm = vm};
	int ret;

	if (!may_restart(before))
		return refuse_restart(vm, e);
	ret = vm_stop_locked(vm, e);
	if (ret == 0)
		ret = acpi_waking_vector(vm->mem, &job.vector, e);
	if (ret == 0)
		ret = vm_reset_cpus(vm, e);
	if (ret == 0)
		ret = vcpu_call(vm->cpus[0].vcpu, enter_real_mode, &job, e);
	vm_set_status(vm, VM_PAUSED);
	if (ret < 0)
		return ret;
	acpi_pm_wake(vm->acpi_pm);
	forget_request(vm);
	if (before == VM_RUNNING)
		vm_start_locked(vm);
	return 0;
}

int vm_wake(struct vm *vm, struct err *e)
{
	int ret;

	pthread_mutex_lock(&vm->verbs);
	ret = wake(vm, e);
	pthread_mutex_unlock(&vm->verbs);
	return ret < 0 ? err_prefix(e, "waking the guest") : 0;
}

void vm_powerdown(struct vm *vm)
{
	acpi_pm_press_power_button(vm->acpi_pm);
}

/* ---- Facts ---- */

struct guest_mem *vm_mem(struct vm *vm)
{
	return vm->mem;
}

int vm_fd(const struct vm *vm)
{
	return vm->fd;
}

int vm_kvm_fd(const struct vm *vm)
{
	return vm->kvm_fd;
}

uint32_t vm_nr_cpus(const struct vm *vm)
{
	return vm->config.nr_cpus;
}

struct vcpu *vm_vcpu(struct vm *vm, uint32_t i)
{
	return i < vm->nr_cpus ? vm->cpus[i].vcpu : NULL;
}

const struct boot_image *vm_image(const struct vm *vm)
{
	return vm->image;
}

void vm_set_image(struct vm *vm, struct boot_image *image)
{
	pthread_mutex_lock(&vm->verbs);
	boot_image_free(vm->image);
	vm->image = image;
	pthread_mutex_unlock(&vm->verbs);
}

uint64_t vm_guest_report_gpa(const struct vm *vm)
{
	return guest_report_dev_gpa(vm->guest_report);
}

const char *vm_host_notes(const struct vm *vm)
{
	return vm->host_notes;
}

const struct mem_slots *vm_mem_slots(const struct vm *vm)
{
	return vm->slots;
}

int vm_set_dirty_logging(struct vm *vm, bool on, struct err *e)
{
	return mem_slots_set_logging(vm->slots, on, e);
}
