/* QMP commands about the machine itself. Names, members and errors are QEMU's where it has them. */
#include <errno.h>
#include <stdio.h>

#include "control/qmp_dispatch.h"
#include "control/qmp_settings.h"

static json_t *done_or_null(int ret)
{
	return ret < 0 ? NULL : json_object();
}

static json_t *cmd_query_version(const struct qmp_target *t, json_t *args, struct err *e)
{
	(void)t;
	(void)args;
	(void)e;
	return qmp_version();
}

static json_t *cmd_query_commands(const struct qmp_target *t, json_t *args, struct err *e)
{
	json_t *list = json_array();
	const struct qmp_command *c;

	(void)t;
	(void)args;
	(void)e;
	json_array_append_new(list, json_pack("{s:s}", "name", "qmp_capabilities"));
	for (size_t n = 0; (c = qmp_command_at(n)); n++)
		json_array_append_new(list, json_pack("{s:s}", "name", c->name));
	return list;
}

static json_t *cmd_query_status(const struct qmp_target *t, json_t *args, struct err *e)
{
	enum vm_status status = t->ops->status(t->ctx);

	(void)args;
	(void)e;
	return json_pack("{s:s,s:b,s:b}", "status", vm_status_name(status), "singlestep", 0,
			 "running", status == VM_RUNNING);
}

static json_t *cmd_query_kvm(const struct qmp_target *t, json_t *args, struct err *e)
{
	(void)t;
	(void)args;
	(void)e;
	return json_pack("{s:b,s:b}", "enabled", 1, "present", 1);
}

static json_t *cmd_query_cpus_fast(const struct qmp_target *t, json_t *args, struct err *e)
{
	json_t *list = json_array();
	uint32_t nr = t->ops->nr_cpus(t->ctx);

	(void)args;
	(void)e;
	for (uint32_t i = 0; i < nr; i++)
		json_array_append_new(
			list,
			json_pack("{s:I,s:I,s:o,s:s,s:{s:I,s:i,s:i}}", "cpu-index", (json_int_t)i,
				  "thread-id", (json_int_t)t->ops->cpu_tid(t->ctx, i), "qom-path",
				  json_sprintf("/machine/cpu[%u]", i), "target", "x86_64", "props",
				  "socket-id", (json_int_t)i, "core-id", 0, "thread-id", 0));
	return list;
}

static json_t *cmd_stop(const struct qmp_target *t, json_t *args, struct err *e)
{
	(void)args;
	return done_or_null(t->ops->stop(t->ctx, e));
}

static json_t *cmd_cont(const struct qmp_target *t, json_t *args, struct err *e)
{
	bool force = json_is_true(json_object_get(args, "x-godwit-force"));

	return done_or_null(t->ops->cont(t->ctx, force, e));
}

static json_t *cmd_quit(const struct qmp_target *t, json_t *args, struct err *e)
{
	(void)args;
	(void)e;
	t->ops->quit(t->ctx);
	return json_object();
}

static json_t *cmd_system_reset(const struct qmp_target *t, json_t *args, struct err *e)
{
	(void)args;
	return done_or_null(t->ops->reset(t->ctx, e));
}

static json_t *cmd_system_powerdown(const struct qmp_target *t, json_t *args, struct err *e)
{
	(void)args;
	return done_or_null(t->ops->powerdown(t->ctx, e));
}

/* Its arguments are the announce- parameters, and those not given are as set there. */
static json_t *cmd_announce_self(const struct qmp_target *t, json_t *args, struct err *e)
{
	struct migration_settings settings = *t->ops->settings(t->ctx);
	json_t *parameters = json_object();
	const char *name;
	json_t *value;
	char text[32];
	int ret;

	json_object_foreach(args, name, value)
	{
		snprintf(text, sizeof(text), "announce-%s", name);
		json_object_set(parameters, text, value);
	}
	ret = qmp_parameters_set(&settings, parameters, e);
	json_decref(parameters);
	if (!ret)
		ret = t->ops->announce(t->ctx, &settings.params.announce, e);
	return done_or_null(ret);
}

static json_t *cmd_balloon(const struct qmp_target *t, json_t *args, struct err *e)
{
	json_int_t bytes = json_integer_value(json_object_get(args, "value"));

	if (bytes <= 0) {
		err_set(e, ERR_USAGE, EINVAL, "Parameter 'value' expects a size");
		return NULL;
	}
	return done_or_null(t->ops->balloon_set(t->ctx, (uint64_t)bytes, e));
}

/* QEMU's member is `actual`; the statistics, which it hides in a QOM property, are ours to show. */
static json_t *cmd_query_balloon(const struct qmp_target *t, json_t *args, struct err *e)
{
	struct balloon_stats stats;
	uint64_t bytes;
	json_t *said;

	(void)args;
	if (t->ops->balloon_query(t->ctx, &bytes, &stats, e) < 0)
		return NULL;
	said = json_object();
	for (uint32_t i = 0; i < BALLOON_NR_STATS; i++)
		if (stats.value[i] != UINT64_MAX)
			json_object_set_new(said, balloon_stat_name(i),
					    json_integer((json_int_t)stats.value[i]));
	return json_pack("{s:I,s:o}", "actual", (json_int_t)bytes, "x-godwit-stats", said);
}

static json_t *cmd_guest_memory(const struct qmp_target *t, json_t *args, struct err *e)
{
	struct guest_memory_view view = {.fd = -1};
	json_t *slots;

	(void)args;
	if (t->ops->guest_memory(t->ctx, &view, e) < 0)
		return NULL;
	slots = json_array();
	for (uint32_t i = 0; i < view.nr_slots; i++)
		json_array_append_new(slots, json_pack("{s:I,s:I,s:I}", "slot",
						       (json_int_t)view.slots[i].index, "gpa",
						       (json_int_t)view.slots[i].gpa, "bytes",
						       (json_int_t)view.slots[i].bytes));
	return json_pack("{s:i,s:i,s:I,s:o}", "pid", (int)view.pid, "fd", view.fd, "report-gpa",
			 (json_int_t)view.report_gpa, "slots", slots);
}

static json_t *cmd_guest_blackout(const struct qmp_target *t, json_t *args, struct err *e)
{
	struct guest_blackout blackout = {.present = false};

	(void)args;
	if (t->ops->guest_blackout(t->ctx, &blackout, e) < 0)
		return NULL;
	return json_pack("{s:b,s:I,s:I}", "present", blackout.present, "gap_ns",
			 (json_int_t)blackout.gap_ns, "precopy_max_ns",
			 (json_int_t)blackout.precopy_max_ns);
}

static json_t *cmd_host_notes(const struct qmp_target *t, json_t *args, struct err *e)
{
	(void)args;
	(void)e;
	return json_pack("{s:s}", "notes", t->ops->host_notes(t->ctx));
}

static json_t *nested_to_json(uint32_t cpu, const struct nested_view *v)
{
	char text[200];
	json_t *j;

	nested_view_text(v, text, sizeof(text));
	j = json_pack("{s:I,s:s,s:b,s:b,s:b,s:b,s:s}", "cpu-index", (json_int_t)cpu, "vendor",
		      nested_vendor_name(v->vendor), "in-l2", v->in_l2, "entry-pending",
		      v->run_pending, "step-pending", v->step_pending, "gif", v->gif, "text", text);
	if (v->vendor != NESTED_NONE && v->control_gpa != NESTED_NO_GPA)
		json_object_set_new(j, "control-gpa", json_integer((json_int_t)v->control_gpa));
	if (v->in_l2) {
		json_object_set_new(j, "nested-paging", json_boolean(v->nested_paging));
		json_object_set_new(j, "l1-rip", json_integer((json_int_t)v->l1_rip));
	}
	return j;
}

static json_t *cmd_nested(const struct qmp_target *t, json_t *args, struct err *e)
{
	struct nested_view views[VM_MAX_CPUS];
	json_t *list;

	(void)args;
	if (t->ops->nested_views(t->ctx, views, e) < 0)
		return NULL;
	list = json_array();
	for (uint32_t i = 0; i < t->ops->nr_cpus(t->ctx); i++)
		json_array_append_new(list, nested_to_json(i, &views[i]));
	return list;
}

static const struct qmp_arg announce_args[] = {{"initial", QMP_INT, true},
					       {"max", QMP_INT, true},
					       {"rounds", QMP_INT, true},
					       {"step", QMP_INT, true},
					       {NULL, QMP_INT, true}};

static const struct qmp_arg balloon_args[] = {{"value", QMP_INT, false}, {NULL, QMP_INT, true}};

static const struct qmp_arg cont_args[] = {{"x-godwit-force", QMP_BOOL, true},
					   {NULL, QMP_INT, true}};

const struct qmp_command qmp_machine_commands[] = {
	{"query-version", cmd_query_version, NULL},
	{"query-commands", cmd_query_commands, NULL},
	{"query-status", cmd_query_status, NULL},
	{"query-kvm", cmd_query_kvm, NULL},
	{"query-cpus-fast", cmd_query_cpus_fast, NULL},
	{"stop", cmd_stop, NULL},
	{"cont", cmd_cont, cont_args},
	{"quit", cmd_quit, NULL},
	{"system_reset", cmd_system_reset, NULL},
	{"system_powerdown", cmd_system_powerdown, NULL},
	{"announce-self", cmd_announce_self, announce_args},
	{"balloon", cmd_balloon, balloon_args},
	{"query-balloon", cmd_query_balloon, NULL},
	{"x-godwit-guest-memory", cmd_guest_memory, NULL},
	{"x-godwit-guest-blackout", cmd_guest_blackout, NULL},
	{"x-godwit-host-notes", cmd_host_notes, NULL},
	{"x-godwit-nested", cmd_nested, NULL},
	{NULL, NULL, NULL},
};
