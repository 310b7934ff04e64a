/* A QMP target without a machine behind it: it answers from its own members and counts calls. */
#pragma once

#include <errno.h>
#include <string.h>

#include "control/qmp_target.h"

struct fake_target {
	enum vm_status status;
	struct migration_settings settings;
	bool active;
	bool has_report;
	struct migration_report report;
	const char *listen_address;
	unsigned int nr_quits, nr_cancels, nr_resets, nr_powerdowns, nr_forced;
	char uri[200];
	struct announce_params announced;
	uint64_t balloon_bytes;
	bool refuse; /* every verb fails */
};

static inline int fake_refuses(const struct fake_target *f, struct err *e)
{
	return f->refuse ? err_set(e, ERR_STATE, EBUSY, "the fake refuses") : 0;
}

static inline enum vm_status fake_status(void *ctx)
{
	struct fake_target *f = ctx;

	return f->status;
}

static inline int fake_stop(void *ctx, struct err *e)
{
	struct fake_target *f = ctx;

	f->status = VM_PAUSED;
	return fake_refuses(f, e);
}

static inline int fake_cont(void *ctx, bool force, struct err *e)
{
	struct fake_target *f = ctx;

	f->status = VM_RUNNING;
	f->nr_forced += force;
	return fake_refuses(f, e);
}

static inline int fake_reset(void *ctx, struct err *e)
{
	struct fake_target *f = ctx;

	f->nr_resets++;
	return fake_refuses(f, e);
}

static inline int fake_powerdown(void *ctx, struct err *e)
{
	struct fake_target *f = ctx;

	f->nr_powerdowns++;
	return fake_refuses(f, e);
}

static inline void fake_quit(void *ctx)
{
	struct fake_target *f = ctx;

	f->nr_quits++;
}

static inline int fake_announce(void *ctx, const struct announce_params *p, struct err *e)
{
	struct fake_target *f = ctx;

	f->announced = *p;
	return fake_refuses(f, e);
}

static inline int fake_balloon_set(void *ctx, uint64_t bytes, struct err *e)
{
	struct fake_target *f = ctx;

	f->balloon_bytes = bytes;
	return fake_refuses(f, e);
}

static inline int fake_balloon_query(void *ctx, uint64_t *bytes, struct balloon_stats *stats,
				     struct err *e)
{
	struct fake_target *f = ctx;

	*bytes = f->balloon_bytes;
	memset(stats, 0xff, sizeof(*stats));
	stats->value[0] = 7;
	return fake_refuses(f, e);
}

static inline uint32_t fake_nr_cpus(void *ctx)
{
	(void)ctx;
	return 2;
}

static inline pid_t fake_cpu_tid(void *ctx, uint32_t cpu)
{
	(void)ctx;
	return (pid_t)(100 + cpu);
}

static inline int fake_guest_memory(void *ctx, struct guest_memory_view *out, struct err *e)
{
	*out = (struct guest_memory_view){.pid = 7, .fd = 9, .report_gpa = 0x119000, .nr_slots = 1};
	out->slots[0] = (struct mem_slot){.index = 0, .gpa = 0, .bytes = 1 << 28};
	return fake_refuses(ctx, e);
}

static inline int fake_nested_views(void *ctx, struct nested_view *views, struct err *e)
{
	(void)ctx;
	(void)e;
	for (uint32_t i = 0; i < fake_nr_cpus(ctx); i++)
		views[i] = (struct nested_view){.vendor = NESTED_NONE};
	views[0] = (struct nested_view){.vendor = NESTED_SVM,
					.in_l2 = true,
					.gif = true,
					.vmxon_gpa = NESTED_NO_GPA,
					.control_gpa = 0x3000,
					.l1_rip = 0x104198};
	return 0;
}

static inline int fake_guest_blackout(void *ctx, struct guest_blackout *out, struct err *e)
{
	*out = (struct guest_blackout){.present = true, .gap_ns = 5, .precopy_max_ns = 3};
	return fake_refuses(ctx, e);
}

static inline const char *fake_host_notes(void *ctx)
{
	(void)ctx;
	return "";
}

static inline struct migration_settings *fake_settings(void *ctx)
{
	struct fake_target *f = ctx;

	return &f->settings;
}

static inline bool fake_migrate_active(void *ctx)
{
	struct fake_target *f = ctx;

	return f->active;
}

static inline int fake_migrate(void *ctx, const char *uri, struct err *e)
{
	struct fake_target *f = ctx;

	strncpy(f->uri, uri, sizeof(f->uri) - 1);
	return fake_refuses(f, e);
}

static inline void fake_migrate_cancel(void *ctx)
{
	struct fake_target *f = ctx;

	f->nr_cancels++;
}

static inline bool fake_migrate_report(void *ctx, struct migration_report *out)
{
	struct fake_target *f = ctx;

	if (f->has_report)
		*out = f->report;
	return f->has_report;
}

static inline const char *fake_listen_address(void *ctx)
{
	struct fake_target *f = ctx;

	return f->listen_address;
}

static const struct qmp_target_ops fake_ops = {
	.status = fake_status,
	.stop = fake_stop,
	.cont = fake_cont,
	.reset = fake_reset,
	.powerdown = fake_powerdown,
	.quit = fake_quit,
	.announce = fake_announce,
	.balloon_set = fake_balloon_set,
	.balloon_query = fake_balloon_query,
	.nr_cpus = fake_nr_cpus,
	.cpu_tid = fake_cpu_tid,
	.guest_memory = fake_guest_memory,
	.guest_blackout = fake_guest_blackout,
	.nested_views = fake_nested_views,
	.host_notes = fake_host_notes,
	.settings = fake_settings,
	.migrate_active = fake_migrate_active,
	.migrate = fake_migrate,
	.migrate_incoming = fake_migrate,
	.migrate_cancel = fake_migrate_cancel,
	.migrate_report = fake_migrate_report,
	.listen_address = fake_listen_address,
};

static inline void fake_target_init(struct fake_target *f)
{
	memset(f, 0, sizeof(*f));
	f->status = VM_RUNNING;
	migration_settings_init(&f->settings);
}
