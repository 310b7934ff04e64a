/* What the machine is made of, as bytes and back (MachineConfig, proto/state.proto). */
#include "vmm/vm_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct device_wire {
	Godwit__DeviceConfig msg;
	struct vm_virtio_wire virtio;
};

static uint32_t fill_devices(const struct vm *vm, struct device_wire *wires,
			     Godwit__DeviceConfig **list)
{
	for (uint32_t i = 0; i < vm->nr_devices; i++) {
		const struct device *d = vm->devices[i];

		Godwit__DeviceConfig *m = &wires[i].msg;

		godwit__device_config__init(m);
		m->type = (char *)(uintptr_t)d->ops->type;
		m->has_instance = m->has_version = 1;
		m->instance = d->instance;
		m->version = d->ops->state_version;
		if (vm_describe_virtio(vm, d, &wires[i].virtio))
			m->virtio = &wires[i].virtio.msg;
		list[i] = m;
	}
	return vm->nr_devices;
}

int vm_describe(const struct vm *vm, struct buf *out, struct err *e)
{
	Godwit__MachineConfig m = GODWIT__MACHINE_CONFIG__INIT;
	struct device_wire wires[VM_MAX_DEVICES];
	Godwit__DeviceConfig *list[VM_MAX_DEVICES];
	struct nested_caps_wire nested;
	uint32_t words[CPUID_MAX_ENTRIES * CPUID_ENTRY_WORDS];
	const struct cpuid *cpuid = &vm->cpus[0].state.cpuid;
	int ret;

	m.has_memory_bytes = m.has_nr_cpus = m.has_debug_exit = m.has_tsc_khz = 1;
	m.memory_bytes = vm->config.memory_bytes;
	m.nr_cpus = vm->config.nr_cpus;
	m.debug_exit = vm->config.debug_exit;
	m.has_test_devices = vm->config.test_devices;
	m.test_devices = vm->config.test_devices;
	m.tsc_khz = vm->caps.tsc_khz;
	cpuid_to_words(cpuid, words);
	m.n_cpuid = (size_t)cpuid->nr * CPUID_ENTRY_WORDS;
	m.cpuid = words;
	m.n_devices = fill_devices(vm, wires, list);
	m.devices = list;
	if (vm->caps.nested.vendor != NESTED_NONE) {
		nested_caps_wire_fill(&nested, &vm->caps.nested);
		m.nested = &nested.msg;
	}
	if (vm->host_notes[0])
		m.host_notes = (char *)(uintptr_t)vm->host_notes;
	ret = buf_reserve(out, godwit__machine_config__get_packed_size(&m), e);
	if (ret == 0)
		out->len += godwit__machine_config__pack(&m, out->data + out->len);
	return ret;
}

/* NULL when that is no MachineConfig, which is in @e. */
static Godwit__MachineConfig *parse(const uint8_t *data, size_t len, struct err *e)
{
	Godwit__MachineConfig *m = godwit__machine_config__unpack(NULL, len, data);

	if (!m)
		err_set(e, ERR_STREAM, EBADMSG,
			"machine description: %zu bytes that are no MachineConfig", len);
	return m;
}

static int check_sizes(const Godwit__MachineConfig *m, struct err *e)
{
	if (!m->has_memory_bytes || !m->has_nr_cpus || !m->has_debug_exit)
		return err_set(e, ERR_STREAM, EBADMSG,
			       "machine description without memory size, vCPUs or devices");
	if (m->memory_bytes > MEM_MAX_BYTES)
		return err_set(e, ERR_STREAM, EBADMSG,
			       "machine description: %" PRIu64 " bytes of memory", m->memory_bytes);
	if (m->nr_cpus < 1 || m->nr_cpus > VM_MAX_CPUS)
		return err_set(e, ERR_STREAM, EBADMSG, "machine description: %u vCPUs", m->nr_cpus);
	return 0;
}

int vm_config_unpack(const uint8_t *data, size_t len, struct vm_config *config, struct err *e)
{
	Godwit__MachineConfig *m = parse(data, len, e);
	int ret;

	if (!m)
		return -e->code;
	ret = check_sizes(m, e);
	if (ret == 0)
		*config = (struct vm_config){.memory_bytes = m->memory_bytes,
					     .nr_cpus = m->nr_cpus,
					     .debug_exit = m->debug_exit,
					     .test_devices = m->test_devices,
					     .nested = m->nested ? NESTED_REQUIRE : NESTED_OFF};
	for (size_t i = 0; i < m->n_devices && ret == 0; i++)
		ret = vm_config_add_virtio(config, m->devices[i], e);
	godwit__machine_config__free_unpacked(m, NULL);
	return ret;
}

static int check_device(const struct vm *vm, const Godwit__DeviceConfig *m, struct err *e)
{
	const struct device *d = NULL;

	if (!m->type || !m->has_instance || !m->has_version)
		return err_set(e, ERR_STREAM, EBADMSG, "a device without a name");
	d = vm_find_device(vm, m->type, m->instance);
	if (!d)
		return err_set(e, ERR_UNSUPPORTED, ENODEV, "this godwit has no device %.40s %u",
			       m->type, m->instance);
	return vm_check_device_version(d, m->version, e);
}

static int check_host(const struct vm *vm, const Godwit__MachineConfig *m, struct err *e)
{
	struct vcpu_state like = {.tsc_khz = m->tsc_khz};
	int ret = cpuid_from_words(m->cpuid, m->n_cpuid, &like.cpuid, e);

	if (ret == 0)
		ret = vm_check_nested(vm, m->nested, e);
	if (ret == 0)
		ret = vcpu_state_check(&vm->caps, &vm->host_cpuid, &like, e);
	for (size_t i = 0; i < m->n_devices && ret == 0; i++)
		ret = check_device(vm, m->devices[i], e);
	return ret;
}

int vm_check_config(const struct vm *vm, const uint8_t *data, size_t len, struct err *e)
{
	Godwit__MachineConfig *m = parse(data, len, e);
	int ret;

	if (!m)
		return -e->code;
	ret = check_sizes(m, e);
	if (ret == 0 &&
	    (m->memory_bytes != vm->config.memory_bytes || m->nr_cpus != vm->config.nr_cpus ||
	     m->debug_exit != vm->config.debug_exit || m->test_devices != vm->config.test_devices))
		ret = err_set(e, ERR_STATE, EINVAL, "the machine built here is another one");
	if (ret == 0)
		ret = check_host(vm, m, e);
	godwit__machine_config__free_unpacked(m, NULL);
	return ret < 0 ? err_prefix(e, "this host cannot take the machine") : 0;
}
