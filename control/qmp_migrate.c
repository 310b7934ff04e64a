/* QMP commands about migration. Names, members and errors are QEMU's where it has them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/json_text.h"
#include "control/qmp_dispatch.h"
#include "control/qmp_settings.h"
#include "control/report_json.h"
#include "vmm/base/uri.h"

static json_t *done_or_null(int ret)
{
	return ret < 0 ? NULL : json_object();
}

static int refuse_while_active(const struct qmp_target *t, struct err *e)
{
	if (!t->ops->migrate_active(t->ctx))
		return 0;
	return err_set(e, ERR_STATE, EBUSY,
		       "There's a migration process in progress: wait for its end or cancel it");
}

static json_t *cmd_migrate(const struct qmp_target *t, json_t *args, struct err *e)
{
	const char *uri = json_string_value(json_object_get(args, "uri"));

	return done_or_null(t->ops->migrate(t->ctx, uri, e));
}

static json_t *cmd_migrate_incoming(const struct qmp_target *t, json_t *args, struct err *e)
{
	const char *uri = json_string_value(json_object_get(args, "uri"));

	return done_or_null(t->ops->migrate_incoming(t->ctx, uri, e));
}

static json_t *cmd_migrate_cancel(const struct qmp_target *t, json_t *args, struct err *e)
{
	(void)args;
	(void)e;
	t->ops->migrate_cancel(t->ctx);
	return json_object();
}

/* QEMU's SocketAddress. */
static json_t *socket_address(const char *text)
{
	struct err ignored = ERR_INIT;
	struct uri uri;

	if (uri_parse(text, &uri, &ignored) < 0)
		return json_array();
	if (uri.scheme == URI_UNIX)
		return json_pack("[{s:s,s:o}]", "type", "unix", "path", json_text(uri.path));
	return json_pack("[{s:s,s:o,s:o}]", "type", "inet", "host", json_text(uri.host), "port",
			 json_text(uri.port));
}

static json_t *cmd_query_migrate(const struct qmp_target *t, json_t *args, struct err *e)
{
	const char *address = t->ops->listen_address(t->ctx);
	struct migration_report *report = calloc(1, sizeof(*report));
	json_t *info;

	(void)args;
	(void)e;
	if (!report)
		return NULL;
	if (t->ops->migrate_report(t->ctx, report)) {
		info = report_to_migration_info(report);
		json_object_set_new(info, "x-godwit", report_to_json(report));
	} else {
		info = json_object();
	}
	if (address)
		json_object_set_new(info, "socket-address", socket_address(address));
	free(report);
	return info;
}

static json_t *cmd_query_capabilities(const struct qmp_target *t, json_t *args, struct err *e)
{
	(void)args;
	(void)e;
	return qmp_capabilities_to_json(t->ops->settings(t->ctx));
}

static json_t *cmd_set_capabilities(const struct qmp_target *t, json_t *args, struct err *e)
{
	if (refuse_while_active(t, e) < 0)
		return NULL;
	return done_or_null(qmp_capabilities_set(t->ops->settings(t->ctx),
						 json_object_get(args, "capabilities"), e));
}

static json_t *cmd_query_parameters(const struct qmp_target *t, json_t *args, struct err *e)
{
	(void)args;
	(void)e;
	return qmp_parameters_to_json(t->ops->settings(t->ctx));
}

static json_t *cmd_set_parameters(const struct qmp_target *t, json_t *args, struct err *e)
{
	if (refuse_while_active(t, e) < 0)
		return NULL;
	return done_or_null(qmp_parameters_set(t->ops->settings(t->ctx), args, e));
}

static const struct qmp_arg uri_args[] = {{"uri", QMP_STRING, false}, {NULL, QMP_INT, true}};

/* "detach" is accepted and means nothing, as in QEMU: the command never waits. */
static const struct qmp_arg migrate_args[] = {
	{"uri", QMP_STRING, false}, {"detach", QMP_BOOL, true}, {NULL, QMP_INT, true}};

static const struct qmp_arg capabilities_args[] = {{"capabilities", QMP_ARRAY, false},
						   {NULL, QMP_INT, true}};

const struct qmp_command qmp_migrate_commands[] = {
	{"migrate", cmd_migrate, migrate_args},
	{"migrate-incoming", cmd_migrate_incoming, uri_args},
	{"migrate_cancel", cmd_migrate_cancel, NULL},
	{"query-migrate", cmd_query_migrate, NULL},
	{"migrate-set-capabilities", cmd_set_capabilities, capabilities_args},
	{"query-migrate-capabilities", cmd_query_capabilities, NULL},
	{"migrate-set-parameters", cmd_set_parameters, qmp_parameter_args},
	{"query-migrate-parameters", cmd_query_parameters, NULL},
	{NULL, NULL, NULL},
};
