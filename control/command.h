/*
 * The commands of the program: each is one function in one cmd_*.c, called from main()'s table with
 * its own name in argv[0]. Its result is the exit status.
 */
#pragma once

#include "vmm/base/err.h"

/* Scripts rely on these; docs/cli.md and `godwit --help` list them. */
enum exit_code {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_MIGRATION_FAILED = 3, /* the guest is where it was, as it was */
	EXIT_CANCELLED = 4,        /* the same, because somebody asked */
	EXIT_UNKNOWN = 5, /* nobody can tell from here where the guest runs: ask the other side */
};

struct command {
	const char *name;
	const char *summary;
	int (*run)(int argc, char **argv);
};

int cmd_run(int argc, char **argv);
int cmd_receive(int argc, char **argv);
int cmd_migrate(int argc, char **argv);
int cmd_ctl(int argc, char **argv);
int cmd_nested(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

/* "help X Y" becomes "X Y --help": argv[1] is the word help, and others follow it. */
void command_turn_help(int argc, char **argv);

/* Print "godwit: error: MESSAGE" once, at the top; returns the exit status for that kind of error.
 */
int command_fail(const struct err *e);
