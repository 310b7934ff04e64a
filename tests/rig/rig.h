/*
 * A rig for tests that migrate a real guest: both engines in this one process, over a real socket.
 *
 * The guest is the workload guest (experiments/guest). A rig holds the one VM that may run; a
 * migration replaces it by the destination's. Failures inside the rig's own machinery fail the
 * running cmocka test; failures of the migration are the caller's to judge.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "migration/migration.h"
#include "vmm/vm.h"

/* Skip the running test, loudly, when this host has no usable KVM. */
void rig_need_kvm(void);

#define RIG_MAX_DISKS 4

struct rig_guest {
	uint64_t memory_bytes;
	uint32_t nr_cpus;
	const char *append; /* for the workload guest; NULL: a small default */
	const char *kernel; /* NULL: rig_workload_path() */
	const char *initrd;
	bool nested;                      /* it is a hypervisor */
	const char *cpu;                  /* model; NULL: host */
	const char *disks[RIG_MAX_DISKS]; /* as for --disk; NULL ends them */
	const char *net;                  /* as for --net; NULL: none */
};

/* Boot it and wait until the workload runs. NULL: 64 MiB, one vCPU, defaults. */
struct vm *rig_boot(const struct rig_guest *guest);

/* Wait until the workload of a guest that has just been booted or reset runs. */
void rig_await_workload(struct vm *vm);

/* The workload guest's image. */
const char *rig_workload_path(void);

/* What to do in one migration; zeroed members are defaults. */
struct rig_migration {
	const char *listen; /* default tcp:127.0.0.1:0 */
	struct migration_params params;
	struct fault *source_fault;
	struct fault *destination_fault;
	migration_build_fn build; /* default: as described, serial null */
	/* Called while the migration is under way, may be NULL. */
	void (*meanwhile)(struct migration_source *s, struct migration_destination *d, void *ctx);
	void *ctx;
	const char *disks[RIG_MAX_DISKS]; /* where they are at the destination */
	const char *net;                  /* its back end there */
	/* Results. */
	struct migration_report source;
	struct migration_report destination;
};

/* Defaults, with a 20 ms downtime limit and the patience that slow machines need. */
void rig_migration_init(struct rig_migration *m);

/* Migrate @vm; both sides have ended on return. The destination's VM, or NULL when it has none. @vm
 * is still the caller's. */
struct vm *rig_migrate(struct vm *vm, struct rig_migration *m);

/* The above, and it must complete: the old VM is freed, the new one checked and returned. */
struct vm *rig_move(struct vm *vm, struct rig_migration *m);

/* Is the guest alive (its TSC sample moves)? Waits up to @timeout_ns. */
bool rig_alive(struct vm *vm, uint64_t timeout_ns);

/* How many pages vCPU 0 has written so far. */
uint64_t rig_pages_written(struct vm *vm);

/* Pause, check every page from outside and the guest's own verdict, resume if it ran. */
void rig_check(struct vm *vm);

/* How many file descriptors and threads this process has; threads that have ended do not count, nor
 * do the kernel's own. */
struct rig_census {
	uint32_t nr_fds;
	uint32_t nr_threads;
	uint64_t rss_kib;
};
struct rig_census rig_take_census(void);
