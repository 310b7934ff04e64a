/*
 * What a kind of serial back end (null, stdio, file, pty, unix) provides; serial_backend.c does the
 * rest. A kind is one file with one struct serial_kind, and one line in the table there.
 *
 * open runs on the creator's thread, close on the freeing thread after the back end's thread has
 * been joined, everything else on the back end's thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/err.h"

#define SERIAL_PATH_BYTES 108

struct serial_port {
	const struct serial_kind *kind;
	/* Descriptors, -1: none (now). Reads and writes of them never block. in and out may be the
	 * same. Whoever opens one closes it. */
	int in_fd;
	int out_fd;
	int listen_fd;
	/* Input nobody takes is thrown away instead of left unread: a terminal, where Ctrl-A x must
	 * work however deaf the guest is. */
	bool drop_excess_input;
	char path[SERIAL_PATH_BYTES]; /* what serial_backend_path() says */
	void *priv;
};

struct serial_kind {
	const char *name;
	bool has_argument; /* NAME:PATH rather than NAME */
	int (*open)(struct serial_port *p, const char *path, struct err *e);
	void (*close)(struct serial_port *p);
	/* The rest may be NULL. */

	/* May input be read at present? Asked again at least once a second. */
	bool (*may_read)(struct serial_port *p);
	/* Edit @len bytes of input in place; returns how many remain. */
	size_t (*filter)(struct serial_port *p, uint8_t *data, size_t len);
	/* Take a client from listen_fd. */
	void (*accept)(struct serial_port *p);
	/* The client is gone; another may come. Kinds without this have one peer for life. */
	void (*hangup)(struct serial_port *p);
};

extern const struct serial_kind serial_null;
extern const struct serial_kind serial_stdio;
extern const struct serial_kind serial_file;
extern const struct serial_kind serial_pty;
extern const struct serial_kind serial_unix;
