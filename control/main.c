#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/command.h"
#include "control/suggest.h"

static const struct command commands[] = {
	{"run", "boot a guest, or wait for one to arrive", cmd_run},
	{"receive", "take one guest from another godwit and run it", cmd_receive},
	{"migrate", "move a running guest to another godwit", cmd_migrate},
	{"ctl", "send one QMP command to a running guest's VMM", cmd_ctl},
	{"nested", "guests that are hypervisors: probe, soak, bench, view", cmd_nested},
	{"doctor", "what this host can do, and how to get what it lacks", cmd_doctor},
};

#define NR_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_usage(FILE *out)
{
	fputs("godwit runs virtual machines on KVM and moves them between hosts while they run.\n\n"
	      "usage: godwit COMMAND [OPTION]...\n\n",
	      out);
	for (size_t i = 0; i < NR_COMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
	fputs("\n"
	      "'godwit help COMMAND' explains one; 'godwit --version' prints the version.\n"
	      "\n"
	      "Sizes take K, M, G, T; times ns, us, ms, s; rates Mbps, Gbps, MB/s.\n"
	      "GODWIT_LOG=error|warning|info|debug sets how much is said on standard error.\n"
	      "\n"
	      "Exit status: 0 done, 1 failed, 2 wrong usage, 3 the migration failed and the guest\n"
	      "is still at the source, 4 cancelled, 5 the outcome of a migration is unknown.\n",
	      out);
}

static int unknown_command(const char *name)
{
	const char *nearest =
		suggest_name(name, &commands[0].name, NR_COMMANDS, sizeof(commands[0]));
	struct err e = ERR_INIT;

	if (nearest)
		err_set(&e, ERR_USAGE, EINVAL, "there is no command '%s'; did you mean '%s'?", name,
			nearest);
	else
		err_set(&e, ERR_USAGE, EINVAL, "there is no command '%s'; see 'godwit --help'",
			name);
	return command_fail(&e);
}

static int dispatch(int argc, char **argv)
{
	if (argc < 2) {
		print_usage(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "help") && argc > 2)
		command_turn_help(argc, argv);
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		print_usage(stdout);
		return EXIT_OK;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("godwit " GODWIT_VERSION);
		return EXIT_OK;
	}
	for (size_t i = 0; i < NR_COMMANDS; i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	return unknown_command(argv[1]);
}

/* A reader who has gone away (head(1)) has read enough. */
static bool reader_has_gone(void)
{
	struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};

	return poll(&out, 1, 0) > 0 && out.revents & POLLERR;
}

/* What was to be printed is what most commands are for: a full disk is no success. */
static int conclude(int status)
{
	struct err e = ERR_INIT;

	fflush(stdout);
	if (status != EXIT_OK || !ferror(stdout) || reader_has_gone())
		return status;
	err_set(&e, ERR_SYS, EIO,
		"standard output cannot be written: what was to be said there is not whole; all "
		"else is done");
	return command_fail(&e);
}

int main(int argc, char **argv)
{
	/* A peer that goes away is an error from write(2), never the end of the process. */
	signal(SIGPIPE, SIG_IGN);
	return conclude(dispatch(argc, argv));
}
