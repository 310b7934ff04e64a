#include "vmm/dev/dev_thread.h"

#include <signal.h>

int dev_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *arg,
		     struct err *e)
{
	sigset_t all;
	sigset_t old;
	int code;

	/* The mask is inherited, so there is no moment at which the new thread can be hit. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	code = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (code)
		return err_set(e, ERR_SYS, code,
			       "cannot start thread %s; raise the limit on processes (ulimit -u)",
			       name);
	pthread_setname_np(*thread, name);
	return 0;
}
