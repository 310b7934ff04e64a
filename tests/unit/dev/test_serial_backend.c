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

#include "tests/unit/dev/fake_machine.h"

#define WAIT_NS (5 * NS_PER_S)

/* A receiver that takes at most `room` bytes. */
struct sink {
	pthread_mutex_t lock;
	char data[8192];
	size_t len;
	size_t room;
	int nr_calls;
};

static void sink_init(struct sink *s, size_t room)
{
	*s = (struct sink){.room = room};
	pthread_mutex_init(&s->lock, NULL);
}

static size_t sink_input(void *ctx, const uint8_t *data, size_t len)
{
	struct sink *s = ctx;

	pthread_mutex_lock(&s->lock);
	len = len < s->room - s->len ? len : s->room - s->len;
	memcpy(s->data + s->len, data, len);
	s->len += len;
	s->nr_calls++;
	pthread_mutex_unlock(&s->lock);
	return len;
}

static size_t sink_len(struct sink *s)
{
	size_t len;

	pthread_mutex_lock(&s->lock);
	len = s->len;
	pthread_mutex_unlock(&s->lock);
	return len;
}

static void sink_wait(struct sink *s, size_t len)
{
	uint64_t end = clock_now_ns() + WAIT_NS;

	while (sink_len(s) < len && clock_now_ns() < end)
		usleep(1000);
	assert_int_equal(sink_len(s), len);
}

static void sink_set_room(struct sink *s, size_t room)
{
	pthread_mutex_lock(&s->lock);
	s->room = room;
	pthread_mutex_unlock(&s->lock);
}

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

static int make_dir(void **state)
{
	char *dir = strdup("/tmp/godwit-serial-XXXXXX");

	assert_non_null(mkdtemp(dir));
	*state = dir;
	return 0;
}

static int remove_dir(void **state)
{
	if (rmdir(*state))
		return -1; /* something was left behind */
	free(*state);
	return 0;
}

static void file_path(char *out, size_t cap, const void *dir)
{
	snprintf(out, cap, "%s/x", (const char *)dir);
}

static int connect_to(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(a.sun_path, path, strlen(path) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void expect_bytes(int fd, const char *text)
{
	char got[256] = "";
	size_t len = strlen(text);

	for (size_t n = 0; n < len;) {
		ssize_t r = read(fd, got + n, len - n);

		assert_true(r > 0);
		n += (size_t)r;
	}
	assert_string_equal(got, text);
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

static uint64_t thread_cpu_ns(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * NS_PER_S +
	       ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * NS_PER_US;
}

/* The reader stops reading: writers never block, the oldest bytes are kept, free is quick. */
static void stuck_reader(void **state)
{
	char path[64];
	char spec[80];
	char first[64];
	char got[64];
	struct sink s;
	struct serial_backend *b;
	uint64_t t0;
	uint64_t cpu;
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
	assert_true(clock_now_ns() - t0 < 20 * NS_PER_S); /* and not for ever */
	assert_int_equal(recv(fd, got, strlen(first), MSG_WAITALL), strlen(first));
	assert_memory_equal(got, first, strlen(first));
	usleep(50000);
	cpu = thread_cpu_ns();
	usleep(200000);
	assert_true(thread_cpu_ns() - cpu < 100 * NS_PER_MS); /* it sleeps meanwhile */
	t0 = clock_now_ns();
	serial_backend_free(b);
	assert_true(clock_now_ns() - t0 < 3 * NS_PER_S);
	close(fd);
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

/* stdio needs a process of its own to have other standard streams. No thread may run in the parent
 * then: the thread sanitizer wants it so. */
static pid_t start_child(int in, int out, int (*body)(void))
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		dup2(in, STDIN_FILENO);
		dup2(out, STDOUT_FILENO);
		_exit(body());
	}
	return pid;
}

static int wait_child(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int in_child(int in, int out, int (*body)(void))
{
	return wait_child(start_child(in, out, body));
}

static int echo_until_full(struct sink *s, size_t len)
{
	struct err e = ERR_INIT;
	struct serial_backend *b;
	uint64_t cpu;

	sink_init(s, sizeof(s->data));
	if (serial_backend_new("stdio", &b, &e) || serial_backend_start(b, sink_input, s, &e))
		return 10;
	for (int i = 0; i < 3000 && sink_len(s) < len; i++)
		usleep(1000);
	cpu = thread_cpu_ns();
	usleep(100000);
	if (thread_cpu_ns() - cpu > 80 * NS_PER_MS)
		return 11; /* busy loop at the end of stdin */
	if (sink_len(s) != len)
		return 12;
	serial_backend_write(b, (const uint8_t *)s->data, s->len);
	serial_backend_free(b);
	return 0;
}

static int echo_hello(void)
{
	struct sink s;

	return echo_until_full(&s, 6);
}

static void stdio_pipes_and_eof(void **state)
{
	int in[2];
	int out[2];

	(void)state;
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(write(in[1], "hel\x01lo", 6), 6); /* no escapes without a terminal */
	close(in[1]);
	assert_int_equal(in_child(in[0], out[1], echo_hello), 0);
	expect_bytes(out[0], "hel\x01lo");
	assert_int_equal(fcntl(out[0], F_GETFL) & O_NONBLOCK, 0);
	close(in[0]);
	close(out[0]);
	close(out[1]);
}

static int echo_nothing(void)
{
	struct sink s;

	return echo_until_full(&s, 0);
}

static void stdio_null_and_file(void **state)
{
	char path[64];
	char got[64] = "";
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int fd;

	assert_int_equal(in_child(null, null, echo_nothing), 0);
	file_path(path, sizeof(path), *state);
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "kept:x", 6), 6);
	lseek(fd, 0, SEEK_SET);
	/* Input from and output to one file: what follows goes behind what is there. */
	assert_int_equal(in_child(fd, fd, echo_hello), 0);
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(read(fd, got, sizeof(got)), 12);
	assert_string_equal(got, "kept:xkept:x");
	close(fd);
	close(null);
	unlink(path);
}

static int closed_stdin(void)
{
	close(STDIN_FILENO);
	return echo_nothing();
}

static int broken_stdout(void)
{
	struct sink s;
	struct serial_backend *b;
	struct err e = ERR_INIT;

	sink_init(&s, 10);
	if (serial_backend_new("stdio", &b, &e) || serial_backend_start(b, sink_input, &s, &e))
		return 10;
	for (int i = 0; i < 100; i++) {
		serial_backend_write(b, (const uint8_t *)"gone\n", 5);
		usleep(500);
	}
	serial_backend_free(b);
	return 0;
}

static void stdio_missing_ends(void **state)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int out[2];
	int sv[2];

	(void)state;
	assert_int_equal(in_child(null, null, closed_stdin), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	close(out[0]);
	assert_int_equal(in_child(null, out[1], broken_stdout), 0); /* no death by SIGPIPE */
	close(out[1]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(write(sv[1], "socket", 6), 6);
	assert_int_equal(in_child(sv[0], sv[0], echo_hello), 0);
	expect_bytes(sv[1], "socket");
	assert_int_equal(fcntl(sv[0], F_GETFL) & O_NONBLOCK, 0); /* put back */
	close(sv[0]);
	close(sv[1]);
	close(null);
}

static int tty_session(void)
{
	struct sink s;
	struct serial_backend *b;
	struct err e = ERR_INIT;
	struct termios now;
	sigset_t term;
	int sig;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	sink_init(&s, 3); /* deaf after three bytes; the escape must work all the same */
	if (serial_backend_new("stdio", &b, &e) || serial_backend_start(b, sink_input, &s, &e))
		return 10;
	if (tcgetattr(STDIN_FILENO, &now) || (now.c_lflag & (ICANON | ECHO | ISIG)))
		return 11;
	serial_backend_write(b, (const uint8_t *)"ready\n", 6);
	sigwait(&term, &sig);
	serial_backend_free(b);
	if (tcgetattr(STDIN_FILENO, &now) || !(now.c_lflag & ICANON) || !(now.c_lflag & ECHO))
		return 12;
	return memcmp(s.data,
		      "a\x01"
		      "b",
		      3) != 0;
}

static void type_keys(int master)
{
	char junk[500];

	expect_bytes(master, "ready\r\n");
	memset(junk, 'j', sizeof(junk));
	assert_int_equal(write(master, "a\x01\x01", 3), 3);
	assert_int_equal(write(master, "b", 1), 1);
	for (int i = 0; i < 12; i++)
		assert_int_equal(write(master, junk, sizeof(junk)), sizeof(junk));
	assert_int_equal(write(master, "\x01", 1), 1); /* the escape in two pieces */
	usleep(20000);
	assert_int_equal(write(master, "x", 1), 1);
}

static void stdio_terminal(void **state)
{
	int master;
	int slave;
	pid_t child;

	(void)state;
	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	child = start_child(slave, slave, tty_session);
	type_keys(master);
	assert_int_equal(wait_child(child), 0);
	close(master);
	close(slave);
}

/* In the background of its terminal: neither stopped nor spinning, and the terminal is untouched
 * until it is brought to the foreground. */
static int background_job(void)
{
	struct sink s;
	struct serial_backend *b;
	struct err e = ERR_INIT;
	struct termios now;
	uint64_t cpu;

	sink_init(&s, 100);
	if (serial_backend_new("stdio", &b, &e) || serial_backend_start(b, sink_input, &s, &e))
		return 10;
	cpu = thread_cpu_ns();
	usleep(300000);
	if (thread_cpu_ns() - cpu > 100 * NS_PER_MS)
		return 11;
	if (tcgetattr(STDIN_FILENO, &now) || !(now.c_lflag & ICANON) || sink_len(&s))
		return 12;
	serial_backend_write(b, (const uint8_t *)"ready\n", 6); /* asks to be foregrounded */
	for (int i = 0; i < 5000 && sink_len(&s) < 4; i++)
		usleep(1000);
	if (tcgetattr(STDIN_FILENO, &now) || (now.c_lflag & ICANON))
		return 13;
	serial_backend_free(b);
	if (tcgetattr(STDIN_FILENO, &now) || !(now.c_lflag & ICANON))
		return 14;
	return memcmp(s.data, "typ\n", 4) != 0 && memcmp(s.data, "typ\r", 4) != 0;
}

/* A shell's part: session leader that starts a job in the background and foregrounds it. */
static int shell(void)
{
	int go[2];
	char byte;
	int status;
	pid_t job;

	if (setsid() < 0 || ioctl(STDIN_FILENO, TIOCSCTTY, 0) || pipe(go))
		return 20;
	signal(SIGTTOU, SIG_IGN);
	job = fork();
	if (!job) {
		signal(SIGTTOU, SIG_DFL);
		setpgid(0, 0);
		_exit(write(go[1], "", 1) == 1 ? background_job() : 21);
	}
	if (read(go[0], &byte, 1) != 1)
		return 22;
	usleep(600000);
	if (tcsetpgrp(STDIN_FILENO, job))
		return 23;
	if (waitpid(job, &status, WUNTRACED) != job || !WIFEXITED(status))
		return 24;
	return WEXITSTATUS(status);
}

static void stdio_in_background(void **state)
{
	int master;
	int slave;
	pid_t child;

	(void)state;
	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	child = start_child(slave, slave, shell);
	assert_int_equal(write(master, "typ\n", 4), 4);
	expect_bytes(master, "typ\r\nready\r\n"); /* echoed: nobody made it raw yet */
	assert_int_equal(wait_child(child), 0);
	close(master);
	close(slave);
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
		UNIT(stdio_pipes_and_eof),
		UNIT(stdio_null_and_file),
		UNIT(stdio_missing_ends),
		UNIT(stdio_terminal),
		UNIT(stdio_in_background),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
