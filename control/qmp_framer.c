#include "control/qmp_framer.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/* QEMU's JSON lexer starts afresh at this byte, which cannot occur in UTF-8; its guest agent's
 * clients send it to resynchronise. */
#define RESET_BYTE '\xff'

/* As QEMU's parser: deeper nesting than this is not a request. */
#define MAX_DEPTH 1024

void qmp_framer_init(struct qmp_framer *f)
{
	memset(f, 0, sizeof(*f));
}

void qmp_framer_fini(struct qmp_framer *f)
{
	buf_fini(&f->message);
}

static void start_over(struct qmp_framer *f)
{
	buf_reset(&f->message);
	f->depth = 0;
	f->in_string = false;
	f->escaped = false;
	f->too_long = false;
}

static bool ends_inside_string(struct qmp_framer *f, char c)
{
	if (c == '\n')
		return true; /* JSON strings hold no raw newlines: broken, and over */
	if (f->escaped)
		f->escaped = false;
	else if (c == '\\')
		f->escaped = true;
	else if (c == '"')
		f->in_string = false;
	return false;
}

/* Does @c, already part of the message, end it? */
static bool ends(struct qmp_framer *f, char c)
{
	if (c == RESET_BYTE)
		return true;
	if (f->in_string)
		return ends_inside_string(f, c);
	switch (c) {
	case '"':
		f->in_string = true;
		return false;
	case '{':
	case '[':
		return ++f->depth > MAX_DEPTH;
	case '}':
	case ']':
		return f->depth <= 1;
	case '\n':
		return f->depth == 0;
	default:
		return false;
	}
}

static void unnest(struct qmp_framer *f, char c)
{
	if (!f->in_string && (c == '}' || c == ']') && f->depth)
		f->depth--;
}

static int take(struct qmp_framer *f, char c, struct err *e)
{
	if (f->too_long)
		return 0;
	if (f->message.len == QMP_MAX_MESSAGE) {
		f->too_long = true;
		return 0;
	}
	return buf_append(&f->message, &c, 1, e);
}

int qmp_framer_feed(struct qmp_framer *f, const char *data, size_t len, qmp_message_fn on_message,
		    void *ctx, struct err *e)
{
	for (size_t i = 0; i < len; i++) {
		bool go_on;
		bool end;
		int ret;

		if (!f->message.len && (isspace((unsigned char)data[i]) || data[i] == RESET_BYTE))
			continue;
		ret = take(f, data[i], e);
		if (ret < 0)
			return ret;
		end = ends(f, data[i]);
		unnest(f, data[i]);
		if (!end)
			continue;
		go_on = on_message(ctx, f->too_long ? NULL : (const char *)f->message.data,
				   f->message.len);
		start_over(f);
		if (!go_on)
			return 0;
	}
	return 0;
}
