#include "control/qmp_dispatch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/json_text.h"

static const struct qmp_command *const tables[] = {qmp_machine_commands, qmp_migrate_commands};

const struct qmp_command *qmp_command_at(size_t n)
{
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct qmp_command *c = tables[t]; c->name; c++)
			if (n-- == 0)
				return c;
	return NULL;
}

static const struct qmp_command *find(const char *name)
{
	const struct qmp_command *c;

	for (size_t n = 0; (c = qmp_command_at(n)); n++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

json_t *qmp_version(void)
{
	int major = 0;
	int minor = 0;
	int micro = 0;

	/* NOLINTNEXTLINE(cert-err34-c): our own string */
	sscanf(GODWIT_VERSION, "%d.%d.%d", &major, &minor, &micro);
	return json_pack("{s:{s:i,s:i,s:i},s:s}", "qemu", "major", major, "minor", minor, "micro",
			 micro, "package", "godwit " GODWIT_VERSION);
}

json_t *qmp_greeting(void)
{
	return json_pack("{s:{s:o,s:[]}}", "QMP", "version", qmp_version(), "capabilities");
}

static json_t *failure(const char *class, const char *desc)
{
	return json_pack("{s:{s:s,s:o}}", "error", "class", class, "desc", json_text(desc));
}

static json_t *failure_of(const struct err *e)
{
	return failure("GenericError", e->msg);
}

static int check_envelope(json_t *request, struct err *e)
{
	const char *key;
	json_t *value;

	if (!json_is_object(request))
		return err_set(e, ERR_USAGE, EINVAL, "QMP input must be a JSON object");
	json_object_foreach(request, key, value)
	{
		if (!strcmp(key, "id"))
			continue;
		if (strcmp(key, "execute") && strcmp(key, "arguments"))
			return err_set(e, ERR_USAGE, EINVAL,
				       "QMP input member '%.100s' is unexpected", key);
		if (!strcmp(key, "execute") && !json_is_string(value))
			return err_set(e, ERR_USAGE, EINVAL,
				       "QMP input member 'execute' must be a string");
		if (!strcmp(key, "arguments") && !json_is_object(value))
			return err_set(e, ERR_USAGE, EINVAL,
				       "QMP input member 'arguments' must be an object");
	}
	if (!json_object_get(request, "execute"))
		return err_set(e, ERR_USAGE, EINVAL, "QMP input lacks member 'execute'");
	return 0;
}

static json_t *run(const struct qmp_target *target, const struct qmp_command *command, json_t *args,
		   struct err *e)
{
	json_t *result;

	if (qmp_args_check(command->args, args, "", e) < 0)
		return failure_of(e);
	result = command->run(target, args, e);
	if (!result && e->kind == ERR_NONE)
		err_set(e, ERR_SYS, ENOMEM, "out of memory");
	return result ? json_pack("{s:o}", "return", result) : failure_of(e);
}

/* qmp_capabilities is a command of the connection, not of the machine: it never reaches a table. */
static json_t *negotiate(struct qmp_peer *peer, json_t *args, struct err *e)
{
	static const struct qmp_arg known[] = {{"enable", QMP_ARRAY, true}, {NULL, QMP_INT, true}};
	json_t *enable;

	if (peer->negotiated)
		return failure("CommandNotFound", "Capabilities negotiation is already complete, "
						  "command ignored");
	if (qmp_args_check(known, args, "", e) < 0)
		return failure_of(e);
	enable = json_object_get(args, "enable");
	if (json_array_size(enable))
		return failure("GenericError", "Capability is not available: none is offered");
	peer->negotiated = true;
	return json_pack("{s:{}}", "return");
}

static json_t *execute(const struct qmp_target *target, struct qmp_peer *peer, const char *name,
		       json_t *args)
{
	const struct qmp_command *command = find(name);
	struct err e = ERR_INIT;

	if (!strcmp(name, "qmp_capabilities"))
		return negotiate(peer, args, &e);
	if (!peer->negotiated)
		return failure("CommandNotFound",
			       "Expecting capabilities negotiation with 'qmp_capabilities'");
	if (!command) {
		err_set(&e, ERR_USAGE, ENOENT, "The command %.200s has not been found", name);
		return failure("CommandNotFound", e.msg);
	}
	return run(target, command, args, &e);
}

static json_t *answer_request(const struct qmp_target *target, struct qmp_peer *peer,
			      json_t *request)
{
	struct err e = ERR_INIT;

	if (check_envelope(request, &e) < 0)
		return failure_of(&e);
	return execute(target, peer, json_string_value(json_object_get(request, "execute")),
		       json_object_get(request, "arguments"));
}

json_t *qmp_answer(const struct qmp_target *target, struct qmp_peer *peer, const char *text,
		   size_t len)
{
	json_error_t bad;
	json_t *request;
	json_t *answer;
	json_t *id;

	if (!text)
		return failure("GenericError",
			       "JSON parse error, the message is longer than 1 MiB");
	request = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &bad);
	if (!request) {
		struct err e = ERR_INIT;

		err_set(&e, ERR_USAGE, EINVAL, "JSON parse error, %s", bad.text);
		return failure_of(&e);
	}
	answer = answer_request(target, peer, request);
	id = json_object_get(request, "id");
	if (answer && id)
		json_object_set(answer, "id", id);
	json_decref(request);
	return answer;
}
