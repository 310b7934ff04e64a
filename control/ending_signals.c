#include "control/ending_signals.h"

#include <signal.h>
#include <stdbool.h>

static bool is_ignored(int signum)
{
	struct sigaction old;

	return signum == SIGHUP && !sigaction(signum, NULL, &old) && old.sa_handler == SIG_IGN;
}

void ending_signals_watch(struct ending_signals *s, uv_loop_t *loop, uv_signal_cb on_signal,
			  void *data)
{
	static const int signums[ENDING_SIGNALS] = {SIGINT, SIGTERM, SIGHUP};

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
