/*
 * A virtual machine: memory, vCPUs, devices, and the few verbs that act on all of them.
 *
 * Life: vm_new (paused, empty memory) -> vm_boot (image loaded) or vm_load_state (migrated state)
 * -> vm_resume <-> vm_pause ... -> vm_free. The caller of those verbs is the VM's controller: one
 * thread at a time (vm.c takes a lock so that a QMP `stop` and a migration cannot interleave).
 * Queries marked "any thread" are safe beside it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "nested/caps.h"
#include "vmm/base/buf.h"
#include "vmm/base/err.h"
#include "vmm/mem.h"
#include "vmm/virtio/spec.h"

#define VM_MAX_CPUS 64

struct boot_image;
struct disk;
struct nested_view;
struct vm;
struct vm_blank;
struct vcpu;

/* Strings are copied by vm_new, and so are the files of the image. */
struct vm_config {
	uint64_t memory_bytes;
	struct guest_mem *memory; /* of memory_bytes, taken over by vm_new, also on failure; NULL:
				   * it makes some */
	struct vm_blank *blank;   /* likewise (vmm/blank.h) */
	uint32_t nr_cpus;
	bool debug_exit;         /* isa-debug-exit at port 0xf4 */
	bool test_devices;       /* what kvm-unit-tests expect of QEMU's pc-testdev machine */
	enum nested_mode nested; /* may the guest be a hypervisor? */
	bool exit_counter;  /* L1_EXITS_PORT (nested/l1/l1_ports.h); does not travel by itself */
	const char *cpu;    /* model (vmm/cpu_model.h); NULL: host. Not on a destination */
	const char *serial; /* stdio, null, pty, file:PATH, unix:PATH; NULL is null */
	const char
		*kernel; /* image, for boot and for resets; NULL on a destination: vm_set_image */
	const char *initrd;
	const char *append;
	/* In the order the guest finds them. On a destination with their faces (vm_config_unpack).
	 */
	struct virtio_spec virtio[VIRTIO_MAX_DEVICES];
	uint32_t nr_virtio;
	uint32_t copied_disks; /* bit n: the nth disk's image is filled in by a migration */
};

enum vm_status {
	VM_PRELAUNCH, /* built, never run */
	VM_INMIGRATE, /* destination, waiting for state */
	VM_RUNNING,
	VM_PAUSED,
	VM_FINISH_MIGRATE, /* paused by the migration engine's switch-over: vm_resume is refused
			    * (ERR_STATE) until the engine sets VM_PAUSED again, so that a QMP
			    * `cont` cannot start a second copy of the guest */
	VM_POSTMIGRATE, /* the guest lives elsewhere now; resuming here is refused without force */
	VM_SHUTDOWN,    /* powered off or exited */
	VM_INTERNAL_ERROR, /* KVM could not go on; the message came with the event */
};

enum vm_event_type {
	VM_EVENT_RUNNING,
	VM_EVENT_PAUSED,
	VM_EVENT_RESET,
	VM_EVENT_POWEROFF, /* guest asked for S5; vCPUs have stopped */
	VM_EVENT_EXIT,     /* debug exit, code is the exit status; vCPUs have stopped */
	VM_EVENT_SUSPEND,  /* guest entered S3; vCPUs have stopped */
	VM_EVENT_WAKE,     /* it has been woken: vm_wake() is wanted */
	VM_EVENT_ERROR,    /* a vCPU hit an internal error; vCPUs have stopped */
};

struct vm_event {
	enum vm_event_type type;
	int code;
	char text[256];
};

/* Called from vCPU or controller threads; must not block nor call vm_ verbs: hand it to the loop.
 * In the order things happen: RUNNING comes before anything the guest does then. */
typedef void (*vm_event_fn)(void *ctx, const struct vm_event *ev);

int vm_new(const struct vm_config *config, vm_event_fn on_event, void *ctx, struct vm **out,
	   struct err *e);
void vm_free(struct vm *vm);

/* Load the image, build ACPI tables, set vCPU 0 to its entry. */
int vm_boot(struct vm *vm, struct err *e);

/* A guest-requested reset (VM_EVENT_RESET) or system_reset: devices and vCPUs to power-on, boot the
 * same image again, resume if it was running. Refused without an image; the guest is then as it
 * was.
 */
int vm_reset(struct vm *vm, struct err *e);

/* VM_EVENT_WAKE: vCPUs to power-on, vCPU 0 in real mode at the waking vector the guest left in its
 * FACS, resume if it was running. Memory and devices stay as they are. Refused as a reset is. */
int vm_wake(struct vm *vm, struct err *e);

struct announce_params;

/* Tell the networks of the guest's cards that it is here (vmm/net/virtio_net.h); at once, or when
 * it runs. Any thread. */
void vm_announce(struct vm *vm, const struct announce_params *p);

/* The guest stands still where it was: have the networks bring its frames here, where they wait for
 * it. Before its state is loaded; if it goes on where it was, vm_announce() there. Any thread. */
void vm_attract(struct vm *vm);

/* Press the power button (ACPI); the guest decides what to do. */
void vm_powerdown(struct vm *vm);

/* The balloon: leave the guest @bytes of its memory, as far as it can; and what it has now, with
 * what it says about it. ERR_STATE without a balloon, or while the guest changes hosts. Any thread.
 */
struct balloon_stats;
int vm_balloon_set(struct vm *vm, uint64_t bytes, struct err *e);
int vm_balloon_query(struct vm *vm, uint64_t *bytes, struct balloon_stats *stats, struct err *e);

/* After vm_pause no vCPU executes and no device thread touches memory. Idempotent. */
int vm_pause(struct vm *vm, struct err *e);
int vm_resume(struct vm *vm, struct err *e);

/* All guest-visible state except RAM, while paused. The bytes are a MachineState message
 * (proto/state.proto). */
int vm_save_state(struct vm *vm, struct buf *out, struct err *e);
int vm_load_state(struct vm *vm, const uint8_t *data, size_t len, struct err *e);

/* What vm_save_state gave, without the fields that go on counting while a machine is paused (TSC,
 * clocks, timer positions; marked "counts while paused" in the .proto files), re-packed: equal
 * bytes mean equal machines. For --verify. */
int vm_state_canonical(const uint8_t *data, size_t len, struct buf *out, struct err *e);

/* What a destination needs to build the same machine: a MachineConfig message. vm_config_unpack
 * fills @config from it (serial and image left NULL). */
int vm_describe(const struct vm *vm, struct buf *out, struct err *e);
int vm_config_unpack(const uint8_t *data, size_t len, struct vm_config *config, struct err *e);

/* Back ends of this host for a machine from elsewhere: the nth device of a type in @here lends its
 * back end to the nth of that type in @there. Devices without one in @here keep the source's
 * proposal. One too many in @here is an error: the guest has no such device. */
int vm_config_take_back_ends(struct vm_config *there, const struct vm_config *here, struct err *e);

/* The rest of what a destination needs: what to boot when the guest resets. @vm, which has none and
 * has not run, owns it from here on. */
void vm_set_image(struct vm *vm, struct boot_image *image);

/* Can @vm, built from that config on this host, take the machine described? CPU features, TSC
 * frequency, devices and their versions. A destination asks before it lets memory come. */
int vm_check_config(const struct vm *vm, const uint8_t *data, size_t len, struct err *e);

/* Status; any thread. vm_set_status is for the migration engine (INMIGRATE, POSTMIGRATE). */
enum vm_status vm_status(const struct vm *vm);
void vm_set_status(struct vm *vm, enum vm_status status);
const char *vm_status_name(enum vm_status status); /* QMP RunState names */

/* Any thread; valid for the VM's life. */
struct guest_mem *vm_mem(struct vm *vm);
int vm_fd(const struct vm *vm);     /* KVM VM fd, for dirty trackers */
int vm_kvm_fd(const struct vm *vm); /* /dev/kvm */
uint32_t vm_nr_cpus(const struct vm *vm);
struct vcpu *vm_vcpu(struct vm *vm, uint32_t i);

/* What each vCPU does as a hypervisor, vm_nr_cpus() of them into @views. A guest that runs is held
 * for as long as it takes to look. */
int vm_nested_views(struct vm *vm, struct nested_view *views, struct err *e);
/* Its virtio-blk disks (vmm/block/disk.h), in the order of their instances. */
uint32_t vm_nr_disks(const struct vm *vm);
struct disk *vm_disk(const struct vm *vm, uint32_t index);
/* Before a guest that may run elsewhere is made to run here: ERR_STATE if anybody uses its disks.
 * Controller. */
int vm_seize_disks(struct vm *vm, struct err *e);
/* What it boots (vmm/boot/image.h); NULL: nothing. */
const struct boot_image *vm_image(const struct vm *vm);
/* gpa of the page the guest announced with GUEST_REPORT_PORT (vmm/guest_report.h); 0: none. */
uint64_t vm_guest_report_gpa(const struct vm *vm);
/* Notes about this host that make state less than exact (e.g. "TSC writes are ignored by this
 * KVM"); "" when there are none. */
const char *vm_host_notes(const struct vm *vm);

/* Every slot KVM has of the memory, each with a dirty log (vmm/mem_slots.h). Any thread. */
struct mem_slots;
const struct mem_slots *vm_mem_slots(const struct vm *vm);

/* Set or clear KVM_MEM_LOG_DIRTY_PAGES on every slot. */
int vm_set_dirty_logging(struct vm *vm, bool on, struct err *e);
