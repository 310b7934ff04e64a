/* Runs one command in a testbed machine.
 *
 *   line [-i] [-t SECONDS] SOCKET COMMAND [ARG]...
 *
 * SOCKET is where the machine's operator listens. -i passes standard input on; else the command's
 * is empty. Exit status: the command's; 124 the time is over; 125 the machine is not there (any
 * more), or all its lines are taken. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "frame.h"

static void die(const char *what, const char *why)
{
	fprintf(stderr, "line: %s: %s\n", what, why);
	exit(125);
}

static int call(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0)
		die("the machine is not up", strerror(errno));
	return fd;
}

/* As much as the machine takes now: a command that waits for its output to be read takes nothing.
 */
static void send_some(int fd, struct frame *f)
{
	ssize_t put = send(fd, (char *)&f->wire + f->done, FRAME_HEAD + f->wire.bytes - f->done,
			   MSG_NOSIGNAL | MSG_DONTWAIT);

	if (put < 0 && errno != EINTR && errno != EAGAIN)
		f->done = FRAME_HEAD + f->wire.bytes; /* why nobody takes it, the answer tells */
	else
		f->done += put > 0 ? (size_t)put : 0;
}

static void compose_command(struct frame *f, char **words)
{
	size_t used = 0;

	for (; *words != NULL; words++) {
		size_t bytes = strlen(*words) + 1;

		if (used + bytes > sizeof(f->wire.payload))
			die(*words, "the command line is too long");
		memcpy(f->wire.payload + used, *words, bytes);
		used += bytes;
	}
	frame_compose(f, FRAME_START, used);
}

/* An empty frame is the end of the input; false then. */
static bool compose_input(struct frame *f, bool input)
{
	ssize_t got = input ? read(0, f->wire.payload, sizeof(f->wire.payload)) : 0;

	frame_compose(f, FRAME_STDIN, got > 0 ? (size_t)got : 0);
	return got > 0;
}

static void put_all(int fd, const uint8_t *p, size_t bytes)
{
	while (bytes > 0) {
		ssize_t put = write(fd, p, bytes);

		if (put < 0 && errno != EINTR)
			exit(125); /* nobody wants the output: the command ends with us */
		if (put > 0) {
			p += put;
			bytes -= (size_t)put;
		}
	}
}

/* True: it was the last, with @status. */
static bool take_frame(const struct frame *f, int *status)
{
	if (f->wire.type == FRAME_STDOUT)
		put_all(1, f->wire.payload, f->wire.bytes);
	else if (f->wire.type == FRAME_STDERR)
		put_all(2, f->wire.payload, f->wire.bytes);
	else if (f->wire.type == FRAME_EXIT)
		memcpy(status, f->wire.payload, sizeof(*status));
	return f->wire.type == FRAME_EXIT;
}

/* Reads what there is; true: the command has ended. */
static bool take_answer(int fd, struct frame *f, int *status)
{
	ssize_t got = recv(fd, (char *)&f->wire + f->done, frame_bytes(f) - f->done, 0);

	if (got == 0 || (got < 0 && errno != EINTR))
		die("the machine died, or its lines are all taken",
		    got == 0 ? "end of line" : strerror(errno));
	f->done += got > 0 ? (size_t)got : 0;
	if (!frame_sound(f))
		die("the line", "garbled");
	if (!frame_whole(f))
		return false;
	f->done = 0;
	return take_frame(f, status);
}

static int run(int fd, char **words, bool input)
{
	struct frame out, in = {.done = 0};
	bool ended = false; /* the end of the input has been composed */
	int status = 125;

	compose_command(&out, words);
	for (;;) {
		bool idle = frame_whole(&out);
		struct pollfd p[2] = {{.fd = fd, .events = (short)(POLLIN | (idle ? 0 : POLLOUT))},
				      {.fd = idle && input && !ended ? 0 : -1, .events = POLLIN}};

		if (idle && !input && !ended) {
			ended = !compose_input(&out, false);
			continue;
		}
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			ended = !compose_input(&out, true);
		if (p[0].revents & POLLOUT)
			send_some(fd, &out);
		if ((p[0].revents & ~POLLOUT) && take_answer(fd, &in, &status))
			return status;
	}
}

static void out_of_time(int signal)
{
	static const char text[] = "line: the command did not end in time and was killed\n";

	(void)signal;
	(void)!write(2, text, sizeof(text) - 1);
	_exit(124);
}

int main(int argc, char **argv)
{
	bool input = false;
	int option;

	while ((option = getopt(argc, argv, "+it:")) != -1) {
		if (option == 'i')
			input = true;
		else if (option == 't' && atoi(optarg) > 0)
			alarm((unsigned)atoi(optarg));
		else
			return 125;
	}
	if (argc - optind < 2) {
		fprintf(stderr, "usage: line [-i] [-t SECONDS] SOCKET COMMAND [ARG]...\n");
		return 125;
	}
	signal(SIGALRM, out_of_time);
	return run(call(argv[optind]), argv + optind + 1, input);
}
