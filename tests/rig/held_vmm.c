/*
 * godwit-held POINTS FD[:FD] [OPTION]...
 *
 * The VMM of `godwit run` and `godwit receive` (control/session.h), which stops at the fault points
 * in POINTS (comma separated): its migration thread writes the point's name and a newline to the
 * first FD and goes on when it reads a byte from the last, or its end. So a test can kill, stop or
 * cancel a migration in a step of its choice, without a clock. POINTS may be @FILE: looked up there
 * each time, if the file exists.
 *
 * The options are those of `godwit run` that tests need; --incoming makes it a `godwit receive`.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "control/command.h"
#include "control/machine_options.h"
#include "control/options.h"
#include "control/session.h"

struct held_options {
	struct machine_options machine;
	const char *incoming;
};

#define MACHINE(m) MACHINE_OFFSET(struct held_options, m)

static const struct option_spec specs[] = {
	{"kernel", "FILE", "", OPTION_STRING, MACHINE(kernel), 0, 0},
	{"initrd", "FILE", "", OPTION_STRING, MACHINE(initrd), 0, 0},
	{"append", "TEXT", "", OPTION_STRING, MACHINE(append), 0, 0},
	{"memory", "SIZE", "", OPTION_BYTES, MACHINE(memory_bytes), 0, 0},
	{"serial", "WHERE", "", OPTION_STRING, MACHINE(serial), 0, 0},
	{"disk", "PATH", "", OPTION_LIST, MACHINE(disks), 0, 0},
	{"net", "tap:IF", "", OPTION_LIST, MACHINE(nets), 0, 0},
	{"qmp", "unix:PATH", "", OPTION_STRING, MACHINE(qmp), 0, 0},
	{"incoming", "URI", "", OPTION_STRING, offsetof(struct held_options, incoming), 0, 0},
};

static const char *const positional[] = {"POINTS", "FD", NULL};

static const struct syntax syntax = {
	.command = "held",
	.synopsis = "POINTS FD[:FD] [OPTION]...",
	.about = "A VMM that stops at fault points: see tests/rig/held_vmm.c.",
	.options = specs,
	.nr_options = sizeof(specs) / sizeof(specs[0]),
	.positional = positional,
};

struct hold {
	const char *points; /* or, after an @, the file that has them */
	int out;
	int in;
};

static bool lists(const char *points, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = points; (at = strstr(at, name)); at += len)
		if ((at == points || at[-1] == ',') && (at[len] == ',' || !at[len]))
			return true;
	return false;
}

static bool wanted(const char *points, const char *name)
{
	char text[256] = "";
	FILE *f;

	if (*points != '@')
		return lists(points, name);
	f = fopen(points + 1, "re");
	if (f && fgets(text, sizeof(text), f))
		text[strcspn(text, "\n")] = '\0';
	if (f)
		fclose(f);
	return lists(text, name);
}

static void hold(void *ctx, const char *name)
{
	const struct hold *h = ctx;
	char line[64];
	char go;
	int len = snprintf(line, sizeof(line), "%s\n", name);

	if (wanted(h->points, name) && write(h->out, line, (size_t)len) == len &&
	    read(h->in, &go, 1) < 0)
		perror("godwit-held: waiting to be let go");
}

static void on_listening(void *ctx, const char *address)
{
	(void)ctx;
	printf("waiting for a guest at %s\n", address);
	fflush(stdout);
}

static int serve(const struct session_config *config)
{
	struct session *session;
	struct err e = ERR_INIT;
	int status;

	if (session_new(config, &session, &e) < 0)
		return command_fail(&e);
	status = session_run(session);
	session_free(session);
	return status;
}

int main(int argc, char **argv)
{
	struct held_options o = {.machine = {.serial = "null", .nr_cpus = 1}};
	struct session_config config = {.observer = {.on_listening = on_listening}};
	struct positionals words;
	struct err e = ERR_INIT;
	struct hold h;
	int status = options_parse_or_exit(&syntax, argc, argv, &o, &words);

	if (status >= 0)
		return status;
	signal(SIGPIPE, SIG_IGN);
	h = (struct hold){.points = words.at[0], .out = atoi(words.at[1])};
	h.in = strchr(words.at[1], ':') ? atoi(strchr(words.at[1], ':') + 1) : h.out;
	config.incoming = o.incoming;
	if (o.incoming)
		o.machine.nr_cpus = 0; /* the stream says */
	if (machine_options_apply(&o.machine, o.incoming, &config, &e) < 0 ||
	    fault_new(&config.fault, &e) < 0)
		return command_fail(&e);
	fault_observe(config.fault, hold, &h);
	status = serve(&config);
	fault_free(config.fault);
	return status;
}
