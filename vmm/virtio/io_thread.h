/*
 * The thread a device's back end runs on, so that no vCPU waits for a disk or a socket: an epoll
 * loop over descriptors the device watches (queue kicks, tap, timerfd, io_uring's eventfd) and a
 * mailbox through which other threads run something on it.
 *
 * In one turn the loop serves the ready descriptors first and then the mailbox: a call made after a
 * kick finds the kick served.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"

struct io_thread;

/* A descriptor and who is told. Embedded in the owner's struct; stays where it is for as long as
 * the thread lives. Level-triggered: @ready is called again until it has taken what is there. */
struct io_watch {
	int fd;
	void (*ready)(void *ctx, uint32_t events); /* EPOLLIN, EPOLLOUT, ...; on the I/O thread */
	void *ctx;
	uint32_t events; /* what is watched now; 0: nothing. The thread's */
};

/* @name shows in ps and gdb; at most 15 characters. */
int io_thread_new(const char *name, struct io_thread **out, struct err *e);
/* Stops and joins; watched descriptors stay open, their owner closes them. NULL is allowed. */
void io_thread_free(struct io_thread *t);

/* Watch w->fd for @events (EPOLLIN...) from here on, instead of what it was watched for before; 0
 * ends it. Only on the I/O thread itself, that is in @ready or in a call. */
int io_thread_watch(struct io_thread *t, struct io_watch *w, uint32_t events, struct err *e);

/* Run @fn on the I/O thread and wait for it; what it returns and put into @e. From any thread but
 * the I/O thread. */
int io_thread_call(struct io_thread *t, int (*fn)(void *ctx, struct err *e), void *ctx,
		   struct err *e);
