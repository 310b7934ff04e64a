/*
 * What QMP commands act on, as a table of operations: the session of a real VM, or a fake in tests
 * and fuzzing. All calls come from the loop thread, one at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/migration_settings.h"
#include "migration/report.h"
#include "nested/view.h"
#include "vmm/base/err.h"
#include "vmm/mem.h"
#include "vmm/virtio/balloon.h"
#include "vmm/vm.h"

/* How a process on this host reads the guest's memory: /proc/PID/fd/FD, offset = gpa. */
struct guest_memory_view {
	pid_t pid;
	int fd;
	uint64_t report_gpa; /* 0: the guest publishes none */
	uint32_t nr_slots;
	struct mem_slot slots[MEM_MAX_SLOTS];
};

struct qmp_target_ops {
	enum vm_status (*status)(void *ctx);
	int (*stop)(void *ctx, struct err *e);
	/* @force: also when the guest may run elsewhere. */
	int (*cont)(void *ctx, bool force, struct err *e);
	int (*reset)(void *ctx, struct err *e);
	int (*powerdown)(void *ctx, struct err *e);
	void (*quit)(void *ctx);
	/* Tell the guest's networks where it is. */
	int (*announce)(void *ctx, const struct announce_params *p, struct err *e);

	int (*balloon_set)(void *ctx, uint64_t bytes, struct err *e);
	int (*balloon_query)(void *ctx, uint64_t *bytes, struct balloon_stats *stats,
			     struct err *e);

	uint32_t (*nr_cpus)(void *ctx); /* 0: there is no machine yet */
	pid_t (*cpu_tid)(void *ctx, uint32_t cpu);
	int (*guest_memory)(void *ctx, struct guest_memory_view *out, struct err *e);
	int (*guest_blackout)(void *ctx, struct guest_blackout *out, struct err *e);
	const char *(*host_notes)(void *ctx);
	/* nr_cpus of them into @views, at most VM_MAX_CPUS. */
	int (*nested_views)(void *ctx, struct nested_view *views, struct err *e);

	/* The live settings; changed in place while no migration is active. */
	struct migration_settings *(*settings)(void *ctx);
	bool (*migrate_active)(void *ctx);
	int (*migrate)(void *ctx, const char *uri, struct err *e);
	int (*migrate_incoming)(void *ctx, const char *uri, struct err *e);
	void (*migrate_cancel)(void *ctx);
	/* The present or last migration, outgoing or incoming; false if there was none. */
	bool (*migrate_report)(void *ctx, struct migration_report *out);
	/* Where an incoming migration is waited for, as a URI; NULL when none is. */
	const char *(*listen_address)(void *ctx);
};

struct qmp_target {
	const struct qmp_target_ops *ops;
	void *ctx;
};
