/*
 * What arguments a QMP command takes, as a table, and the check of a client's arguments against it.
 * The messages are QEMU's, because scripts match them. Pure.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "vmm/base/err.h"

enum qmp_type {
	QMP_STRING,
	QMP_BOOL,
	QMP_INT,
	QMP_ARRAY,
};

struct qmp_arg {
	const char *name;
	enum qmp_type type;
	bool optional;
};

/* @args ends with a NULL name; NULL for none. @given is an object, or NULL for an empty one. @path
 * goes in front of names in messages: "" or "capabilities[0]." */
int qmp_args_check(const struct qmp_arg *args, json_t *given, const char *path, struct err *e);
