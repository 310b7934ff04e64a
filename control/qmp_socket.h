/*
 * The unix socket of a QMP endpoint: its address on the command line, taking it over from a dead
 * owner, connecting to it. Descriptors belong to the caller. Blocking, but only locally.
 */
#pragma once

#include <stdbool.h>

#include "vmm/base/err.h"

#define QMP_SOCKET_PATH_MAX 108 /* sockaddr_un */

/* "unix:PATH", "unix:PATH,server=on|off" or just a path. */
int qmp_socket_parse(const char *address, char path[QMP_SOCKET_PATH_MAX], bool *server,
		     struct err *e);

/* A bound (not yet listening) socket that only this user may connect to. A socket file that nobody
 * serves any more is replaced; a live one, or a file of another kind, is refused. */
int qmp_socket_listen(const char *path, struct err *e);

int qmp_socket_connect(const char *path, struct err *e);
