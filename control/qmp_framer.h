/*
 * Cuts the bytes of a QMP connection into messages. A message ends where its outermost brace or
 * bracket closes, or at a line's end when it is not an object at all; so clients that end messages
 * with newlines, with CR LF or with nothing (all three exist) are understood. One owner, one
 * thread. The length of a message is bounded: longer ones are swallowed and reported once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "vmm/base/buf.h"

#define QMP_MAX_MESSAGE (1u << 20)

struct qmp_framer {
	struct buf message;
	unsigned int depth;
	bool in_string;
	bool escaped;
	bool too_long;
};

/* @text is NULL for a message that was too long. Return false to stop. */
typedef bool (*qmp_message_fn)(void *ctx, const char *text, size_t len);

void qmp_framer_init(struct qmp_framer *f);
void qmp_framer_fini(struct qmp_framer *f);

/* Call @on_message for each message that @data completes. Fails only when memory is short. */
int qmp_framer_feed(struct qmp_framer *f, const char *data, size_t len, qmp_message_fn on_message,
		    void *ctx, struct err *e);
