#include "vmm/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void fill(struct err *e, enum err_kind kind, int code, const char *file, int line)
{
	e->kind = kind;
	e->code = code > 0 ? code : EIO;
	e->file = file;
	e->line = line;
}

int err_set_at(struct err *e, enum err_kind kind, int code, const char *file, int line,
	       const char *fmt, ...)
{
	va_list ap;

	fill(e, kind, code, file, line);
	va_start(ap, fmt);
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	va_end(ap);
	return -e->code;
}

int err_sys_at(struct err *e, const char *file, int line, const char *fmt, ...)
{
	int saved_errno = errno;
	va_list ap;
	size_t used;

	fill(e, ERR_SYS, saved_errno, file, line);
	va_start(ap, fmt);
	vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	va_end(ap);
	used = strlen(e->msg);
	snprintf(e->msg + used, sizeof(e->msg) - used, ": %s", strerrordesc_np(e->code));
	return -e->code;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
	char text[ERR_MSG_BYTES];
	char old[ERR_MSG_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(old, e->msg, sizeof(old));
	text[sizeof(text) / 2] =
		'\0'; /* the cause must survive however long the circumstances are */
	snprintf(e->msg, sizeof(e->msg), "%.255s: %.254s", text, old);
	return -e->code;
}

void err_clear(struct err *e)
{
	*e = (struct err)ERR_INIT;
}

const char *err_kind_name(enum err_kind kind)
{
	switch (kind) {
	case ERR_NONE:
		return "none";
	case ERR_SYS:
		return "system";
	case ERR_PEER:
		return "peer";
	case ERR_STREAM:
		return "stream";
	case ERR_STATE:
		return "state";
	case ERR_UNSUPPORTED:
		return "unsupported";
	case ERR_USAGE:
		return "usage";
	case ERR_CANCELLED:
		return "cancelled";
	case ERR_INJECTED:
		return "injected";
	}
	return "unknown";
}
