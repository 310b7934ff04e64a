#include "vmm/vm_private.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "vmm/blank.h"
#include "vmm/cpu_model.h"
#include "vmm/cpu_reset.h"
#include "vmm/kvm.h"
#include "vmm/smm.h"

struct cpu_job {
	struct vm *vm;
	struct vm_cpu *cpu;
	vm_cpu_fn fn;
};

static int run_job(int vcpu_fd, void *arg, struct err *e)
{
	struct cpu_job *job = arg;

	return job->fn(vcpu_fd, job->vm, job->cpu, e);
}

int vm_on_cpu(struct vm *vm, uint32_t id, vm_cpu_fn fn, struct err *e)
{
	struct cpu_job job = {.vm = vm, .cpu = &vm->cpus[id], .fn = fn};

	return vcpu_call(vm->cpus[id].vcpu, run_job, &job, e);
}

int vm_on_all_cpus(struct vm *vm, vm_cpu_fn fn, struct err *e)
{
	struct cpu_job jobs[VM_MAX_CPUS];
	struct err other = ERR_INIT;
	int first = 0;

	for (uint32_t i = 0; i < vm->nr_cpus; i++) {
		jobs[i] = (struct cpu_job){.vm = vm, .cpu = &vm->cpus[i], .fn = fn};
		vcpu_call_start(vm->cpus[i].vcpu, run_job, &jobs[i]);
	}
	/* All have to be waited for, whatever happens: they work on this stack frame. */
	for (uint32_t i = 0; i < vm->nr_cpus; i++) {
		int ret = vcpu_call_finish(vm->cpus[i].vcpu, first ? &other : e);

		if (ret < 0 && first == 0)
			first = ret;
	}
	return first;
}

/* Everything that is the same for all vCPUs and can only be asked of one that exists. */
static int learn_host(int fd, struct vm *vm, struct vm_cpu *cpu, struct err *e)
{
	int ret = vcpu_tsc_khz(fd, &vm->caps, e);

	(void)cpu;
	if (ret < 0)
		return ret;
	return cpuid_build(vm->kvm_fd, vm->config.nr_cpus, vm->caps.tsc_khz,
			   vm->caps.nested.vendor != NESTED_NONE, &vm->host_cpuid, e);
}

static int set_up(int fd, struct vm *vm, struct vm_cpu *cpu, struct err *e)
{
	uint32_t id = cpu->state.id;
	int ret = cpu_model_apply(vm->config.cpu, &vm->host_cpuid, &cpu->state.cpuid, e);

	if (ret < 0)
		return ret;
	cpuid_set_apic_id(&cpu->state.cpuid, id);
	ret = cpuid_apply(fd, &cpu->state.cpuid, e);
	if (ret == 0)
		ret = vcpu_set_up_mce(vm->kvm_fd, fd, e);
	/* Part of power-on state: so it is there again after a reset. */
	if (ret == 0 && vm->nr_spaces > 1)
		ret = smm_set_base(fd, id, e);
	return ret;
}

static int probe(int fd, struct vm *vm, struct vm_cpu *cpu, struct err *e)
{
	(void)cpu;
	return vcpu_caps_probe(vm->kvm_fd, fd, &vm->caps, e);
}

static int keep_power_on(int fd, struct vm *vm, struct vm_cpu *cpu, struct err *e)
{
	return cpu_keep_power_on(fd, &vm->caps, &cpu->power_on, e);
}

/* The first one is there already. */
static int create(struct vm *vm, uint32_t id, int *fd, struct err *e)
{
	if (id > 0)
		return vcpu_create(vm->fd, id, fd, e);
	*fd = vm->blank->vcpu_fd;
	vm->blank->vcpu_fd = -1;
	return 0;
}

static int make_cpu(struct vm *vm, const struct vcpu_config *config, uint32_t id, struct err *e)
{
	struct vcpu_config c = *config;
	struct vm_cpu *cpu = &vm->cpus[id];
	int ret = create(vm, id, &c.fd, e);

	if (ret < 0)
		return ret;
	c.id = id;
	ret = vcpu_new(&c, &cpu->vcpu, e);
	if (ret < 0)
		return ret;
	vm->nr_cpus++;
	ret = vcpu_state_init(&cpu->state, vm->caps.xsave_bytes, e);
	if (ret == 0)
		ret = vcpu_state_init(&cpu->power_on, vm->caps.xsave_bytes, e);
	cpu->state.id = cpu->power_on.id = id;
	return ret;
}

int vm_make_cpus(struct vm *vm, const struct vcpu_config *config, struct err *e)
{
	int ret;

	vcpu_caps_init(vm->fd, &vm->caps);
	vm->cpus = calloc(vm->config.nr_cpus, sizeof(*vm->cpus));
	if (!vm->cpus)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for %u vCPUs",
			       vm->config.nr_cpus);
	ret = vm_probe_nested(vm, e);
	for (uint32_t i = 0; i < vm->config.nr_cpus && ret == 0; i++)
		ret = make_cpu(vm, config, i, e);
	if (ret == 0)
		ret = vm_on_cpu(vm, 0, learn_host, e);
	if (ret == 0)
		ret = vm_on_all_cpus(vm, set_up, e);
	if (ret == 0)
		ret = vm_on_cpu(vm, 0, probe, e);
	if (ret == 0)
		ret = vm_on_all_cpus(vm, keep_power_on, e);
	return ret;
}

void vm_free_cpus(struct vm *vm)
{
	for (uint32_t i = 0; i < vm->nr_cpus; i++) {
		vcpu_free(vm->cpus[i].vcpu);
		vcpu_state_fini(&vm->cpus[i].state);
		vcpu_state_fini(&vm->cpus[i].power_on);
	}
	free(vm->cpus);
	vm->cpus = NULL;
	vm->nr_cpus = 0;
}

static int forget_tsc(int fd, struct vm *vm, struct vm_cpu *cpu, struct err *e)
{
	(void)vm;
	(void)cpu;
	return msr_set(fd, MSR_TSC, VCPU_TSC_FAR, e);
}

int vm_forget_tsc(struct vm *vm, struct err *e)
{
	int ret = vm->tsc_written ? vm_on_cpu(vm, 0, forget_tsc, e) : 0;

	/* A fresh VM needs none: vcpu_caps_probe() has left it so. */
	vm->tsc_written = true;
	return ret;
}

static int reset_cpu(int fd, struct vm *vm, struct vm_cpu *cpu, struct err *e)
{
	return cpu_reset(fd, &vm->caps, &cpu->power_on, e);
}

int vm_reset_cpus(struct vm *vm, struct err *e)
{
	int ret = vm_forget_tsc(vm, e);

	return ret < 0 ? ret : vm_on_all_cpus(vm, reset_cpu, e);
}
