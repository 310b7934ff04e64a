#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "control/service_state.h"

#define LONGEST_LINE (1u << 20)

/* A report of the guest's process is an object already: it only lacks whose it is. */
static void print_json_line(uint32_t guest, const char *line)
{
	json_t *object = json_loads(line, 0, NULL);

	if (json_is_object(object)) {
		json_object_set_new(object, "guest", json_integer(guest));
		json_dumpf(object, stdout, JSON_COMPACT);
		putchar('\n');
	}
	json_decref(object);
}

static void print_line(const struct relay *r, const char *line)
{
	if (r->errors)
		fprintf(stderr, "guest %u: %s\n", r->guest->number, line);
	else if (r->guest->service->config.json)
		print_json_line(r->guest->number, line);
	else
		printf("guest %u: %s\n", r->guest->number, line);
	fflush(stdout);
}

/* The line so far is as good as it gets. */
static void flush_line(struct relay *r)
{
	struct err ignored = ERR_INIT;

	if (r->line.len && buf_append(&r->line, "", 1, &ignored) == 0)
		print_line(r, (const char *)r->line.data);
	buf_reset(&r->line);
}

static void take_bytes(struct relay *r, const char *at, size_t len)
{
	struct err ignored = ERR_INIT;

	while (len) {
		const char *newline = memchr(at, '\n', len);
		size_t part = newline ? (size_t)(newline - at) : len;

		if (r->line.len + part <= LONGEST_LINE)
			(void)buf_append(&r->line, at, part, &ignored);
		if (newline)
			flush_line(r);
		part += newline ? 1 : 0;
		at += part;
		len -= part;
	}
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct relay *r = handle->data;

	(void)suggested;
	*buf = uv_buf_init(r->chunk, sizeof(r->chunk));
}

static void on_read(uv_stream_t *stream, ssize_t nr, const uv_buf_t *buf)
{
	struct relay *r = stream->data;

	if (nr >= 0) {
		take_bytes(r, buf->base, (size_t)nr);
		return;
	}
	flush_line(r);
	relay_close(r);
}

void relay_init(struct relay *r, struct service_guest *g, bool errors)
{
	*r = (struct relay){.guest = g, .errors = errors, .line = BUF_INIT};
	uv_pipe_init(&g->service->loop, &r->pipe, 0);
	r->pipe.data = r;
}

void relay_start(struct relay *r)
{
	uv_read_start((uv_stream_t *)&r->pipe, on_alloc, on_read);
}

static void on_closed(uv_handle_t *handle)
{
	struct relay *r = handle->data;

	buf_fini(&r->line);
	service_guest_release(r->guest);
}

void relay_close(struct relay *r)
{
	if (!uv_is_closing((uv_handle_t *)&r->pipe))
		uv_close((uv_handle_t *)&r->pipe, on_closed);
}
