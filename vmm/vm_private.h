/*
 * The inside of struct vm, shared by the vm*.c files and nobody else.
 *
 * Two locks. `verbs` makes the controller's verbs (pause, save, reset, ...) one at a time; it is
 * held while they wait for vCPUs, so a vCPU thread never takes it. `requests` guards what vCPU
 * threads ask for and is only ever held for a few instructions; it may be taken inside `verbs`.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/machine.h"
#include "vmm/mem_slots.h"
#include "vmm/vcpu.h"
#include "vmm/vcpu_state.h"
#include "vmm/vcpu_wire.h"
#include "vmm/vm.h"

#define VM_MAX_DEVICES 32

struct vm_cpu {
	struct vcpu *vcpu;
	struct vcpu_state power_on; /* immutable after new, but for adopt() in vm_state.c */
	/* guarded by verbs; state.cpuid is the CPUID the vCPU has */
	struct vcpu_state state;
	struct vcpu_wire wire;
};

/* What the guest asked for and the controller has not carried out. */
struct vm_request {
	bool pending;
	bool announced; /* the event went out in this process */
	enum machine_request what;
	int code;
};

struct vm {
	/* immutable after new */
	struct vm_config config; /* owns its serial; what is to boot is in image */
	vm_event_fn on_event;
	void *event_ctx;
	struct vm_blank *blank; /* what it was made of: owns the two descriptors */
	int kvm_fd;
	int fd;
	struct guest_mem *mem;
	uint32_t nr_spaces;      /* address spaces of KVM that have the memory: vmm/smm.h */
	struct mem_slots *slots; /* awaited before a vCPU runs or gets its state */
	struct bus *bus;
	struct machine machine;
	struct vm_cpu *cpus;
	uint32_t nr_cpus; /* as many as have been made; config.nr_cpus once new is done */
	struct device *devices[VM_MAX_DEVICES]; /* in the order they are loaded in */
	uint32_t nr_devices;
	struct device *acpi_pm;
	struct device *guest_report;
	struct device *virtio[VIRTIO_MAX_DEVICES]; /* by slot; also in devices */
	uint32_t nr_virtio;
	struct cpuid host_cpuid; /* what this host offers, as vCPU 0 sees it */
	char host_notes[512];

	/* any thread */
	_Atomic int status; /* enum vm_status */

	/* guarded by verbs */
	pthread_mutex_t verbs;
	/* immutable after new, but for what a loaded machine brings: adopt() */
	struct vcpu_caps caps;
	struct boot_image *image; /* NULL: nothing to boot; set once, by new or for a destination */
	bool quiesced;
	bool tsc_written;

	/* guarded by requests */
	pthread_mutex_t requests;
	struct vm_request request;
};

/* vm_devices.c: the bill of materials. */
int vm_add_devices(struct vm *vm, struct err *e);
int vm_add_device(struct vm *vm, int made, struct device *const *d, struct err *e);
void vm_free_devices(struct vm *vm);
const struct device *vm_find_device(const struct vm *vm, const char *type, uint32_t instance);
/* Does @d load what a peer saved as @version of its state? */
int vm_check_device_version(const struct device *d, uint32_t version, struct err *e);

/* vm_virtio.c: the machine's virtio devices, from its config, for its guest and for its peer. */
struct acpi_mmio_device;
struct vm_virtio_wire {
	Godwit__VirtioConfig msg;
	struct virtio_face face;
};
int vm_add_virtio(struct vm *vm, struct err *e);
int vm_add_ioeventfd(void *ctx, uint64_t gpa, uint32_t value, int fd, struct err *e);
/* Fill @out (VIRTIO_MAX_DEVICES); returns how many. */
uint32_t vm_list_virtio(const struct vm *vm, struct acpi_mmio_device *out);
/* False: @d is none. @w holds what the message points at. */
bool vm_describe_virtio(const struct vm *vm, const struct device *d, struct vm_virtio_wire *w);
/* Append what @m describes to config->virtio, if it is a virtio device. */
int vm_config_add_virtio(struct vm_config *config, const Godwit__DeviceConfig *m, struct err *e);

/* vm_cpus.c: one thing done by all vCPUs at the same time, each on its thread. */
typedef int (*vm_cpu_fn)(int vcpu_fd, struct vm *vm, struct vm_cpu *cpu, struct err *e);
int vm_make_cpus(struct vm *vm, const struct vcpu_config *config, struct err *e);
void vm_free_cpus(struct vm *vm);
int vm_on_cpu(struct vm *vm, uint32_t id, vm_cpu_fn fn, struct err *e);
int vm_on_all_cpus(struct vm *vm, vm_cpu_fn fn, struct err *e);
/* Make KVM take the next TSC writes for what they say: see load_tsc() in vcpu_state.c. */
int vm_forget_tsc(struct vm *vm, struct err *e);
int vm_reset_cpus(struct vm *vm, struct err *e);

/* vm_nested.c */
int vm_probe_nested(struct vm *vm, struct err *e); /* before the first vCPU */
/* What its hypervisor was promised came with the guest, as the CPUID did. */
void vm_adopt_nested(struct vm *vm, const struct vcpu_state *first);
int vm_check_nested(const struct vm *vm, const Godwit__NestedCaps *msg, struct err *e);

/* vm_run.c: with verbs held. */
int vm_stop_locked(struct vm *vm, struct err *e);
void vm_start_locked(struct vm *vm);
void vm_emit(struct vm *vm, enum vm_event_type type, int code, const char *text);
void vm_machine_request(void *ctx, enum machine_request what, int code);
void vm_cpu_stopped(void *ctx, uint32_t id, enum vcpu_stop why, const char *text);
