/*
 * One QMP message in, one answer out: parsing, capability negotiation, the command table. Knows no
 * sockets, so that tests and the fuzzer can call it. Loop thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "control/qmp_args.h"
#include "control/qmp_target.h"

struct qmp_command {
	const char *name;
	/* The result (a new reference; NULL with @e filled in on failure). @args has passed the
	 * check against the table. */
	json_t *(*run)(const struct qmp_target *target, json_t *args, struct err *e);
	const struct qmp_arg *args;
};

/* Per connection. */
struct qmp_peer {
	bool negotiated; /* qmp_capabilities was sent */
};

/* The first message of every connection. New reference; NULL when memory is short. */
json_t *qmp_greeting(void);

/* {"qemu": {major, minor, micro}, "package": "godwit x.y.z"}. */
json_t *qmp_version(void);

/* The answer to the message @text of @len bytes (@text NULL: one that was too long). New reference;
 * NULL only when memory is short. */
json_t *qmp_answer(const struct qmp_target *target, struct qmp_peer *peer, const char *text,
		   size_t len);

/* The tables, ended by a NULL name: qmp_commands.c and qmp_migrate.c. */
extern const struct qmp_command qmp_machine_commands[];
extern const struct qmp_command qmp_migrate_commands[];

/* The @n-th command over all tables, or NULL. */
const struct qmp_command *qmp_command_at(size_t n);
