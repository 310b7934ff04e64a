/* What QMP commands do to a real session. */
#include <errno.h>
#include <unistd.h>

#include "control/session_state.h"
#include "vmm/vcpu.h"

static int need_vm(struct session *s, struct err *e)
{
	if (session_vm(s))
		return 0;
	return err_set(e, ERR_STATE, EINVAL, "there is no guest here yet: it is still to arrive");
}

static enum vm_status op_status(void *ctx)
{
	struct session *s = ctx;

	return session_vm(s) ? vm_status(s->vm) : VM_INMIGRATE;
}

static int switching(struct err *e)
{
	return err_set(e, ERR_STATE, EBUSY,
		       "the migration is switching over: wait for its end (query-migrate)");
}

static int op_stop(void *ctx, struct err *e)
{
	struct session *s = ctx;
	int ret = need_vm(s, e);

	if (ret < 0)
		return ret;
	if (session_is_switching(s))
		return switching(e);
	ret = vm_pause(s->vm, e);
	mailbox_drain(s->mailbox); /* STOP comes before the answer, as in QEMU */
	return ret;
}

/* Switchover lock held. */
static int check_may_run(struct session *s, bool force, struct err *e)
{
	if (s->outgoing == MIGRATION_DEVICE)
		return switching(e);
	if (force)
		return 0;
	if (s->outgoing == MIGRATION_UNKNOWN)
		return err_set(e, ERR_STATE, EINVAL,
			       "the guest may run at the migration's destination: look there; "
			       "if it does not, 'cont' with x-godwit-force true");
	if (vm_status(s->vm) == VM_POSTMIGRATE)
		return err_set(e, ERR_STATE, EINVAL,
			       "the guest has been migrated away and runs elsewhere: 'quit' this "
			       "one; only if it is lost there, 'cont' with x-godwit-force true");
	return 0;
}

static int resume(struct session *s, bool force, struct err *e)
{
	int ret;

	pthread_mutex_lock(&s->switchover);
	ret = check_may_run(s, force, e);
	if (!ret && force)
		ret = vm_seize_disks(s->vm, e);
	if (!ret && force) {
		s->outgoing = MIGRATION_NONE;
		if (vm_status(s->vm) == VM_POSTMIGRATE)
			vm_set_status(s->vm, VM_PAUSED);
	}
	if (!ret)
		ret = vm_resume(s->vm, e);
	/* The destination may have told the network that the guest is there. */
	if (!ret && force)
		vm_announce(s->vm, &s->settings.params.announce);
	pthread_mutex_unlock(&s->switchover);
	return ret;
}

static int op_cont(void *ctx, bool force, struct err *e)
{
	struct session *s = ctx;
	int ret = need_vm(s, e);

	if (!ret)
		ret = resume(s, force, e);
	if (!ret && force && !s->source)
		s->last.status = MIGRATION_FAILED; /* whatever happened there: it runs here now */
	mailbox_drain(s->mailbox);
	return ret;
}

static int op_reset(void *ctx, struct err *e)
{
	struct session *s = ctx;
	int ret = need_vm(s, e);

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&s->switchover);
	ret = check_may_run(s, false, e);
	if (!ret)
		ret = session_reset(s, false, e);
	pthread_mutex_unlock(&s->switchover);
	mailbox_drain(s->mailbox);
	return ret;
}

static int op_powerdown(void *ctx, struct err *e)
{
	struct session *s = ctx;
	int ret = need_vm(s, e);

	if (ret < 0)
		return ret;
	if (session_is_switching(s))
		return switching(e);
	vm_powerdown(s->vm);
	qmp_server_event(s->qmp, "POWERDOWN", NULL);
	return 0;
}

static void op_quit(void *ctx)
{
	struct session *s = ctx;

	qmp_server_event(s->qmp, "SHUTDOWN",
			 json_pack("{s:b,s:s}", "guest", 0, "reason", "host-qmp-quit"));
	session_end(s, 0);
}

static int op_announce(void *ctx, const struct announce_params *p, struct err *e)
{
	struct session *s = ctx;
	int ret = need_vm(s, e);

	if (!ret && vm_status(s->vm) == VM_POSTMIGRATE)
		ret = err_set(e, ERR_STATE, EINVAL,
			      "the guest has been migrated away: it is announced where it runs");
	if (!ret)
		vm_announce(s->vm, p);
	return ret;
}

static int op_balloon_set(void *ctx, uint64_t bytes, struct err *e)
{
	struct session *s = ctx;
	int ret = need_vm(s, e);

	return ret < 0 ? ret : vm_balloon_set(s->vm, bytes, e);
}

static int op_balloon_query(void *ctx, uint64_t *bytes, struct balloon_stats *stats, struct err *e)
{
	struct session *s = ctx;
	int ret = need_vm(s, e);

	return ret < 0 ? ret : vm_balloon_query(s->vm, bytes, stats, e);
}

static uint32_t op_nr_cpus(void *ctx)
{
	struct session *s = ctx;

	return session_vm(s) ? vm_nr_cpus(s->vm) : 0;
}

static pid_t op_cpu_tid(void *ctx, uint32_t cpu)
{
	struct session *s = ctx;

	return vcpu_tid(vm_vcpu(s->vm, cpu));
}

static int op_guest_memory(void *ctx, struct guest_memory_view *out, struct err *e)
{
	struct session *s = ctx;
	int ret = need_vm(s, e);
	const struct guest_mem *mem;

	if (ret < 0)
		return ret;
	mem = vm_mem(s->vm);
	*out = (struct guest_memory_view){
		.pid = getpid(),
		.fd = guest_mem_fd(mem),
		.report_gpa = vm_guest_report_gpa(s->vm),
		.nr_slots = guest_mem_nr_slots(mem),
	};
	for (uint32_t i = 0; i < out->nr_slots; i++)
		out->slots[i] = *guest_mem_slot(mem, i);
	return 0;
}

static int op_nested_views(void *ctx, struct nested_view *views, struct err *e)
{
	struct session *s = ctx;
	int ret = need_vm(s, e);

	if (ret < 0)
		return ret;
	if (session_is_switching(s))
		return switching(e);
	return vm_nested_views(s->vm, views, e);
}

static int op_guest_blackout(void *ctx, struct guest_blackout *out, struct err *e)
{
	struct session *s = ctx;
	int ret = need_vm(s, e);

	if (ret < 0)
		return ret;
	if (migration_read_blackout(s->vm, out) < 0)
		out->present = false;
	return 0;
}

static const char *op_host_notes(void *ctx)
{
	struct session *s = ctx;

	return session_vm(s) ? vm_host_notes(s->vm) : "";
}

static struct migration_settings *op_settings(void *ctx)
{
	struct session *s = ctx;

	return &s->settings;
}

static bool op_migrate_active(void *ctx)
{
	struct session *s = ctx;

	return session_is_leaving(s);
}

static int op_migrate(void *ctx, const char *uri, struct err *e)
{
	return session_migrate(ctx, uri, e);
}

static int op_migrate_incoming(void *ctx, const char *uri, struct err *e)
{
	return session_listen(ctx, uri, e);
}

static void op_migrate_cancel(void *ctx)
{
	struct session *s = ctx;

	if (s->source)
		migration_source_cancel(s->source);
}

static bool op_migrate_report(void *ctx, struct migration_report *out)
{
	return session_query(ctx, out);
}

static const char *op_listen_address(void *ctx)
{
	struct session *s = ctx;

	return s->listener ? link_listener_address(s->listener) : NULL;
}

const struct qmp_target_ops session_qmp_ops = {
	.status = op_status,
	.stop = op_stop,
	.cont = op_cont,
	.reset = op_reset,
	.powerdown = op_powerdown,
	.quit = op_quit,
	.announce = op_announce,
	.balloon_set = op_balloon_set,
	.balloon_query = op_balloon_query,
	.nr_cpus = op_nr_cpus,
	.cpu_tid = op_cpu_tid,
	.guest_memory = op_guest_memory,
	.guest_blackout = op_guest_blackout,
	.nested_views = op_nested_views,
	.host_notes = op_host_notes,
	.settings = op_settings,
	.migrate_active = op_migrate_active,
	.migrate = op_migrate,
	.migrate_incoming = op_migrate_incoming,
	.migrate_cancel = op_migrate_cancel,
	.migrate_report = op_migrate_report,
	.listen_address = op_listen_address,
};
