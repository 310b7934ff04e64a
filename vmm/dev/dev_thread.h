/* Threads of devices: no signal is ever delivered to one (they are for the loop and the vCPUs). */
#pragma once

#include <pthread.h>

#include "vmm/base/err.h"

/* @name shows in ps and gdb; at most 15 characters. */
int dev_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *arg,
		     struct err *e);
