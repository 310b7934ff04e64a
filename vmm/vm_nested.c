/* A machine whose guest may be a hypervisor: what it is promised, here and where it goes. */
#include "vmm/vm_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "nested/caps.h"
#include "nested/state.h"
#include "nested/view.h"

#define LEAF_SVM 0x8000000au

static int refuse(struct vm *vm, const char *why, struct err *e)
{
	if (vm->config.nested == NESTED_REQUIRE)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "a guest on this host cannot be a hypervisor: %s", why);
	snprintf(vm->host_notes, sizeof(vm->host_notes), "the guest cannot be a hypervisor: %s",
		 why);
	return 0;
}

int vm_probe_nested(struct vm *vm, struct err *e)
{
	char why[200];
	int ret;

	if (vm->config.nested == NESTED_OFF)
		return 0;
	ret = nested_caps_probe(vm->kvm_fd, &vm->caps.nested, why, sizeof(why), e);
	if (ret < 0)
		return ret;
	if (vm->caps.nested.vendor == NESTED_NONE)
		return refuse(vm, why, e);
	return nested_caps_enable(vm->fd, &vm->caps.nested, e);
}

static uint64_t *vmx_value(struct nested_caps *c, uint32_t index)
{
	for (uint32_t i = 0; i < c->nr_vmx; i++)
		if (c->vmx[i].index == index)
			return &c->vmx[i].value;
	return NULL;
}

void vm_adopt_nested(struct vm *vm, const struct vcpu_state *first)
{
	struct nested_caps *c = &vm->caps.nested;
	const struct cpuid_entry *svm = cpuid_find(&first->cpuid, LEAF_SVM, 0);

	if (c->vendor == NESTED_SVM && svm) {
		c->svm_revision = svm->eax & 0xff;
		c->svm_asids = svm->ebx;
		c->svm_features = svm->edx;
	}
	for (uint32_t i = 0; i < first->msrs.nr; i++) {
		uint64_t *value = vmx_value(c, first->msrs.index[i]);

		if (value)
			*value = first->msrs.value[i];
	}
}

int vm_check_nested(const struct vm *vm, const Godwit__NestedCaps *m, struct err *e)
{
	struct nested_caps guest;
	int ret;

	if (!m)
		return 0;
	ret = nested_caps_wire_parse(m, &guest, e);
	return ret < 0 ? ret : nested_caps_check(&guest, &vm->caps.nested, e);
}

static int view_cpu(int vcpu_fd, void *arg, struct err *e)
{
	struct nested_state s;
	int ret = nested_state_save(vcpu_fd, &s, e);

	if (ret == 0)
		nested_view_decode(&s, arg);
	return ret;
}

static int view_cpus(struct vm *vm, struct nested_view *views, struct err *e)
{
	int ret = 0;

	for (uint32_t i = 0; i < vm->nr_cpus && ret == 0; i++) {
		views[i] = (struct nested_view){.vendor = NESTED_NONE};
		if (vm->caps.nested.vendor != NESTED_NONE)
			ret = vcpu_call(vm->cpus[i].vcpu, view_cpu, &views[i], e);
	}
	return ret;
}

int vm_nested_views(struct vm *vm, struct nested_view *views, struct err *e)
{
	bool running;
	int ret = 0;

	pthread_mutex_lock(&vm->verbs);
	running = vm_status(vm) == VM_RUNNING;
	if (running)
		ret = vm_stop_locked(vm, e);
	if (ret == 0)
		ret = view_cpus(vm, views, e);
	if (running)
		vm_start_locked(vm);
	pthread_mutex_unlock(&vm->verbs);
	return ret < 0 ? err_prefix(e, "looking at nested state") : 0;
}
