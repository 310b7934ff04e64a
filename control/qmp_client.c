#include "control/qmp_client.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/qmp_framer.h"
#include "control/qmp_socket.h"
#include "vmm/base/clock.h"
#include "vmm/base/link.h"

#define GREETING_TIMEOUT_NS (5 * NS_PER_S)
#define ANSWER_TIMEOUT_NS   (30 * NS_PER_S)

struct qmp_client {
	int fd;
	char path[QMP_SOCKET_PATH_MAX];
	struct qmp_framer framer;
	json_t *answer; /* the message that is neither event nor yet fetched */
	void (*on_event)(void *ctx, const json_t *event); /* NULL: nobody listens */
	void *ctx;
};

static bool on_message(void *ctx, const char *text, size_t len)
{
	struct qmp_client *c = ctx;
	json_t *message = text ? json_loadb(text, len, 0, NULL) : NULL;

	if (!message || json_object_get(message, "event")) {
		if (message && c->on_event)
			c->on_event(c->ctx, message);
		json_decref(message);
		return true;
	}
	json_decref(c->answer);
	c->answer = message;
	return true;
}

static int gone(const struct qmp_client *c, struct err *e)
{
	return err_set(e, ERR_PEER, ECONNRESET, "the VMM behind %s has ended", c->path);
}

/* One recv(2); -EAGAIN without a message when there is nothing and MSG_DONTWAIT is set. */
static int receive(struct qmp_client *c, int flags, struct err *e)
{
	char data[65536];
	ssize_t nr = recv(c->fd, data, sizeof(data), flags);

	if (nr < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (nr <= 0)
		return gone(c, e);
	return qmp_framer_feed(&c->framer, data, (size_t)nr, on_message, c, e);
}

void qmp_client_listen(struct qmp_client *c, void (*on_event)(void *ctx, const json_t *event),
		       void *ctx)
{
	c->on_event = on_event;
	c->ctx = ctx;
}

int qmp_client_pump(struct qmp_client *c, struct err *e)
{
	int ret;

	do {
		ret = receive(c, MSG_DONTWAIT, e);
	} while (!ret);
	return ret == -EAGAIN ? 0 : ret;
}

static int wait_for_answer(struct qmp_client *c, uint64_t timeout_ns, json_t **answer,
			   struct err *e)
{
	uint64_t deadline = clock_now_ns() + timeout_ns;

	while (!c->answer) {
		uint64_t now = clock_now_ns();
		int ret;

		if (now >= deadline)
			return err_set(e, ERR_PEER, ETIMEDOUT, "%s does not answer: is it QMP?",
				       c->path);
		ret = link_poll(c->fd, POLLIN, NULL, deadline - now, e);
		if (ret == -ETIMEDOUT)
			continue;
		if (!ret)
			ret = receive(c, 0, e);
		if (ret < 0 && ret != -EAGAIN)
			return ret;
	}
	*answer = c->answer;
	c->answer = NULL;
	return 0;
}

static int send_all(struct qmp_client *c, const char *text, size_t len, struct err *e)
{
	while (len) {
		ssize_t nr = send(c->fd, text, len, MSG_NOSIGNAL);

		if (nr < 0 && errno == EINTR)
			continue;
		if (nr <= 0)
			return gone(c, e);
		text += nr;
		len -= (size_t)nr;
	}
	return 0;
}

/* A VMM acts on a request when its last brace has come: one told to quit may be gone before a line
 * end that follows on its own. So the line end goes with it. */
static int send_request(struct qmp_client *c, const char *command, json_t *args, struct err *e)
{
	json_t *request = json_pack("{s:s}", "execute", command);
	char *text;
	char *line = NULL;
	int ret;

	if (request && args)
		json_object_set(request, "arguments", args);
	json_decref(args);
	text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	json_decref(request);
	if (!text)
		return err_set(e, ERR_USAGE, EINVAL, "the command is not valid UTF-8");
	if (asprintf(&line, "%s\n", text) < 0)
		ret = err_set(e, ERR_SYS, ENOMEM, "no memory for a QMP request");
	else
		ret = send_all(c, line, strlen(line), e);
	free(line);
	free(text);
	return ret;
}

static int take_result(json_t *answer, json_t **result, struct err *e)
{
	json_t *value = json_object_get(answer, "return");
	const char *desc =
		json_string_value(json_object_get(json_object_get(answer, "error"), "desc"));

	if (!value)
		return err_set(e, ERR_STATE, EINVAL, "%s", desc ? desc : "the answer is not QMP");
	if (result)
		*result = json_incref(value);
	return 0;
}

int qmp_client_call(struct qmp_client *c, const char *command, json_t *args, json_t **result,
		    struct err *e)
{
	json_t *answer = NULL;
	int ret = send_request(c, command, args, e);

	if (!ret)
		ret = wait_for_answer(c, ANSWER_TIMEOUT_NS, &answer, e);
	if (!ret)
		ret = take_result(answer, result, e);
	json_decref(answer);
	return ret;
}

static int greet(struct qmp_client *c, struct err *e)
{
	json_t *greeting = NULL;
	int ret = wait_for_answer(c, GREETING_TIMEOUT_NS, &greeting, e);

	if (!ret && !json_object_get(greeting, "QMP"))
		ret = err_set(e, ERR_PEER, EPROTO, "%s is not a QMP socket", c->path);
	json_decref(greeting);
	return ret ? ret : qmp_client_call(c, "qmp_capabilities", NULL, NULL, e);
}

int qmp_client_open(const char *address, struct qmp_client **out, struct err *e)
{
	struct qmp_client *c = calloc(1, sizeof(*c));
	bool server;
	int ret;

	if (!c)
		return err_set(e, ERR_SYS, ENOMEM, "no memory for a QMP client");
	c->fd = -1;
	qmp_framer_init(&c->framer);
	ret = qmp_socket_parse(address, c->path, &server, e);
	if (!ret) {
		c->fd = qmp_socket_connect(c->path, e);
		ret = c->fd < 0 ? c->fd : greet(c, e);
	}
	if (ret < 0) {
		qmp_client_close(c);
		return ret;
	}
	*out = c;
	return 0;
}

void qmp_client_close(struct qmp_client *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	json_decref(c->answer);
	qmp_framer_fini(&c->framer);
	free(c);
}

int qmp_client_fd(const struct qmp_client *c)
{
	return c->fd;
}
