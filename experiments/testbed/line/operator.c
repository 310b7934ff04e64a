/* Connects callers with a machine's lines: operator LINES-SOCKET NR COMMANDS-SOCKET
 *
 * QEMU's NR virtio-serial ports connect to LINES-SOCKET and stay; callers connect to
 * COMMANDS-SOCKET, one connection a command. Why it exists: a port that is closed and opened again
 * tells its machine so only some time later, out of order with the bytes, so ports are never closed
 * here. A caller that goes away has its command killed. Ends when the machine does. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "frame.h"

#define LINES_MAX 32

/* Frames pass one at a time in each direction; the next is read when the last is sent. */
struct line {
	int machine;
	int caller; /* -1: none */
	bool busy;  /* START was sent, EXIT has not come back */
	bool kill;  /* the caller is gone; KILL is to be sent at the next frame's boundary */
	struct frame up, down;
	bool up_sending, down_sending;
};

/* Has its name only once it takes connections: whoever waits for the name connects at once. */
static int listen_at(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s.new", path);
	unlink(a.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 64) != 0 ||
	    rename(a.sun_path, path) != 0) {
		perror(path);
		exit(1);
	}
	return fd;
}

/* 1: some bytes or none came; 0: the other end is gone. */
static bool receive(int fd, struct frame *f)
{
	ssize_t got = recv(fd, (char *)&f->wire + f->done, frame_bytes(f) - f->done, MSG_DONTWAIT);

	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
		return false;
	f->done += got > 0 ? (size_t)got : 0;
	return frame_sound(f);
}

static bool transmit(int fd, struct frame *f)
{
	ssize_t put = send(fd, (char *)&f->wire + f->done, FRAME_HEAD + f->wire.bytes - f->done,
			   MSG_DONTWAIT | MSG_NOSIGNAL);

	if (put < 0 && errno != EAGAIN && errno != EINTR)
		return false;
	f->done += put > 0 ? (size_t)put : 0;
	return true;
}

static void machine_died(void)
{
	exit(0); /* closes the callers' connections, and so they know */
}

static void drop_caller(struct line *l)
{
	if (l->caller >= 0)
		close(l->caller);
	l->caller = -1;
	l->kill = l->busy;
	if (!l->up_sending)
		l->up.done = 0; /* half a frame of somebody who is gone */
}

/* ---- Caller to machine ---- */

static void begin_up(struct line *l)
{
	l->up.done = 0;
	l->up_sending = true;
	l->busy |= l->up.wire.type == FRAME_START;
}

static void from_caller(struct line *l)
{
	if (!receive(l->caller, &l->up))
		drop_caller(l);
	else if (frame_whole(&l->up))
		begin_up(l);
}

static void to_machine(struct line *l)
{
	if (!transmit(l->machine, &l->up))
		machine_died();
	if (frame_whole(&l->up)) {
		l->up_sending = false;
		l->up.done = 0;
	}
}

/* ---- Machine to caller ---- */

static void end_down(struct line *l)
{
	if (l->down.wire.type == FRAME_EXIT) {
		l->busy = false;
		drop_caller(l);
	}
	l->down_sending = false;
	l->down.done = 0;
}

static void from_machine(struct line *l)
{
	if (!receive(l->machine, &l->down))
		machine_died();
	if (!frame_whole(&l->down))
		return;
	l->down_sending = l->caller >= 0;
	if (l->down_sending)
		l->down.done = 0;
	else
		end_down(l);
}

static void to_caller(struct line *l)
{
	if (l->caller >= 0 && !transmit(l->caller, &l->down)) {
		drop_caller(l);
		l->down.done = FRAME_HEAD + l->down.wire.bytes;
	}
	if (frame_whole(&l->down))
		end_down(l);
}

/* ---- The loop ---- */

static void turn_line(struct line *l, const struct pollfd *machine, const struct pollfd *caller)
{
	if (machine->revents & POLLOUT)
		to_machine(l);
	if (machine->revents & (POLLIN | POLLHUP | POLLERR) && !l->down_sending)
		from_machine(l);
	if (l->caller >= 0 && caller->fd == l->caller) {
		if (caller->revents & POLLOUT)
			to_caller(l);
		else if (caller->revents & POLLIN && !l->up_sending)
			from_caller(l);
		else if (caller->revents & (POLLHUP | POLLERR))
			drop_caller(l);
	}
	if (l->caller < 0 && l->down_sending)
		end_down(l);
	if (l->kill && !l->up_sending) {
		frame_compose(&l->up, FRAME_KILL, 0);
		l->up_sending = true;
		l->kill = false;
	}
}

static void new_caller(struct line *lines, int nr, int commands)
{
	int fd = accept4(commands, NULL, NULL, SOCK_CLOEXEC);

	for (int i = 0; i < nr; i++) {
		if (fd >= 0 && lines[i].caller < 0 && !lines[i].busy && !lines[i].up_sending) {
			lines[i].caller = fd;
			return;
		}
	}
	if (fd >= 0)
		close(fd); /* all lines are taken */
}

static void serve(struct line *lines, int nr, int commands)
{
	struct pollfd p[2 * LINES_MAX + 1];

	for (;;) {
		for (int i = 0; i < nr; i++) {
			const struct line *l = &lines[i];

			p[2 * i] = (struct pollfd){.fd = l->machine};
			p[2 * i].events = (short)((l->up_sending ? POLLOUT : 0) |
						  (l->down_sending ? 0 : POLLIN));
			p[2 * i + 1] = (struct pollfd){.fd = l->caller};
			p[2 * i + 1].events = (short)((l->down_sending ? POLLOUT : 0) |
						      (l->up_sending ? 0 : POLLIN));
		}
		p[2 * nr] = (struct pollfd){.fd = commands, .events = POLLIN};
		if (poll(p, (nfds_t)(2 * nr + 1), -1) < 0)
			continue;
		for (int i = 0; i < nr; i++)
			turn_line(&lines[i], &p[2 * i], &p[2 * i + 1]);
		if (p[2 * nr].revents & POLLIN)
			new_caller(lines, nr, commands);
	}
}

int main(int argc, char **argv)
{
	static struct line lines[LINES_MAX];
	int nr = argc == 4 ? atoi(argv[2]) : 0, fd;

	if (nr < 1 || nr > LINES_MAX) {
		fprintf(stderr, "usage: operator LINES-SOCKET NR COMMANDS-SOCKET\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	fd = listen_at(argv[1]);
	for (int i = 0; i < nr; i++) {
		lines[i].machine = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		lines[i].caller = -1;
		if (lines[i].machine < 0)
			return 1;
	}
	close(fd);
	serve(lines, nr, listen_at(argv[3]));
}
