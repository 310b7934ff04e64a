/* godwit receive: take one guest and run it here. */
#include <stdio.h>

#include "control/command.h"
#include "control/fold.h"
#include "control/machine_options.h"
#include "control/options.h"
#include "control/report_json.h"
#include "control/report_text.h"
#include "control/session.h"

struct receive_options {
	struct machine_options machine;
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
		"this host can connect.",
	.options = specs,
	.nr_options = sizeof(specs) / sizeof(specs[0]),
	.positional = positional,
	.epilogue =
		"Exit status: 0 the guest ran here and ended, 1 an error, 2 wrong usage, 3 the\n"
		"migration failed and the guest is not here, 4 it was cancelled.\n"
		"\n"
		"Example:\n"
		"  godwit receive tcp:0.0.0.0:4444 --qmp unix:/tmp/vm.qmp",
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

int cmd_receive(int argc, char **argv)
{
	struct receive_options o = {.machine = {.serial = "null"}};
	struct receive r = {.json = false};
	struct session_config config = {
		.observer = {on_listening, on_progress, on_received, &r},
	};
	struct positionals positionals;
	struct session *session;
	struct err e = ERR_INIT;
	int status = options_parse_or_exit(&syntax, argc, argv, &o, &positionals);

	if (status >= 0)
		return status;
	r.json = o.json;
	progress_init(&r.progress);
	config.incoming = positionals.at[0];
	if (machine_options_apply(&o.machine, true, &config, &e) < 0 ||
	    session_new(&config, &session, &e) < 0)
		return command_fail(&e);
	status = session_run(session);
	progress_clear(&r.progress);
	session_free(session);
	return status;
}
