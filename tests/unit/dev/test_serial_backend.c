#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "tests/unit/dev/serial_sink.h"

static struct serial_backend *start(const char *spec, struct sink *s)
{
	struct serial_backend *b;
	struct err e = ERR_INIT;

	if (serial_backend_new(spec, &b, &e))
		fail_msg("%s", e.msg);
	assert_int_equal(serial_backend_start(b, sink_input, s, &e), 0);
	return b;
}

static void put(struct serial_backend *b, const char *text)
{
	serial_backend_write(b, (const uint8_t *)text, strlen(text));
}

static void expect_error(const char *spec, const char *part)
{
	struct serial_backend *b = NULL;
	struct err e = ERR_INIT;

	assert_true(serial_backend_new(spec, &b, &e) < 0);
	assert_null(b);
	if (!strstr(e.msg, part) || strchr(e.msg, '\n'))
		fail_msg("'%s' does not mention '%s' in one line", e.msg, part);
}

static int connect_to(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(a.sun_path, path, strlen(path) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void bad_specs(void **state)
{
	(void)state;
	expect_error("telnet:1", "use null, stdio, pty, file:PATH or unix:PATH");
	expect_error("", "use null");
	expect_error("file", "file:PATH");
	expect_error("unix:", "unix:PATH");
	expect_error("pty:3", "takes no argument");
	expect_error("nul", "use null");
}

static void null_swallows(void **state)
{
	struct sink s;
	struct serial_backend *b;

	(void)state;
	sink_init(&s, 10);
	b = start(NULL, &s);
	for (int i = 0; i < 100000; i++)
		put(b, "0123456789");
	serial_backend_kick(b);
	assert_string_equal(serial_backend_path(b), "");
	serial_backend_free(b);
}

static void file_appends(void **state)
{
	char path[64];
	char spec[80];
	char got[32] = "";
	struct sink s;
	int fd;

	file_path(path, sizeof(path), *state);
	snprintf(spec, sizeof(spec), "file:%s", path);
	sink_init(&s, 0);
	for (int i = 0; i < 2; i++) {
		struct serial_backend *b = start(spec, &s);

		put(b, i ? "two" : "one,");
		serial_backend_free(b); /* flushes */
	}
	fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, got, sizeof(got)), 7);
	assert_string_equal(got, "one,two");
	close(fd);
	unlink(path);
}

static void file_errors(void **state)
{
	char path[64];
	char spec[80];

	(void)state;
	expect_error("file:/nonexistent/log", "create its directory first");
	expect_error("file:/tmp", "name a file in it");
	file_path(path, sizeof(path), *state);
	assert_int_equal(mkfifo(path, 0600), 0);
	snprintf(spec, sizeof(spec), "file:%s", path);
	expect_error(spec, "start the reader");
	unlink(path);
}

static void file_on_full_disk(void **state)
{
	struct sink s;
	struct serial_backend *b;

	(void)state;
	sink_init(&s, 0);
	b = start("file:/dev/full", &s);
	for (int i = 0; i < 1000; i++)
		put(b, "lost\n");
	usleep(20000);
	serial_backend_free(b); /* in time: nothing to wait for */
}

static void unix_errors(void **state)
{
	char path[64];
	char spec[80];
	char longest[200];
	struct sink s;
	struct serial_backend *b;
	int fd;

	file_path(path, sizeof(path), *state);
	snprintf(spec, sizeof(spec), "unix:%s", path);
	sink_init(&s, 0);
	b = start(spec, &s);
	expect_error(spec, "in use by another program");
	serial_backend_free(b);
	assert_int_equal(access(path, F_OK), -1);

	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	expect_error(spec, "is not a socket");
	unlink(path);
	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "unix:", 5);
	longest[sizeof(longest) - 1] = '\0';
	expect_error(longest, "use a shorter path");
	expect_error("unix:/nonexistent/s", "directory");
}

static void unix_replaces_stale_socket(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char path[64];
	char spec[80];
	struct sink s;
	struct serial_backend *b;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	file_path(path, sizeof(path), *state);
	memcpy(a.sun_path, path, sizeof(path));
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	snprintf(spec, sizeof(spec), "unix:%s", path);
	sink_init(&s, 0);
	b = start(spec, &s);
	close(connect_to(path));
	serial_backend_free(b);
}

static void unix_clients_come_and_go(void **state)
{
	char path[64];
	char spec[80];
	struct sink s;
	struct serial_backend *b;

	file_path(path, sizeof(path), *state);
	snprintf(spec, sizeof(spec), "unix:%s", path);
	sink_init(&s, sizeof(s.data));
	b = start(spec, &s);
	put(b, "before anyone");
	for (size_t i = 0; i < 20; i++) {
		int fd = connect_to(path);

		expect_bytes(fd, i ? "next" : "before anyone");
		assert_int_equal(write(fd, "in", 2), 2);
		/* The last words of a client that leaves at once are heard all the same. */
		close(fd);
		sink_wait(&s, 2 * (i + 1));
		put(b, "next");
	}
	serial_backend_free(b);
}

/* A client that only sends, then only listens. */
static void unix_half_close(void **state)
{
	char path[64];
	char spec[80];
	struct sink s;
	struct serial_backend *b;
	int fd;

	file_path(path, sizeof(path), *state);
	snprintf(spec, sizeof(spec), "unix:%s", path);
	sink_init(&s, sizeof(s.data));
	b = start(spec, &s);
	fd = connect_to(path);
	assert_int_equal(write(fd, "cmd", 3), 3);
	shutdown(fd, SHUT_WR);
	sink_wait(&s, 3);
	put(b, "answer");
	expect_bytes(fd, "answer");
	close(fd);
	fd = connect_to(path); /* it was noticed that the first one left */
	put(b, "hello");
	expect_bytes(fd, "hello");
	close(fd);
	serial_backend_free(b);
}

/* The guest never reads, the client sends more than fits and leaves: the next one gets in. */
static void unix_deaf_guest(void **state)
{
	char path[64];
	char spec[80];
	char junk[8000];
	struct sink s;
	struct serial_backend *b;
	int fd;

	file_path(path, sizeof(path), *state);
	snprintf(spec, sizeof(spec), "unix:%s", path);
	sink_init(&s, 16);
	b = start(spec, &s);
	memset(junk, 'j', sizeof(junk));
	fd = connect_to(path);
	assert_int_equal(write(fd, junk, sizeof(junk)), sizeof(junk));
	sink_wait(&s, 16);
	close(fd);
	fd = connect_to(path);
	put(b, "hello");
	expect_bytes(fd, "hello");
	sink_set_room(&s, 4000);
	serial_backend_kick(b);
	sink_wait(&s, 4000);
	close(fd);
	serial_backend_free(b);
}

/* Writers never block, the oldest bytes are kept. How long free took. */
static uint64_t write_to_stuck_reader(void **state)
{
	char path[64];
	char spec[80];
	char first[64];
	char got[64];
	struct sink s;
	struct serial_backend *b;
	uint64_t t0;
	int fd;

	file_path(path, sizeof(path), *state);
	snprintf(spec, sizeof(spec), "unix:%s", path);
	sink_init(&s, 0);
	b = start(spec, &s);
	fd = connect_to(path);
	t0 = clock_now_ns();
	for (int i = 0; i < 200000; i++) {
		char text[64];

		snprintf(text, sizeof(text), "line %07d\n", i);
		if (!i)
			memcpy(first, text, sizeof(text));
		put(b, text);
	}
	assert_true(clock_now_ns() - t0 < SERIAL_WAIT_NS); /* and not for ever */
	assert_int_equal(recv(fd, got, strlen(first), MSG_WAITALL), strlen(first));
	assert_memory_equal(got, first, strlen(first));
	assert_true(comes_to_rest()); /* it does not try all the time */
	t0 = clock_now_ns();
	serial_backend_free(b);
	t0 = clock_now_ns() - t0;
	close(fd);
	return t0;
}

/* The reader stops reading, and free is quick: not slower than a machine that stands still now and
 * then. */
static void stuck_reader(void **state)
{
	uint64_t end = clock_now_ns() + SERIAL_WAIT_NS;
	uint64_t took_ns;

	do
		took_ns = write_to_stuck_reader(state);
	while (took_ns >= 3 * NS_PER_S && clock_now_ns() < end);
	assert_true(took_ns < 3 * NS_PER_S);
}

static void pty_both_ways(void **state)
{
	struct sink s;
	struct serial_backend *b;
	struct termios raw;
	int fd;

	(void)state;
	sink_init(&s, sizeof(s.data));
	b = start("pty", &s);
	put(b, "login:\n");
	for (size_t i = 1; i <= 3; i++) { /* programs attach and detach */
		fd = open(serial_backend_path(b), O_RDWR | O_NOCTTY);
		assert_true(fd >= 0);
		assert_int_equal(tcgetattr(fd, &raw), 0);
		assert_int_equal(raw.c_lflag & (tcflag_t)(ECHO | ICANON), 0);
		expect_bytes(fd, i > 1 ? "again\n" : "login:\n");
		assert_int_equal(write(fd, "root\r", 5), 5);
		sink_wait(&s, 5 * i);
		close(fd);
		put(b, "again\n");
	}
	assert_memory_equal(s.data, "root\rroot\r", 10);
	serial_backend_free(b);
}

#define UNIT(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNIT(bad_specs),
		UNIT(null_swallows),
		UNIT(file_appends),
		UNIT(file_errors),
		UNIT(file_on_full_disk),
		UNIT(unix_errors),
		UNIT(unix_replaces_stale_socket),
		UNIT(unix_clients_come_and_go),
		UNIT(unix_half_close),
		UNIT(unix_deaf_guest),
		UNIT(stuck_reader),
		UNIT(pty_both_ways),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
