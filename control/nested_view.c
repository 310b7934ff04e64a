/* godwit nested view: what a guest behind a QMP socket does as a hypervisor, at this moment. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "control/command.h"
#include "control/nested_commands.h"
#include "control/options.h"
#include "control/qmp_client.h"

struct view_options {
	bool json;
};

static const struct option_spec specs[] = {
	{"json", NULL, "print it as JSON", OPTION_FLAG, offsetof(struct view_options, json), 0, 0},
};

static const char *const positional[] = {"QMP-SOCKET", NULL};

static const struct syntax syntax = {
	.command = "nested view",
	.synopsis = "QMP-SOCKET [--json]",
	.about = "Say of each vCPU of the guest behind QMP-SOCKET whether it runs a guest of its "
		 "own (L2)\n"
		 "at this moment, where its control block (VMCB or VMCS) is, and what is about to "
		 "happen.\n"
		 "The guest is held for as long as it takes to look.",
	.options = specs,
	.nr_options = 1,
	.positional = positional,
};

static void print(json_t *views, bool json)
{
	json_t *view;
	size_t i;

	if (json) {
		json_dumpf(views, stdout, JSON_INDENT(2));
		putchar('\n');
		return;
	}
	json_array_foreach(views, i, view)
	{
		const char *text = json_string_value(json_object_get(view, "text"));

		printf("vCPU %-3zu %s\n", i, text ? text : "?");
	}
}

static int view(struct qmp_client *client, bool json, struct err *e)
{
	json_t *views;

	if (qmp_client_call(client, "x-godwit-nested", NULL, &views, e) < 0)
		return command_fail(e);
	print(views, json);
	json_decref(views);
	return EXIT_OK;
}

int nested_view_command(int argc, char **argv)
{
	struct view_options o = {.json = false};
	struct qmp_client *client = NULL;
	struct positionals p;
	struct err e = ERR_INIT;
	int status = options_parse_or_exit(&syntax, argc, argv, &o, &p);

	if (status >= 0)
		return status;
	if (qmp_client_open(p.at[0], &client, &e) < 0)
		return command_fail(&e);
	status = view(client, o.json, &e);
	qmp_client_close(client);
	return status;
}
