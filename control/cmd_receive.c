/* godwit receive: take one guest and run it here, or stay and take many. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/command.h"
#include "control/fold.h"
#include "control/machine_options.h"
#include "control/numbered.h"
#include "control/options.h"
#include "control/report_json.h"
#include "control/report_text.h"
#include "control/service.h"
#include "control/session.h"
#include "vmm/base/units.h"

struct receive_options {
	struct machine_options machine;
	uint64_t keep; /* guests at once; 0: one guest, in this process */
	bool json;
};

#define MACHINE(m) MACHINE_OFFSET(struct receive_options, m)

static const struct option_spec specs[] = {
	{"serial", "WHERE",
	 "the guest's serial port here: null (default), stdio, pty,\n"
	 "file:PATH, unix:PATH",
	 OPTION_STRING, MACHINE(serial), 0, 0},
	{"console", "WHERE", "the guest's virtio console here; as --serial", OPTION_STRING,
	 MACHINE(console), 0, 0},
	{"disk", "PATH",
	 "where the guest's first disk is here, repeated for the others:\n"
	 "the image it uses, if both hosts see that; for a disk that is\n"
	 "copied, a new file or one to overwrite. PATH[,lock=off]",
	 OPTION_LIST, MACHINE(disks), 0, 0},
	{"net", "tap:IF",
	 "the tap of the guest's first network card here, repeated for\n"
	 "the others; default: the names they had at the source",
	 OPTION_LIST, MACHINE(nets), 0, 0},
	{"qmp", "unix:PATH", "control socket of the guest; with ,server=off connect out",
	 OPTION_STRING, MACHINE(qmp), 0, 0},
	{"dirty", "TRACKER",
	 "dirty page tracker for when the guest moves on: bitmap\n"
	 "(default) or clear-log",
	 OPTION_STRING, MACHINE(tracker), 0, 0},
	RDMA_OPTIONS(MACHINE(rdma)),
	{"keep", "N",
	 "stay and take guests one after another or at once, at most N\n"
	 "(1 to 64) at a time, each in a process of its own. %n in the\n"
	 "options above is then the guest's number from 1 to N",
	 OPTION_COUNT, offsetof(struct receive_options, keep), 1, SERVICE_MAX_GUESTS},
	{"json", NULL,
	 "print one JSON object per line: where it listens, and the\n"
	 "report of the migration",
	 OPTION_FLAG, offsetof(struct receive_options, json), 0, 0},
};

static const char *const positional[] = {"URI", NULL};

static const struct syntax syntax = {
	.command = "receive",
	.synopsis = "URI [OPTION]...",
	.about =
		"Listen at URI (tcp:HOST:PORT, rdma:HOST:PORT, unix:PATH; port 0 picks one) for a\n"
		"guest that 'godwit migrate' sends, and run it until it ends. What the machine is "
		"made of\n"
		"comes with it, and so does what it boots when it resets. Without a HOST, only\n"
		"this host can connect. With --keep, for any number of guests.",
	.options = specs,
	.nr_options = sizeof(specs) / sizeof(specs[0]),
	.positional = positional,
	.epilogue =
		"Exit status: 0 the guest ran here and ended, 1 an error, 2 wrong usage, 3 the\n"
		"migration failed and the guest is not here, 4 it was cancelled. With --keep: 0\n"
		"ended by a signal (the first waits for the guests, the second leaves them "
		"running).\n"
		"\n"
		"Examples:\n"
		"  godwit receive tcp:0.0.0.0:4444 --qmp unix:/tmp/vm.qmp\n"
		"  godwit receive tcp:0.0.0.0:4444 --keep 8 --qmp unix:/tmp/vm-%n.qmp --net "
		"tap:tap%n",
};

struct receive {
	bool json;
	struct progress progress;
};

static void print_json(json_t *json)
{
	json_dumpf(json, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(json);
}

static void on_listening(void *ctx, const char *address)
{
	struct receive *r = ctx;

	if (r->json) {
		print_json(json_pack("{s:s,s:s}", "event", "listening", "address", address));
		return;
	}
	printf("waiting for a guest at %s\n", address);
	fflush(stdout);
}

static void on_progress(void *ctx, const struct migration_report *report)
{
	struct receive *r = ctx;

	if (report->status == MIGRATION_ACTIVE || report->status == MIGRATION_DEVICE)
		progress_show(&r->progress, report, true);
}

static void on_received(void *ctx, const struct migration_report *report, const char *notes)
{
	struct receive *r = ctx;

	progress_clear(&r->progress);
	if (r->json) {
		json_t *json = report_to_json(report);

		json_object_set_new(json, "event", json_string("received"));
		if (notes[0])
			json_object_set_new(json, "host_notes", json_string(notes));
		print_json(json);
		return;
	}
	if (report->status != MIGRATION_COMPLETED)
		return; /* the error line says it all */
	report_print(stdout, report, true);
	if (notes[0]) {
		fputs("  note: ", stdout);
		fold_print(stdout, notes, 8);
	}
	fflush(stdout);
}

/* What several guests cannot share has to have their number in it. */
static int check_pattern(const char *option, const char *pattern, bool shared, struct err *e)
{
	bool has_number;

	if (!pattern)
		return 0;
	if (numbered_check(pattern, &has_number, e) < 0)
		return err_prefix(e, "--%s", option);
	if (has_number || !shared)
		return 0;
	return err_set(e, ERR_USAGE, EINVAL,
		       "--%s: several guests cannot share '%.200s': write %%n where their number "
		       "is to be",
		       option, pattern);
}

static int check_list(const char *option, const struct option_list *list, bool shared,
		      struct err *e)
{
	for (size_t i = 0; i < list->nr; i++)
		if (check_pattern(option, list->at[i], shared, e) < 0)
			return -e->code;
	return 0;
}

static int check_for_many(const struct receive_options *o, struct err *e)
{
	bool several = o->keep > 1;
	const char *serial = o->machine.serial;

	if (!strcmp(serial, "stdio"))
		return err_set(e, ERR_USAGE, EINVAL,
			       "--serial stdio: with --keep no guest has the terminal; use "
			       "unix:PATH, file:PATH, pty or null");
	if (check_pattern("serial", serial, several && strchr(serial, ':'), e) < 0 ||
	    check_pattern("qmp", o->machine.qmp, several, e) < 0 ||
	    check_list("disk", &o->machine.disks, several, e) < 0 ||
	    check_list("net", &o->machine.nets, several, e) < 0)
		return -e->code;
	return 0;
}

/* Everything but where to listen and for how many is the guests' business. */
static size_t pick_options(int argc, char **argv, const char *uri, const char **out)
{
	size_t nr = 0;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--keep"))
			i++;
		else if (argv[i] != uri && strncmp(argv[i], "--keep=", 7) && strcmp(argv[i], "--"))
			out[nr++] = argv[i];
	}
	return nr;
}

static int serve(const struct receive_options *o, int argc, char **argv, const char *uri)
{
	const char **options = (const char **)calloc((size_t)argc, sizeof(*options));
	struct service_config config = {
		.uri = uri, .max_guests = (uint32_t)o->keep, .options = options, .json = o->json};
	struct session_config checked = {.qmp = NULL};
	struct err e = ERR_INIT;
	int status;

	if (!options)
		return EXIT_FAILED;
	config.nr_options = pick_options(argc, argv, uri, options);
	status = check_for_many(o, &e);
	if (!status)
		status = machine_options_apply(&o->machine, true, &checked, &e);
	if (!status)
		status = service_run(&config, &e);
	free((void *)options);
	return status < 0 ? command_fail(&e) : status;
}

/* "fd:N@ADDRESS": the service that listens at ADDRESS hands connections over by descriptor N. */
static int parse_place(const char *text, struct session_config *config, struct err *e)
{
	const char *at = strchr(text, '@');
	char number[16];
	uint64_t fd;

	config->incoming = text;
	if (strncmp(text, "fd:", 3))
		return 0;
	if (!at || (size_t)(at - text) >= sizeof(number))
		return err_set(e, ERR_USAGE, EINVAL, "'%.200s' is not fd:N@ADDRESS", text);
	memcpy(number, text + 3, (size_t)(at - text) - 3);
	number[at - text - 3] = '\0';
	if (units_parse_u64(number, 3, 65535, &fd, e) < 0)
		return err_prefix(e, "%.200s", text);
	config->handed_fd = (int)fd;
	config->incoming = at + 1;
	config->observer.on_listening = NULL; /* the service has said so */
	return 0;
}

static int receive_one(const struct receive_options *o, const char *place)
{
	struct receive r = {.json = o->json};
	struct session_config config = {
		.observer = {on_listening, on_progress, on_received, &r},
	};
	struct session *session;
	struct err e = ERR_INIT;
	int status;

	progress_init(&r.progress);
	if (parse_place(place, &config, &e) < 0 ||
	    machine_options_apply(&o->machine, true, &config, &e) < 0 ||
	    session_new(&config, &session, &e) < 0)
		return command_fail(&e);
	status = session_run(session);
	progress_clear(&r.progress);
	session_free(session);
	return status;
}

int cmd_receive(int argc, char **argv)
{
	struct receive_options o = {.machine = {.serial = "null"}};
	struct positionals positionals;
	int status = options_parse_or_exit(&syntax, argc, argv, &o, &positionals);

	if (status >= 0)
		return status;
	return o.keep ? serve(&o, argc, argv, positionals.at[0])
		      : receive_one(&o, positionals.at[0]);
}
