/*
 * Command line options from a table: parsing, errors with the nearest suggestion, and help text all
 * come from the same rows. Options are `--name value` or `--name=value`; flags take no value; `--`
 * ends them. Strings are borrowed from argv.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/err.h"

enum option_kind {
	OPTION_STRING, /* const char * */
	OPTION_LIST,   /* struct option_list: may be given several times */
	OPTION_FLAG,   /* bool */
	OPTION_BYTES,  /* uint64_t, units_parse_bytes */
	OPTION_NS,     /* uint64_t, units_parse_ns */
	OPTION_RATE,   /* uint64_t bytes/s, units_parse_rate */
	OPTION_COUNT,  /* uint64_t from min to max */
};

#define OPTION_MAX_LIST 16

struct option_list {
	size_t nr;
	const char *at[OPTION_MAX_LIST];
};

struct option_spec {
	const char *name;  /* without the dashes */
	const char *value; /* how help calls the value; NULL for flags */
	const char *help;  /* may have several lines */
	enum option_kind kind;
	size_t offset; /* of the member in the target struct */
	uint64_t min;  /* OPTION_COUNT */
	uint64_t max;
};

#define OPTION_MAX_POSITIONAL 32

struct syntax {
	const char *command;  /* "run" */
	const char *synopsis; /* what follows the command's name: "--kernel FILE [OPTION]..." */
	const char *about;    /* a paragraph, with newlines */
	const struct option_spec *options;
	size_t nr_options;
	const char *const *positional; /* names of the required ones, NULL terminated */
	bool more_positional;          /* others may follow */
	const char *epilogue;          /* examples and the like; may be NULL */
};

struct positionals {
	size_t nr;
	char *at[OPTION_MAX_POSITIONAL];
};

enum options_result {
	OPTIONS_OK,
	OPTIONS_HELP, /* --help was asked for; nothing else was checked */
	OPTIONS_ERROR
};

/* Parse argv[1..] into @target, whose members hold the defaults. */
enum options_result options_parse(const struct syntax *syntax, int argc, char **argv, void *target,
				  struct positionals *positionals, struct err *e);

/* As above, but prints help or the error; returns -1 to go on, or the status to exit with. */
int options_parse_or_exit(const struct syntax *syntax, int argc, char **argv, void *target,
			  struct positionals *positionals);

/* Can the file at @path, the value of --@option, be written? NULL can. What is made by asking is an
 * empty file. */
int options_check_writable(const char *option, const char *path, struct err *e);
