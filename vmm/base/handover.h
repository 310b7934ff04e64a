/*
 * Connections that change processes: one process accepts them, another one serves them.
 *
 * Descriptors travel over a unix socket of type SOCK_SEQPACKET, one in each message (unix(7),
 * SCM_RIGHTS). What the peer of such a connection has already sent stays in it. Any thread; nothing
 * here waits.
 */
#pragma once

#include "vmm/base/err.h"

/* The two ends, close-on-exec. */
int handover_pair(int ends[2], struct err *e);

/* Give @fd away; the caller still closes its own copy. Fails when the other end is gone, or has
 * too many waiting. */
int handover_give(int end, int fd, struct err *e);

/* The next descriptor, close-on-exec. -EAGAIN (and @e untouched) when none has come yet; ERR_PEER
 * when the giver is gone. */
int handover_take(int end, struct err *e);
