/*
 * Standard input and output. On a terminal: raw while we are in the foreground, Ctrl-A x ends the
 * program, Ctrl-A Ctrl-A is one Ctrl-A, Ctrl-A followed by anything else is swallowed with it.
 * Elsewhere (pipes, files, sockets) bytes pass through unchanged.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/dev/serial_port.h"

#define CTRL_A 0x01

struct standard_fd {
	int fd;             /* ours; -1: that stream is closed */
	bool shared_flags;  /* it is a dup on which we had to set O_NONBLOCK */
	int original_flags; /* to be put back */
};

struct stdio {
	struct standard_fd in;
	struct standard_fd out;
	bool in_is_tty;
	bool raw;
	struct termios original;
	bool escape; /* Ctrl-A was the last byte */
};

/*
 * O_NONBLOCK belongs to the open file description, which we share with our parent shell and with
 * stderr. So open the file anew where that works (terminals, pipes); a regular file must not be (it
 * would start again at offset 0) and need not be (it never blocks). What remains are sockets and
 * other users' terminals: there the flag is set and put back.
 */
static int open_standard(struct standard_fd *s, int number, int access_mode)
{
	char path[32];
	struct stat st;

	*s = (struct standard_fd){.fd = -1};
	if (fstat(number, &st))
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", number);
	if (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode))
		s->fd = open(path, access_mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (s->fd >= 0)
		return s->fd;
	s->fd = fcntl(number, F_DUPFD_CLOEXEC, 3);
	if (s->fd >= 0 && !S_ISREG(st.st_mode)) {
		s->original_flags = fcntl(s->fd, F_GETFL);
		s->shared_flags = !(s->original_flags & O_NONBLOCK);
		fcntl(s->fd, F_SETFL, s->original_flags | O_NONBLOCK);
	}
	return s->fd;
}

static void close_standard(struct standard_fd *s)
{
	if (s->fd < 0)
		return;
	if (s->shared_flags)
		fcntl(s->fd, F_SETFL, s->original_flags);
	close(s->fd);
}

/* Is the terminal ours to read and to change? One that is not our controlling terminal has no
 * notion of foreground for us (ENOTTY), and is. */
static bool in_foreground(const struct stdio *s)
{
	pid_t group = tcgetpgrp(s->in.fd);

	return group < 0 ? errno == ENOTTY : group == getpgrp();
}

static void set_terminal(struct stdio *s, const struct termios *settings)
{
	sigset_t ttou;
	sigset_t old;

	/* Should we slip into the background just now, fail instead of being stopped. */
	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &ttou, &old);
	tcsetattr(s->in.fd, TCSADRAIN, settings);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void make_raw(struct stdio *s)
{
	struct termios raw;

	if (s->raw || tcgetattr(s->in.fd, &s->original))
		return;
	raw = s->original;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST; /* our own messages end in a bare line feed */
	set_terminal(s, &raw);
	s->raw = true;
}

static bool stdio_may_read(struct serial_port *p)
{
	struct stdio *s = p->priv;

	if (!s->in_is_tty)
		return true;
	/* A background process that reads its terminal gets EIO (with SIGTTIN blocked) while poll
	 * goes on reporting input. Wait to be brought to the foreground. */
	if (!in_foreground(s))
		return false;
	make_raw(s);
	return true;
}

static int stdio_open(struct serial_port *p, const char *path, struct err *e)
{
	struct stdio *s = calloc(1, sizeof(*s));

	(void)path;
	if (!s)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for serial stdio");
	p->priv = s;
	p->in_fd = open_standard(&s->in, STDIN_FILENO, O_RDONLY);
	p->out_fd = open_standard(&s->out, STDOUT_FILENO, O_WRONLY);
	s->in_is_tty = s->in.fd >= 0 && isatty(s->in.fd);
	p->drop_excess_input = s->in_is_tty;
	if (s->in_is_tty && in_foreground(s))
		make_raw(s);
	return 0;
}

static void stdio_close(struct serial_port *p)
{
	struct stdio *s = p->priv;

	/* In the background the shell has put its own settings back already. */
	if (s->raw && in_foreground(s))
		set_terminal(s, &s->original);
	close_standard(&s->in);
	close_standard(&s->out);
	free(s);
}

/* The byte after Ctrl-A; returns whether the guest gets it. */
static bool escaped(uint8_t byte)
{
	/* Not raise(): this thread blocks every signal. */
	if (byte == 'x')
		kill(getpid(), SIGTERM);
	return byte == CTRL_A;
}

static size_t stdio_filter(struct serial_port *p, uint8_t *data, size_t len)
{
	struct stdio *s = p->priv;
	size_t kept = 0;

	if (!s->in_is_tty)
		return len;
	for (size_t i = 0; i < len; i++) {
		bool after_escape = s->escape;

		s->escape = !after_escape && data[i] == CTRL_A;
		if (after_escape ? escaped(data[i]) : !s->escape)
			data[kept++] = data[i];
	}
	return kept;
}

const struct serial_kind serial_stdio = {
	.name = "stdio",
	.open = stdio_open,
	.close = stdio_close,
	.may_read = stdio_may_read,
	.filter = stdio_filter,
};
