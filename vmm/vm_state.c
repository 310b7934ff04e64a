/* The machine's state as bytes and back (MachineState, proto/state.proto). */
#include "vmm/vm_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Saving ---- */

static int save_cpu(int vcpu_fd, struct vm *vm, struct vm_cpu *cpu, struct err *e)
{
	int ret = vcpu_state_save(vcpu_fd, &vm->caps, &cpu->state, e);

	if (ret == 0)
		vcpu_wire_fill(&cpu->wire, &cpu->state);
	return ret;
}

struct saved_devices {
	struct buf bodies[VM_MAX_DEVICES];
	Godwit__DeviceState states[VM_MAX_DEVICES];
	Godwit__DeviceState *list[VM_MAX_DEVICES];
	uint32_t nr;
};

static int save_device(const struct device *d, struct saved_devices *s, struct err *e)
{
	Godwit__DeviceState *m = &s->states[s->nr];
	struct buf *body = &s->bodies[s->nr];
	int ret;

	if (!d->ops->save)
		return 0;
	s->list[s->nr++] = m;
	ret = d->ops->save(d, body, e);
	if (ret < 0)
		return err_prefix(e, "%s", d->ops->type);
	godwit__device_state__init(m);
	m->type = (char *)(uintptr_t)d->ops->type;
	m->has_instance = m->has_version = m->has_body = 1;
	m->instance = d->instance;
	m->version = d->ops->state_version;
	m->body = (ProtobufCBinaryData){.len = body->len, .data = body->data};
	return 0;
}

static void free_saved_devices(struct saved_devices *s)
{
	for (uint32_t i = 0; i < s->nr; i++)
		buf_fini(&s->bodies[i]);
}

static int pack(struct vm *vm, struct saved_devices *devices, struct buf *out, struct err *e)
{
	Godwit__MachineState m = GODWIT__MACHINE_STATE__INIT;
	Godwit__VcpuState *vcpus[VM_MAX_CPUS];
	int ret;

	for (uint32_t i = 0; i < vm->nr_cpus; i++)
		vcpus[i] = &vm->cpus[i].wire.msg;
	m.n_vcpus = vm->nr_cpus;
	m.vcpus = vcpus;
	m.n_devices = devices->nr;
	m.devices = devices->list;
	pthread_mutex_lock(&vm->requests);
	if (vm->request.pending) {
		m.has_pending_request = m.has_pending_code = 1;
		m.pending_request = (uint32_t)vm->request.what + 1;
		m.pending_code = vm->request.code;
	}
	pthread_mutex_unlock(&vm->requests);
	ret = buf_reserve(out, godwit__machine_state__get_packed_size(&m), e);
	if (ret == 0)
		out->len += godwit__machine_state__pack(&m, out->data + out->len);
	return ret;
}

static int save_locked(struct vm *vm, struct buf *out, struct err *e)
{
	struct saved_devices devices = {.nr = 0};
	int ret;

	if (vm_status(vm) == VM_RUNNING || !vm->quiesced)
		return err_set(e, ERR_STATE, EBUSY, "pause the machine before saving its state");
	ret = vm_on_all_cpus(vm, save_cpu, e);
	for (uint32_t i = 0; i < vm->nr_devices && ret == 0; i++)
		ret = save_device(vm->devices[i], &devices, e);
	if (ret == 0)
		ret = pack(vm, &devices, out, e);
	free_saved_devices(&devices);
	return ret;
}

int vm_save_state(struct vm *vm, struct buf *out, struct err *e)
{
	int ret;

	pthread_mutex_lock(&vm->verbs);
	ret = save_locked(vm, out, e);
	pthread_mutex_unlock(&vm->verbs);
	return ret < 0 ? err_prefix(e, "saving the machine's state") : 0;
}

/* ---- Loading: everything is checked that can be, then it is assigned ---- */

static int parse_cpus(struct vm *vm, const Godwit__MachineState *m, struct vcpu_state *states,
		      struct err *e)
{
	for (uint32_t i = 0; i < vm->nr_cpus; i++) {
		int ret = vcpu_wire_parse(m->vcpus[i], &states[i], e);

		if (ret == 0 && states[i].id != i)
			ret = err_set(e, ERR_STREAM, EBADMSG, "its id is %u", states[i].id);
		if (ret == 0)
			ret = vcpu_state_check(&vm->caps, &vm->host_cpuid, &states[i], e);
		if (ret < 0)
			return err_prefix(e, "vCPU %u", i);
	}
	return 0;
}

static int check_device(const struct vm *vm, const Godwit__DeviceState *m, struct err *e)
{
	const struct device *d;

	if (!m->type || !m->has_instance || !m->has_version || !m->has_body)
		return err_set(e, ERR_STREAM, EBADMSG, "device state without a name or body");
	d = vm_find_device(vm, m->type, m->instance);
	if (!d || !d->ops->load)
		return err_set(e, ERR_STREAM, ENODEV, "state of device %.40s %u, which is not here",
			       m->type, m->instance);
	return vm_check_device_version(d, m->version, e);
}

/* The message of device @d, NULL if there is none. */
static const Godwit__DeviceState *state_of(const Godwit__MachineState *m, const struct device *d)
{
	for (size_t i = 0; i < m->n_devices; i++)
		if (m->devices[i]->instance == d->instance &&
		    strcmp(m->devices[i]->type, d->ops->type) == 0)
			return m->devices[i];
	return NULL;
}

static int check_devices(const struct vm *vm, const Godwit__MachineState *m, struct err *e)
{
	uint32_t with_state = 0;

	for (size_t i = 0; i < m->n_devices; i++) {
		int ret = check_device(vm, m->devices[i], e);

		if (ret < 0)
			return ret;
	}
	for (uint32_t i = 0; i < vm->nr_devices; i++) {
		if (!vm->devices[i]->ops->save)
			continue;
		with_state++;
		if (!state_of(m, vm->devices[i]))
			return err_set(e, ERR_STREAM, EBADMSG, "no state of device %s",
				       vm->devices[i]->ops->type);
	}
	/* Every device is there and the numbers agree: none is there twice. */
	if (m->n_devices != with_state)
		return err_set(e, ERR_STREAM, EBADMSG, "%zu device states for %u devices",
			       m->n_devices, with_state);
	return 0;
}

static int check_request(const Godwit__MachineState *m, struct err *e)
{
	if (m->has_pending_request && m->pending_request > MACHINE_WAKE + 1)
		return err_set(e, ERR_STREAM, EBADMSG, "pending request %u", m->pending_request);
	return 0;
}

struct load_cpu_job {
	struct vm *vm;
	const struct vcpu_state *state;
	bool set_cpuid;
};

static int load_cpu(int vcpu_fd, void *arg, struct err *e)
{
	struct load_cpu_job *job = arg;

	return vcpu_state_load(vcpu_fd, &job->vm->caps, job->state, job->set_cpuid, e);
}

static bool same_cpuid(const struct cpuid *a, const struct cpuid *b)
{
	return a->nr == b->nr && memcmp(a->entries, b->entries, a->nr * sizeof(a->entries[0])) == 0;
}

static int load_cpus(struct vm *vm, const struct vcpu_state *states, struct err *e)
{
	struct load_cpu_job jobs[VM_MAX_CPUS];
	struct err other = ERR_INIT;
	int first = vm_forget_tsc(vm, e);

	if (first < 0)
		return first;
	for (uint32_t i = 0; i < vm->nr_cpus; i++) {
		struct vm_cpu *cpu = &vm->cpus[i];

		jobs[i] = (struct load_cpu_job){
			.vm = vm,
			.state = &states[i],
			.set_cpuid = !same_cpuid(&cpu->state.cpuid, &states[i].cpuid)};
		vcpu_call_start(cpu->vcpu, load_cpu, &jobs[i]);
	}
	for (uint32_t i = 0; i < vm->nr_cpus; i++) {
		int ret = vcpu_call_finish(vm->cpus[i].vcpu, first ? &other : e);

		if (ret < 0 && first == 0)
			first = ret;
		vm->cpus[i].state.cpuid = states[i].cpuid;
	}
	return first;
}

static int load_devices(struct vm *vm, const Godwit__MachineState *m, struct err *e)
{
	/* In the machine's order, not the message's: see vm_devices.c. */
	for (uint32_t i = 0; i < vm->nr_devices; i++) {
		struct device *d = vm->devices[i];
		const Godwit__DeviceState *s = d->ops->save ? state_of(m, d) : NULL;
		int ret = s ? d->ops->load(d, s->version, s->body.data, s->body.len, e) : 0;

		if (ret < 0)
			return err_prefix(e, "%s", d->ops->type);
	}
	return 0;
}

/* Like its CPUID, the list of MSRs a machine is made of comes with it: this host's KVM may know
 * more, but the guest cannot use them, and the next host need not have them. */
static void adopt(struct vm *vm, const Godwit__MachineState *m, const struct vcpu_state *first)
{
	vm->caps.msrs.nr = first->msrs.nr;
	memcpy(vm->caps.msrs.index, first->msrs.index, first->msrs.nr * sizeof(uint32_t));
	/* The frequency the guest was promised, not the one of whichever host it is on. */
	vm->caps.tsc_khz = first->tsc_khz;
	for (uint32_t i = 0; i < vm->nr_cpus; i++)
		vm->cpus[i].power_on.tsc_khz = first->tsc_khz; /* also after a reset */
	vm_adopt_nested(vm, first);
	pthread_mutex_lock(&vm->requests);
	vm->request = (struct vm_request){
		.pending = m->pending_request != 0,
		.what = m->pending_request ? (enum machine_request)(m->pending_request - 1)
					   : MACHINE_RESET,
		.code = m->pending_code};
	pthread_mutex_unlock(&vm->requests);
}

static int load_message(struct vm *vm, const Godwit__MachineState *m, struct err *e)
{
	struct vcpu_state *states;
	int ret;

	if (m->n_vcpus != vm->nr_cpus)
		return err_set(e, ERR_STREAM, EBADMSG, "state of %zu vCPUs for a machine of %u",
			       m->n_vcpus, vm->nr_cpus);
	states = calloc(vm->nr_cpus, sizeof(*states));
	if (!states)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for vCPU state");
	ret = parse_cpus(vm, m, states, e);
	if (ret == 0)
		ret = check_devices(vm, m, e);
	if (ret == 0)
		ret = check_request(m, e);
	if (ret == 0)
		ret = load_cpus(vm, states, e);
	if (ret == 0)
		ret = load_devices(vm, m, e);
	if (ret == 0)
		adopt(vm, m, &states[0]);
	for (uint32_t i = 0; i < vm->nr_cpus; i++)
		vcpu_state_fini(&states[i]);
	free(states);
	return ret;
}

static int load_locked(struct vm *vm, const uint8_t *data, size_t len, struct err *e)
{
	Godwit__MachineState *m;
	int ret;

	if (vm_status(vm) == VM_RUNNING || !vm->quiesced)
		return err_set(e, ERR_STATE, EBUSY, "the machine is running");
	if (mem_slots_await(vm->slots, e) < 0)
		return -e->code;
	m = godwit__machine_state__unpack(NULL, len, data);
	if (!m)
		return err_set(e, ERR_STREAM, EBADMSG, "%zu bytes that are no MachineState", len);
	ret = load_message(vm, m, e);
	godwit__machine_state__free_unpacked(m, NULL);
	return ret;
}

int vm_load_state(struct vm *vm, const uint8_t *data, size_t len, struct err *e)
{
	int ret;

	pthread_mutex_lock(&vm->verbs);
	ret = load_locked(vm, data, len, e);
	pthread_mutex_unlock(&vm->verbs);
	return ret < 0 ? err_prefix(e, "loading the machine's state") : 0;
}
