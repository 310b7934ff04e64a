#include "control/qmp_server.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "control/qmp_dispatch.h"
#include "control/qmp_framer.h"
#include "control/qmp_socket.h"
#include "vmm/base/log.h"

#define READ_BYTES    (64u << 10)
#define BACKLOG_BYTES (16u << 20)
#define LINGER_MS     1000

struct client {
	struct client *next;
	struct client **link; /* what points here */
	struct qmp_server *server;
	uv_pipe_t pipe;
	uv_shutdown_t shutdown;
	struct qmp_framer framer;
	struct qmp_peer peer;
	char read[READ_BYTES];
};

struct qmp_server {
	uv_loop_t *loop;
	struct qmp_target target;
	uv_pipe_t listener;
	bool listening;
	char path[QMP_SOCKET_PATH_MAX]; /* of the socket file, while listening */
	uv_timer_t linger;              /* ends the wait for clients that do not read */
	struct client *clients;
	bool closing;
	unsigned int nr_open; /* handles whose close callback is still to come */
};

struct outgoing {
	uv_write_t request;
	char *text;
};

static void release(struct qmp_server *s)
{
	if (--s->nr_open == 0)
		free(s);
}

static void on_server_handle_closed(uv_handle_t *handle)
{
	release(handle->data);
}

static void close_linger_when_last(struct qmp_server *s)
{
	if (s->closing && !s->clients && !uv_is_closing((uv_handle_t *)&s->linger))
		uv_close((uv_handle_t *)&s->linger, on_server_handle_closed);
}

static void on_client_closed(uv_handle_t *handle)
{
	struct client *c = handle->data;
	struct qmp_server *s = c->server;

	qmp_framer_fini(&c->framer);
	free(c);
	release(s);
}

static void drop(struct client *c)
{
	struct qmp_server *s = c->server;

	if (uv_is_closing((uv_handle_t *)&c->pipe))
		return;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	uv_close((uv_handle_t *)&c->pipe, on_client_closed);
	close_linger_when_last(s);
}

static void on_written(uv_write_t *request, int status)
{
	struct outgoing *o = request->data;

	(void)status; /* a broken connection shows on its reading side as well */
	free(o->text);
	free(o);
}

static void send_text(struct client *c, char *text)
{
	struct outgoing *o = malloc(sizeof(*o));
	uv_buf_t buf;

	if (!o || uv_is_closing((uv_handle_t *)&c->pipe)) {
		free(text);
		free(o);
		return;
	}
	o->text = text;
	o->request.data = o;
	buf = uv_buf_init(text, (unsigned int)strlen(text));
	if (uv_write(&o->request, (uv_stream_t *)&c->pipe, &buf, 1, on_written) < 0) {
		free(text);
		free(o);
		drop(c);
		return;
	}
	if (uv_stream_get_write_queue_size((uv_stream_t *)&c->pipe) > BACKLOG_BYTES) {
		log_warning("a QMP client does not read its answers: disconnected");
		drop(c);
	}
}

static void send_json(struct client *c, const json_t *json)
{
	char *text = json ? json_dumps(json, JSON_REAL_PRECISION(12)) : NULL;
	size_t len = text ? strlen(text) : 0;
	char *line = text ? realloc(text, len + 3) : NULL;

	if (!line) {
		free(text);
		drop(c);
		return;
	}
	memcpy(line + len, "\r\n", 3);
	send_text(c, line);
}

static bool on_message(void *ctx, const char *text, size_t len)
{
	struct client *c = ctx;
	json_t *answer = qmp_answer(&c->server->target, &c->peer, text, len);

	send_json(c, answer);
	json_decref(answer);
	return !uv_is_closing((uv_handle_t *)&c->pipe);
}

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *buf)
{
	struct client *c = handle->data;

	(void)wanted;
	*buf = uv_buf_init(c->read, sizeof(c->read));
}

static void on_read(uv_stream_t *stream, ssize_t nr, const uv_buf_t *buf)
{
	struct client *c = stream->data;
	struct err e = ERR_INIT;

	if (nr == 0 || c->server->closing)
		return;
	if (nr < 0 || qmp_framer_feed(&c->framer, buf->base, (size_t)nr, on_message, c, &e) < 0)
		drop(c);
}

static struct client *client_new(struct qmp_server *s, struct err *e)
{
	struct client *c = calloc(1, sizeof(*c));
	int ret;

	if (!c) {
		err_set(e, ERR_SYS, ENOMEM, "no memory for a QMP client");
		return NULL;
	}
	ret = uv_pipe_init(s->loop, &c->pipe, 0);
	if (ret < 0) {
		free(c);
		err_set(e, ERR_SYS, -ret, "no QMP client: %s", uv_strerror(ret));
		return NULL;
	}
	c->server = s;
	c->pipe.data = c;
	qmp_framer_init(&c->framer);
	c->next = s->clients;
	if (c->next)
		c->next->link = &c->next;
	c->link = &s->clients;
	s->clients = c;
	s->nr_open++;
	return c;
}

static void greet(struct client *c)
{
	json_t *greeting = qmp_greeting();

	send_json(c, greeting);
	json_decref(greeting);
	if (!uv_is_closing((uv_handle_t *)&c->pipe))
		uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct qmp_server *s = listener->data;
	struct err e = ERR_INIT;
	struct client *c;

	if (status < 0)
		return;
	c = client_new(s, &e);
	if (!c) {
		log_warning("%s", e.msg);
		return;
	}
	if (uv_accept(listener, (uv_stream_t *)&c->pipe) < 0)
		drop(c);
	else
		greet(c);
}

static int open_listener(struct qmp_server *s, const char *path, struct err *e)
{
	int fd = qmp_socket_listen(path, e);
	int ret;

	if (fd < 0)
		return fd;
	uv_pipe_init(s->loop, &s->listener, 0);
	s->listener.data = s;
	s->listening = true;
	strcpy(s->path, path);
	s->nr_open++;
	ret = uv_pipe_open(&s->listener, fd);
	if (!ret)
		ret = uv_listen((uv_stream_t *)&s->listener, 16, on_connection);
	if (ret < 0)
		return err_set(e, ERR_SYS, -ret, "cannot listen on %s: %s", path, uv_strerror(ret));
	return 0;
}

static int open_connection(struct qmp_server *s, const char *path, struct err *e)
{
	int fd = qmp_socket_connect(path, e);
	struct client *c;
	int ret;

	if (fd < 0)
		return fd;
	c = client_new(s, e);
	if (!c)
		return -e->code;
	ret = uv_pipe_open(&c->pipe, fd);
	if (ret < 0)
		return err_set(e, ERR_SYS, -ret, "cannot use %s: %s", path, uv_strerror(ret));
	greet(c);
	return 0;
}

int qmp_server_new(uv_loop_t *loop, const char *address, const struct qmp_target *target,
		   struct qmp_server **out, struct err *e)
{
	struct qmp_server *s = calloc(1, sizeof(*s));
	char path[QMP_SOCKET_PATH_MAX];
	bool server = true;
	int ret;

	if (!s)
		return err_set(e, ERR_SYS, ENOMEM, "no memory for the QMP server");
	s->loop = loop;
	s->target = *target;
	s->nr_open = 1;
	uv_timer_init(loop, &s->linger);
	s->linger.data = s;
	ret = qmp_socket_parse(address, path, &server, e);
	if (!ret)
		ret = server ? open_listener(s, path, e) : open_connection(s, path, e);
	if (ret < 0) {
		err_prefix(e, "--qmp");
		qmp_server_close(s);
		return ret;
	}
	*out = s;
	return 0;
}

static void on_shut_down(uv_shutdown_t *request, int status)
{
	(void)status;
	drop(request->data);
}

static void on_linger_over(uv_timer_t *timer)
{
	struct qmp_server *s = timer->data;

	while (s->clients)
		drop(s->clients);
}

void qmp_server_close(struct qmp_server *s)
{
	struct client *next;

	if (!s || s->closing)
		return;
	s->closing = true;
	if (s->listening) {
		uv_close((uv_handle_t *)&s->listener, on_server_handle_closed);
		unlink(s->path);
	}
	uv_timer_start(&s->linger, on_linger_over, LINGER_MS, 0);
	for (struct client *c = s->clients; c; c = next) {
		next = c->next;
		c->shutdown.data = c;
		if (uv_shutdown(&c->shutdown, (uv_stream_t *)&c->pipe, on_shut_down) < 0)
			drop(c);
	}
	close_linger_when_last(s);
}

void qmp_server_event(struct qmp_server *s, const char *name, json_t *data)
{
	struct client *next;
	struct timeval now;
	json_t *event;

	gettimeofday(&now, NULL);
	event = json_pack("{s:{s:I,s:I},s:s}", "timestamp", "seconds", (json_int_t)now.tv_sec,
			  "microseconds", (json_int_t)now.tv_usec, "event", name);
	if (event && data)
		json_object_set(event, "data", data);
	for (struct client *c = s ? s->clients : NULL; c && event; c = next) {
		next = c->next;
		if (c->peer.negotiated)
			send_json(c, event);
	}
	json_decref(event);
	json_decref(data);
}
