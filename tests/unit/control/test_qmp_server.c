/* The QMP server on a real socket, with our client and with rude ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/qmp_client.h"
#include "control/qmp_server.h"
#include "control/qmp_socket.h"
#include "fake_target.h"

/* A server on a loop thread of its own. `stop` and `tick` reach it through async handles. */
struct served {
	char dir[64];
	char path[100];
	char address[120];
	uv_loop_t loop;
	uv_async_t stop;
	uv_async_t tick;
	struct fake_target fake;
	struct qmp_server *server;
	pthread_t thread;
};

static void on_stop(uv_async_t *async)
{
	struct served *s = async->data;

	qmp_server_close(s->server);
	uv_close((uv_handle_t *)&s->stop, NULL);
	uv_close((uv_handle_t *)&s->tick, NULL);
}

static void on_tick(uv_async_t *async)
{
	struct served *s = async->data;

	qmp_server_event(s->server, "TICK", json_pack("{s:i}", "n", 1));
}

static void *serve(void *arg)
{
	struct served *s = arg;

	uv_run(&s->loop, UV_RUN_DEFAULT);
	return NULL;
}

static int setup(void **state)
{
	struct served *s = calloc(1, sizeof(*s));
	struct qmp_target target = {&fake_ops, &s->fake};
	struct err e = ERR_INIT;

	strcpy(s->dir, "/tmp/godwit-qmp-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	snprintf(s->path, sizeof(s->path), "%s/qmp", s->dir);
	snprintf(s->address, sizeof(s->address), "unix:%s", s->path);
	fake_target_init(&s->fake);
	assert_int_equal(uv_loop_init(&s->loop), 0);
	assert_int_equal(qmp_server_new(&s->loop, s->address, &target, &s->server, &e), 0);
	uv_async_init(&s->loop, &s->stop, on_stop);
	uv_async_init(&s->loop, &s->tick, on_tick);
	s->stop.data = s->tick.data = s;
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct served *s = *state;

	uv_async_send(&s->stop);
	pthread_join(s->thread, NULL);
	assert_int_equal(uv_loop_close(&s->loop), 0); /* every handle was closed */
	assert_int_not_equal(access(s->path, F_OK), 0);
	rmdir(s->dir);
	free(s);
	return 0;
}

static struct qmp_client *open_client(struct served *s)
{
	struct qmp_client *c = NULL;
	struct err e = ERR_INIT;

	if (qmp_client_open(s->path, &c, &e) < 0)
		fail_msg("%s", e.msg);
	return c;
}

static void test_two_clients_at_once(void **state)
{
	struct qmp_client *a = open_client(*state);
	struct qmp_client *b = open_client(*state);
	struct err e = ERR_INIT;
	json_t *result = NULL;

	assert_int_equal(qmp_client_call(a, "query-status", NULL, &result, &e), 0);
	assert_true(json_is_true(json_object_get(result, "running")));
	json_decref(result);
	assert_int_equal(qmp_client_call(b, "nonsense", NULL, NULL, &e), -EINVAL);
	assert_string_equal(e.msg, "The command nonsense has not been found");
	assert_int_equal(e.kind, ERR_STATE);
	qmp_client_close(a);
	assert_int_equal(qmp_client_call(b, "stop", NULL, NULL, &e), 0);
	qmp_client_close(b);
}

static int raw_connect(const char *path)
{
	struct err e = ERR_INIT;
	int fd = qmp_socket_connect(path, &e);

	assert_true(fd >= 0);
	return fd;
}

/* Read until @text has been seen. */
static void expect_text(int fd, const char *text)
{
	static char seen[65536];
	size_t len = 0;

	seen[0] = '\0';
	while (!strstr(seen, text)) {
		ssize_t nr = read(fd, seen + len, sizeof(seen) - 1 - len);

		if (nr <= 0)
			fail_msg("'%s' did not come; this did: %s", text, seen);
		len += (size_t)nr;
		seen[len] = '\0';
	}
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void test_events_go_to_those_who_negotiated(void **state)
{
	struct served *s = *state;
	int fd = raw_connect(s->path);

	expect_text(fd, "\"capabilities\": []}}\r\n");
	say(fd, "{\"execute\":\"qmp_capabilities\"}");
	expect_text(fd, "{\"return\": {}}\r\n");
	uv_async_send(&s->tick);
	expect_text(fd, "\"event\": \"TICK\", \"data\": {\"n\": 1}}\r\n");
	close(fd);
}

static void test_rude_clients(void **state)
{
	struct served *s = *state;
	struct qmp_client *polite;
	struct err e = ERR_INIT;
	int fd;

	close(raw_connect(s->path)); /* gone before the greeting */
	fd = raw_connect(s->path);
	say(fd, "{\"execute\":\"query-com"); /* gone in mid-sentence */
	close(fd);
	fd = raw_connect(s->path);
	say(fd, "GET / HTTP/1.1\r\n\r\n");
	expect_text(fd, "JSON parse error");
	close(fd);
	polite = open_client(s);
	assert_int_equal(qmp_client_call(polite, "query-version", NULL, NULL, &e), 0);
	qmp_client_close(polite);
}

static void test_client_that_never_reads(void **state)
{
	struct served *s = *state;
	int fd = raw_connect(s->path);
	char flood[4096] = "";
	ssize_t nr = 0;

	for (int i = 0; i < 100; i++)
		strcat(flood, "{\"execute\":\"query-version\"}");
	/* 16 MiB of unread answers end it; the requests are bounded here for when they do not. */
	for (int i = 0; i < 100000 && nr >= 0; i++)
		nr = send(fd, flood, strlen(flood), MSG_NOSIGNAL);
	assert_true(nr < 0);
	close(fd);
	qmp_client_close(open_client(s));
}

static void test_socket_is_private_and_taken(void **state)
{
	struct served *s = *state;
	struct qmp_target target = {&fake_ops, &s->fake};
	struct qmp_server *second;
	struct err e = ERR_INIT;
	struct stat st;
	uv_loop_t loop;

	assert_int_equal(stat(s->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	uv_loop_init(&loop);
	assert_int_equal(qmp_server_new(&loop, s->address, &target, &second, &e), -EADDRINUSE);
	assert_non_null(strstr(e.msg, "is in use by another process"));
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_int_equal(access(s->path, F_OK), 0); /* and left where it is */
}

static void test_stale_socket_is_replaced(void **state)
{
	struct served *s = *state;
	char path[QMP_SOCKET_PATH_MAX];
	struct err e = ERR_INIT;
	int fd;

	snprintf(path, sizeof(path), "%.80s/stale", s->dir);
	fd = qmp_socket_listen(path, &e);
	assert_true(fd >= 0);
	close(fd); /* its owner died */
	fd = qmp_socket_listen(path, &e);
	assert_true(fd >= 0);
	close(fd);
	unlink(path);
}

static void test_addresses(void **state)
{
	char path[QMP_SOCKET_PATH_MAX];
	struct err e = ERR_INIT;
	char huge[300];
	bool server;

	(void)state;
	assert_int_equal(qmp_socket_parse("unix:/a/b", path, &server, &e), 0);
	assert_string_equal(path, "/a/b");
	assert_true(server);
	assert_int_equal(qmp_socket_parse("/a/b,server=off", path, &server, &e), 0);
	assert_false(server);
	assert_int_equal(qmp_socket_parse("unix:/a,server=on,wait=off", path, &server, &e), 0);
	assert_true(qmp_socket_parse("unix:/a,sever=off", path, &server, &e) < 0);
	assert_true(qmp_socket_parse("tcp:h:1", path, &server, &e) < 0);
	assert_true(qmp_socket_parse("", path, &server, &e) < 0);
	assert_true(qmp_socket_parse("unix:", path, &server, &e) < 0);
	memset(huge, 'x', sizeof(huge));
	huge[sizeof(huge) - 1] = '\0';
	assert_int_equal(qmp_socket_parse(huge, path, &server, &e), -ENAMETOOLONG);
}

static void test_missing_socket_names_the_remedy(void **state)
{
	struct qmp_client *c;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(qmp_client_open("/nonexistent/qmp", &c, &e), -ENOENT);
	assert_non_null(strstr(e.msg, "--qmp"));
}

#define SERVED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SERVED(test_two_clients_at_once),
		SERVED(test_events_go_to_those_who_negotiated),
		SERVED(test_rude_clients),
		SERVED(test_client_that_never_reads),
		SERVED(test_socket_is_private_and_taken),
		SERVED(test_stale_socket_is_replaced),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_missing_socket_names_the_remedy),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
