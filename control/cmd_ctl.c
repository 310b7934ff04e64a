/* godwit ctl: one QMP command from the command line. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/command.h"
#include "control/options.h"
#include "control/qmp_client.h"
#include "control/suggest.h"

struct ctl_options {
	bool json;
};

static const struct option_spec specs[] = {
	{"json", NULL, "print the result on one line instead of indented", OPTION_FLAG,
	 offsetof(struct ctl_options, json), 0, 0},
};

static const char *const positional[] = {"QMP-SOCKET", NULL};

static const struct syntax syntax = {
	.command = "ctl",
	.synopsis = "QMP-SOCKET [COMMAND [NAME=VALUE]...]",
	.about = "Send one QMP command to the VMM behind QMP-SOCKET (a path or unix:PATH) and "
		 "print\n"
		 "its result. VALUE is JSON when it reads as JSON and a string otherwise. Without "
		 "a\n"
		 "command, list the commands.",
	.options = specs,
	.nr_options = sizeof(specs) / sizeof(specs[0]),
	.positional = positional,
	.more_positional = true,
	.epilogue = "Examples:\n"
		    "  godwit ctl /tmp/vm.qmp query-status\n"
		    "  godwit ctl /tmp/vm.qmp migrate-set-parameters downtime-limit=30\n"
		    "  godwit ctl /tmp/vm.qmp migrate uri=tcp:host-b:4444",
};

static json_t *parse_value(const char *text)
{
	json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);

	return value ? value : json_string(text);
}

static int add_argument(json_t *args, const char *word, struct err *e)
{
	size_t len = strcspn(word, "=");
	char name[64];

	if (!word[len] || !len || len >= sizeof(name))
		return err_set(e, ERR_USAGE, EINVAL,
			       "'%.100s' is not an argument; write NAME=VALUE", word);
	memcpy(name, word, len);
	name[len] = '\0';
	if (json_object_set_new(args, name, parse_value(word + len + 1)) < 0)
		return err_set(e, ERR_USAGE, EINVAL, "'%.100s' is not UTF-8", word);
	return 0;
}

static int list_commands(struct qmp_client *client, struct err *e)
{
	json_t *commands;
	json_t *command;
	size_t i;

	if (qmp_client_call(client, "query-commands", NULL, &commands, e) < 0)
		return command_fail(e);
	json_array_foreach(commands, i, command)
	{
		const char *name = json_string_value(json_object_get(command, "name"));

		puts(name ? name : "?");
	}
	json_decref(commands);
	return EXIT_OK;
}

/* The VMM's "has not been found" is more useful with the name that was meant. */
static void suggest_command(struct qmp_client *client, const char *wrong, struct err *e)
{
	struct err ignored = ERR_INIT;
	const char *names[256];
	size_t nr = 0;
	json_t *commands;
	json_t *command;
	const char *nearest;
	size_t i;

	if (!strstr(e->msg, "has not been found") ||
	    qmp_client_call(client, "query-commands", NULL, &commands, &ignored) < 0)
		return;
	json_array_foreach(commands, i, command)
	{
		const char *name = json_string_value(json_object_get(command, "name"));

		if (name && nr < 256)
			names[nr++] = name;
	}
	nearest = suggest_name(wrong, names, nr, sizeof(names[0]));
	if (nearest)
		err_set(e, ERR_USAGE, EINVAL, "there is no command %.100s; did you mean %.100s?",
			wrong, nearest);
	json_decref(commands);
}

static int call(struct qmp_client *client, const struct positionals *p, bool json, struct err *e)
{
	json_t *args = json_object();
	json_t *result;

	for (size_t i = 2; i < p->nr; i++) {
		if (add_argument(args, p->at[i], e) < 0) {
			json_decref(args);
			return command_fail(e);
		}
	}
	if (qmp_client_call(client, p->at[1], args, &result, e) < 0) {
		suggest_command(client, p->at[1], e);
		return command_fail(e);
	}
	json_dumpf(result, stdout, JSON_ENCODE_ANY | (json ? JSON_COMPACT : JSON_INDENT(2)));
	putchar('\n');
	json_decref(result);
	return EXIT_OK;
}

int cmd_ctl(int argc, char **argv)
{
	struct ctl_options o = {.json = false};
	struct qmp_client *client = NULL;
	struct positionals p;
	struct err e = ERR_INIT;
	int status = options_parse_or_exit(&syntax, argc, argv, &o, &p);

	if (status >= 0)
		return status;
	if (qmp_client_open(p.at[0], &client, &e) < 0)
		return command_fail(&e);
	status = p.nr > 1 ? call(client, &p, o.json, &e) : list_commands(client, &e);
	qmp_client_close(client);
	return status;
}
