#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "tests/unit/dev/serial_sink.h"

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

static void await_sink(struct sink *s, size_t len)
{
	uint64_t end = clock_now_ns() + SERIAL_WAIT_NS;

	while (sink_len(s) < len && clock_now_ns() < end)
		usleep(1000);
}

static int echo_until_full(struct sink *s, size_t len)
{
	struct err e = ERR_INIT;
	struct serial_backend *b;

	sink_init(s, sizeof(s->data));
	if (serial_backend_new("stdio", &b, &e) || serial_backend_start(b, sink_input, s, &e))
		return 10;
	await_sink(s, len);
	if (!comes_to_rest())
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
static int background_job(int shell)
{
	struct sink s;
	struct serial_backend *b;
	struct err e = ERR_INIT;
	struct termios now;

	sink_init(&s, 100);
	if (serial_backend_new("stdio", &b, &e) || serial_backend_start(b, sink_input, &s, &e))
		return 10;
	if (!comes_to_rest())
		return 11;
	if (tcgetattr(STDIN_FILENO, &now) || !(now.c_lflag & ICANON) || sink_len(&s))
		return 12;
	serial_backend_write(b, (const uint8_t *)"ready\n", 6);
	if (write(shell, "", 1) != 1) /* asks to be foregrounded */
		return 15;
	await_sink(&s, 4);
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
		_exit(background_job(go[1]));
	}
	close(go[1]);
	if (read(go[0], &byte, 1) == 1 && tcsetpgrp(STDIN_FILENO, job))
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
		UNIT(stdio_pipes_and_eof), UNIT(stdio_null_and_file), UNIT(stdio_missing_ends),
		UNIT(stdio_terminal),      UNIT(stdio_in_background),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
