/*
 * The QMP endpoint of a VM: a unix socket with any number of clients, or one connection that was
 * made to somebody else's socket. Loop thread only. Answers go out in the order of the requests;
 * events go to every client that has negotiated. A client that does not read is disconnected when
 * too much has piled up for it.
 */
#pragma once

#include <jansson.h>
#include <uv.h>

#include "control/qmp_target.h"

struct qmp_server;

/* @address is unix:PATH or unix:PATH,server=off. @target is copied. */
int qmp_server_new(uv_loop_t *loop, const char *address, const struct qmp_target *target,
		   struct qmp_server **out, struct err *e);

/* Finish what is being written, then close; the loop must run on until that is done. Bounded in
 * time. NULL is allowed. */
void qmp_server_close(struct qmp_server *s);

/* Broadcast; @data (a stolen reference) may be NULL. NULL server is allowed. */
void qmp_server_event(struct qmp_server *s, const char *name, json_t *data);
