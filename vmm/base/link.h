/*
 * A connected stream socket (TCP or unix) with blocking, cancellable, time-limited calls.
 *
 * A link belongs to one sending and one receiving thread at a time. Every wait ends early when the
 * link's cancellation token is requested (ERR_CANCELLED) and when the peer makes no progress for
 * the stall time (ERR_PEER). A peer whose host vanished is noticed by TCP_USER_TIMEOUT and
 * keepalive within about LINK_DEAD_PEER_S even while nothing is being waited for.
 *
 * The process must ignore SIGPIPE: sendfile(2) has no flag against it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/base/cancel.h"
#include "vmm/base/err.h"
#include "vmm/base/uri.h"

#define LINK_DEAD_PEER_S 10

struct link;
struct link_listener;

/* Connect within @timeout_ns. @cancel may be NULL and must outlive the link. */
int link_connect(const struct uri *uri, uint64_t timeout_ns, const struct cancel *cancel,
		 struct link **out, struct err *e);

/* Wrap a connected socket; the link owns @fd from here on, also on failure. */
int link_from_fd(int fd, const struct cancel *cancel, struct link **out, struct err *e);
void link_free(struct link *l);

/* No wait for the peer takes longer than this; 0 means for ever. Default: for ever. */
void link_set_stall_timeout(struct link *l, uint64_t ns);

/* Wait for input, or the peer's hanging up, within the stall timeout. Input that has come counts
 * even when the link was cancelled meanwhile. */
int link_await_input(struct link *l, struct err *e);

/* From here on cancellation does not touch this link (a migration past its commit point). */
void link_forget_cancel(struct link *l);

int link_send(struct link *l, const void *data, size_t len, struct err *e);
int link_recv(struct link *l, void *data, size_t len, struct err *e);

/* Scatter/gather of everything in @iov, which is consumed (changed) on the way. */
int link_sendv(struct link *l, struct iovec *iov, int nr_iov, struct err *e);
int link_recvv(struct link *l, struct iovec *iov, int nr_iov, struct err *e);

/* As link_sendv; @more says that more follows at once, so that a small head does not leave in a
 * packet of its own (MSG_MORE). */
int link_sendv_more(struct link *l, struct iovec *iov, int nr_iov, bool more, struct err *e);

/* Send @len bytes of the file @fd from @offset without copying them through user space. The bytes
 * on the wire are those the file holds when they are transmitted, not when this call returns. */
int link_sendfile(struct link *l, int fd, uint64_t offset, size_t len, struct err *e);

/* As link_sendv, but the socket takes references to the pages of @iov instead of copying them; they
 * are read when they are transmitted, not when this call returns. @pipe_fds is a
 * pipe of any size, empty before and after. */
int link_splicev(struct link *l, const int pipe_fds[2], struct iovec *iov, int nr_iov,
		 struct err *e);

/* Move up to @len bytes into the pipe @pipe_fd, by reference where the socket can: how many, at
 * least one. The pipe must have room, because a full one cannot be told from a silent peer. */
ssize_t link_recvpipe(struct link *l, int pipe_fd, size_t len, struct err *e);

/* Wake and fail whatever waits on the link. Any thread. */
void link_shutdown(struct link *l);

int link_fd(const struct link *l);

/* Wait until @fd is ready for the poll(2) @events; @cancel may be NULL, @timeout_ns 0 is for ever.
 */
int link_poll(int fd, short events, const struct cancel *cancel, uint64_t timeout_ns,
	      struct err *e);

/* The same, and it ends with ERR_PEER when the peer of @beside (NULL: none) hangs up meanwhile. */
int link_poll_beside(int fd, short events, const struct link *beside, const struct cancel *cancel,
		     uint64_t timeout_ns, struct err *e);

uint64_t link_sent_bytes(const struct link *l);
uint64_t link_received_bytes(const struct link *l);

/* Opening links: link_open.c. */

/* Listen at @uri: port 0 picks one; a stale unix socket that nobody serves is replaced. */
int link_listen(const struct uri *uri, struct link_listener **out, struct err *e);

/* Connections come over @end (vmm/base/handover.h) from a process that listens at @address. The
 * listener owns @end from here on, also on failure. */
int link_listen_handed(int end, const char *address, struct link_listener **out, struct err *e);

/* @beside (may be NULL): a connection of the one we wait for; if that ends, nobody will come. */
int link_accept(struct link_listener *ll, const struct link *beside, uint64_t timeout_ns,
		const struct cancel *cancel, struct link **out, struct err *e);

/* Without waiting, for event loops: the descriptor of a connection, or -EAGAIN (@e untouched) when
 * there is none now. link_listener_fd() is readable when it is worth a try. */
int link_accept_fd(struct link_listener *ll, struct err *e);
int link_listener_fd(const struct link_listener *ll);

/* The address actually bound, as a URI that link_connect() takes. */
const char *link_listener_address(const struct link_listener *ll);
void link_listener_free(struct link_listener *ll);
