/*
 * A QMP client for short-lived commands: blocking, one thread. Events wake whoever polls
 * qmp_client_fd(); nobody need listen to them.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "vmm/base/err.h"

struct qmp_client;

/* Connect to @address (unix:PATH or a path), read the greeting, negotiate. */
int qmp_client_open(const char *address, struct qmp_client **out, struct err *e);
void qmp_client_close(struct qmp_client *c); /* NULL is allowed */

/* From here on @on_event hears each event (borrowed), from within the two functions below. */
void qmp_client_listen(struct qmp_client *c, void (*on_event)(void *ctx, const json_t *event),
		       void *ctx);

/* Run @command; @args (a stolen reference) may be NULL. The result as a new reference in @result,
 * which may be NULL. ERR_STATE: the VMM refused, with its words; ERR_PEER: it went away. */
int qmp_client_call(struct qmp_client *c, const char *command, json_t *args, json_t **result,
		    struct err *e);

/* Readable when qmp_client_pump() has something to do. */
int qmp_client_fd(const struct qmp_client *c);

/* Read what has come without waiting. ERR_PEER when the VMM has closed the connection. */
int qmp_client_pump(struct qmp_client *c, struct err *e);
