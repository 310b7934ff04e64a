#include "control/ending_signals.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const int signums[ENDING_SIGNALS] = {SIGINT, SIGTERM, SIGHUP};

static bool is_ignored(int signum)
{
	struct sigaction old;

	return signum == SIGHUP && !sigaction(signum, NULL, &old) && old.sa_handler == SIG_IGN;
}

void ending_signals_watch(struct ending_signals *s, uv_loop_t *loop, uv_signal_cb on_signal,
			  void *data)
{
	for (int i = 0; i < ENDING_SIGNALS; i++) {
		uv_signal_init(loop, &s->at[i]);
		s->at[i].data = data;
		if (!is_ignored(signums[i]))
			uv_signal_start(&s->at[i], on_signal, signums[i]);
	}
}

void ending_signals_close(struct ending_signals *s)
{
	for (int i = 0; i < ENDING_SIGNALS; i++)
		uv_close((uv_handle_t *)&s->at[i], NULL);
}

int ending_signals_open(struct err *e)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (int i = 0; i < ENDING_SIGNALS; i++)
		if (!is_ignored(signums[i]))
			sigaddset(&set, signums[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_sys(e, "signalfd") : fd;
}

bool ending_signals_take(int fd)
{
	struct signalfd_siginfo info;

	return read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info);
}
