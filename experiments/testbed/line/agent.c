/* Runs commands for the machine that started this one, one at a time on each virtio-serial port:
 * agent PORT... (device files). One process a port; the command's group dies with its caller. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "frame.h"

#define WORDS_MAX 1024

struct line {
	int port;
	struct frame in;
	pid_t child;                 /* 0: none runs */
	int to_child, from_child[2]; /* -1: closed */
};

static const enum frame_type output_type[2] = {FRAME_STDOUT, FRAME_STDERR};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- The port ---- */

static void say(struct line *l, enum frame_type type, const void *payload, size_t bytes)
{
	struct frame f;

	frame_compose(&f, type, bytes);
	memcpy(f.wire.payload, payload, bytes);
	while (!frame_whole(&f)) {
		ssize_t put = write(l->port, (char *)&f.wire + f.done, FRAME_HEAD + bytes - f.done);

		if (put < 0 && errno != EINTR && errno != EAGAIN)
			return;
		f.done += put > 0 ? (size_t)put : 0;
	}
}

/* ---- The command ---- */

static void become(struct line *l, int *in, int (*out)[2])
{
	static const char *const path =
		"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	char *words[WORDS_MAX + 1];
	sigset_t none;
	size_t nr = 0;

	for (char *w = (char *)l->in.wire.payload, *end = w + l->in.wire.bytes;
	     nr < WORDS_MAX && w < end; w += strlen(w) + 1)
		words[nr++] = w;
	words[nr] = NULL;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	signal(SIGPIPE, SIG_DFL);
	dup2(in[0], 0);
	dup2(out[0][1], 1);
	dup2(out[1][1], 2);
	setenv("PATH", path, 1);
	setenv("HOME", "/root", 1);
	if (chdir("/tree") == 0 && nr > 0)
		execvp(words[0], words);
	fprintf(stderr, "%s: %s\n", words[0] ? words[0] : "no command", strerror(errno));
	_exit(127);
}

static void start(struct line *l)
{
	int in[2], out[2][2], status = 126;

	if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out[0], O_CLOEXEC) != 0 ||
	    pipe2(out[1], O_CLOEXEC) != 0 || (l->child = fork()) < 0) {
		l->child = 0;
		say(l, FRAME_EXIT, &status, sizeof(status));
		return;
	}
	if (l->child == 0)
		become(l, in, out);
	close(in[0]);
	close(out[0][1]);
	close(out[1][1]);
	l->to_child = in[1];
	l->from_child[0] = out[0][0];
	l->from_child[1] = out[1][0];
	fcntl(in[1], F_SETFL, O_NONBLOCK);
	fcntl(out[0][0], F_SETFL, O_NONBLOCK);
	fcntl(out[1][0], F_SETFL, O_NONBLOCK);
}

/* One piece of output; false: there is none now. */
static bool pass_output(struct line *l, int i)
{
	uint8_t buf[FRAME_PAYLOAD_MAX];
	ssize_t got = l->from_child[i] < 0 ? -1 : read(l->from_child[i], buf, sizeof(buf));

	if (got > 0)
		say(l, output_type[i], buf, (size_t)got);
	else if (got == 0)
		close_fd(&l->from_child[i]);
	return got > 0;
}

/* What a command leaves running in the background may hold its output open for ever, so the end is
 * the command's own end plus what is in the pipes by then. */
static void finish(struct line *l, int wait_status)
{
	int status =
		WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);

	while (pass_output(l, 0) || pass_output(l, 1))
		;
	close_fd(&l->to_child);
	close_fd(&l->from_child[0]);
	close_fd(&l->from_child[1]);
	l->child = 0;
	say(l, FRAME_EXIT, &status, sizeof(status));
}

static void reap(struct line *l)
{
	int status;

	if (l->child != 0 && waitpid(l->child, &status, WNOHANG) == l->child)
		finish(l, status);
}

static void end_command(struct line *l)
{
	int status;

	if (l->child == 0)
		return;
	kill(-l->child, SIGKILL);
	kill(l->child, SIGKILL);
	waitpid(l->child, &status, 0);
	finish(l, status);
}

/* Until the command takes more input. One that waits for its output to be taken takes none, and one
 * that has ended never will. */
static void wait_for_appetite(struct line *l)
{
	struct pollfd p = {.fd = l->to_child, .events = POLLOUT};

	pass_output(l, 0);
	pass_output(l, 1);
	poll(&p, 1, 10);
	reap(l);
}

static void feed(struct line *l)
{
	size_t done = 0;

	if (l->in.wire.bytes == 0)
		close_fd(&l->to_child);
	while (l->to_child >= 0 && done < l->in.wire.bytes) {
		ssize_t put =
			write(l->to_child, l->in.wire.payload + done, l->in.wire.bytes - done);

		if (put > 0)
			done += (size_t)put;
		else if (errno != EAGAIN)
			close_fd(&l->to_child);
		else
			wait_for_appetite(l);
	}
}

/* ---- The line ---- */

static void obey(struct line *l)
{
	if (l->in.wire.type == FRAME_START)
		start(l);
	else if (l->in.wire.type == FRAME_STDIN)
		feed(l);
	else if (l->in.wire.type == FRAME_KILL)
		end_command(l);
}

static void take(struct line *l)
{
	ssize_t got =
		read(l->port, (char *)&l->in.wire + l->in.done, frame_bytes(&l->in) - l->in.done);

	if (got == 0) /* the operator is gone, and will not come back */
		sleep(1);
	l->in.done += got > 0 ? (size_t)got : 0;
	if (frame_whole(&l->in)) {
		obey(l);
		l->in.done = 0;
	}
}

static void wake(int signal)
{
	(void)signal;
}

static void serve(struct line *l)
{
	sigset_t blocked, open;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	sigprocmask(SIG_BLOCK, &blocked, &open);
	for (;;) {
		struct pollfd p[3] = {{.fd = l->port, .events = POLLIN},
				      {.fd = l->from_child[0], .events = POLLIN},
				      {.fd = l->from_child[1], .events = POLLIN}};

		if (ppoll(p, 3, NULL, &open) > 0) {
			if (p[0].revents)
				take(l);
			for (int i = 0; i < 2; i++)
				if (p[i + 1].revents)
					pass_output(l, i);
		}
		reap(l);
	}
}

static int serve_port(const char *name)
{
	struct line l = {.to_child = -1, .from_child = {-1, -1}};
	struct sigaction action = {.sa_handler = wake};

	sigaction(SIGCHLD, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	l.port = open(name, O_RDWR | O_CLOEXEC);
	if (l.port < 0) {
		fprintf(stderr, "agent: %s: %s\n", name, strerror(errno));
		return 1;
	}
	serve(&l);
	return 0;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (fork() == 0)
			return serve_port(argv[i]);
	for (;;) /* PID 1: whatever loses its parent ends here */
		if (wait(NULL) < 0)
			sleep(1);
}
