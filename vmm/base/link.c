#include "vmm/base/link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "vmm/base/clock.h"

struct link {
	/* immutable after new */
	int fd;
	/* changed only while one thread uses the link */
	const struct cancel *cancel;
	uint64_t stall_ns;
	/* written by the one sender / the one receiver, read by anybody */
	_Atomic uint64_t sent;
	_Atomic uint64_t received;
};

static void tune(int fd)
{
	int on = 1;
	int idle_s = LINK_DEAD_PEER_S / 2;
	int interval_s = 1;
	int probes = LINK_DEAD_PEER_S / 2;
	int user_timeout_ms = LINK_DEAD_PEER_S * 1000;

	/* These fail with ENOTSUP/EOPNOTSUPP on unix sockets, where they mean nothing. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof(user_timeout_ms));
}

int link_from_fd(int fd, const struct cancel *cancel, struct link **out, struct err *e)
{
	struct link *l = calloc(1, sizeof(*l));

	if (!l) {
		close(fd);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a connection");
	}
	l->fd = fd;
	l->cancel = cancel;
	/* Non-blocking, so that every wait is ours to cancel: sendfile() knows no MSG_DONTWAIT. */
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	tune(fd);
	*out = l;
	return 0;
}

void link_free(struct link *l)
{
	if (!l)
		return;
	close(l->fd);
	free(l);
}

void link_set_stall_timeout(struct link *l, uint64_t ns)
{
	l->stall_ns = ns;
}

void link_forget_cancel(struct link *l)
{
	l->cancel = NULL;
}

void link_shutdown(struct link *l)
{
	shutdown(l->fd, SHUT_RDWR);
}

int link_fd(const struct link *l)
{
	return l->fd;
}

uint64_t link_sent_bytes(const struct link *l)
{
	return atomic_load_explicit(&l->sent, memory_order_relaxed);
}

uint64_t link_received_bytes(const struct link *l)
{
	return atomic_load_explicit(&l->received, memory_order_relaxed);
}

/* Never ECONNABORTED: that code is kept for a peer that says ABORT in so many words. */
static int peer_gone(int code, struct err *e)
{
	if (code == ECONNABORTED)
		code = ECONNRESET;
	if (code == ETIMEDOUT)
		return err_set(e, ERR_PEER, code,
			       "the peer's host stopped answering (link cut or host down)");
	return err_set(e, ERR_PEER, code, "the connection broke (%s); see what the other side said",
		       strerrordesc_np(code));
}

static int hung_up(struct err *e)
{
	return err_set(e, ERR_PEER, ECONNRESET,
		       "the peer closed the connection; see what the other side said");
}

int link_poll_beside(int fd, short events, const struct link *beside, const struct cancel *cancel,
		     uint64_t timeout_ns, struct err *e)
{
	struct pollfd pfds[3] = {{.fd = fd, .events = events},
				 {.fd = cancel ? cancel_fd(cancel) : -1, .events = POLLIN},
				 {.fd = beside ? beside->fd : -1, .events = POLLRDHUP}};
	uint64_t deadline = clock_now_ns() + timeout_ns;

	for (;;) {
		struct timespec left = {0};
		uint64_t now = clock_now_ns();
		int nr;

		if (timeout_ns && now < deadline) {
			left.tv_sec = (time_t)((deadline - now) / NS_PER_S);
			left.tv_nsec = (long)((deadline - now) % NS_PER_S);
		}
		nr = ppoll(pfds, 3, timeout_ns ? &left : NULL, NULL);
		if (nr < 0 && errno != EINTR)
			return err_sys(e, "poll");
		if (nr > 0 && pfds[1].revents)
			return cancel_check(cancel, e);
		if (nr > 0)
			return pfds[0].revents ? 0 : hung_up(e);
		if (nr == 0)
			return err_set(e, ERR_PEER, ETIMEDOUT, "no progress for %.1f s",
				       (double)timeout_ns / 1e9);
	}
}

int link_poll(int fd, short events, const struct cancel *cancel, uint64_t timeout_ns, struct err *e)
{
	return link_poll_beside(fd, events, NULL, cancel, timeout_ns, e);
}

static int wait_ready(struct link *l, short events, struct err *e)
{
	return link_poll(l->fd, events, l->cancel, l->stall_ns, e);
}

int link_await_input(struct link *l, struct err *e)
{
	struct pollfd pfd = {.fd = l->fd, .events = POLLIN};

	if (wait_ready(l, POLLIN, e) == 0 || poll(&pfd, 1, 0) == 1)
		return 0;
	return -e->code;
}

/* After a call that returned -1: 0 to try again, or the error. */
static int retry(struct link *l, short events, struct err *e)
{
	if (errno == EINTR)
		return 0;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return wait_ready(l, events, e);
	if (l->cancel && cancel_requested(l->cancel))
		return cancel_check(l->cancel, e);
	return peer_gone(errno, e);
}

/* Drop @done bytes from the front of an iovec array. */
static void iov_advance(struct iovec **iov, int *nr_iov, size_t done)
{
	while (*nr_iov && done >= (*iov)->iov_len) {
		done -= (*iov)->iov_len;
		(*iov)++;
		(*nr_iov)--;
	}
	if (*nr_iov) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + done;
		(*iov)->iov_len -= done;
	}
}

#define LINK_IOV_MAX 1024 /* the kernel's UIO_MAXIOV */

static int closed_by_peer(const struct link *l, struct err *e)
{
	if (l->cancel && cancel_requested(l->cancel))
		return cancel_check(l->cancel, e);
	return hung_up(e);
}

enum direction {
	SENDING,
	RECEIVING
};

/* Everything in @iov, to or from the socket. sendmsg(2) never returns 0: nothing here is empty. */
static int transfer(struct link *l, enum direction direction, struct iovec *iov, int nr_iov,
		    int flags, struct err *e)
{
	bool sending = direction == SENDING;
	_Atomic uint64_t *counter = sending ? &l->sent : &l->received;

	iov_advance(&iov, &nr_iov, 0);
	while (nr_iov) {
		struct msghdr msg = {
			.msg_iov = iov,
			.msg_iovlen = (size_t)(nr_iov < LINK_IOV_MAX ? nr_iov : LINK_IOV_MAX)};
		ssize_t done = sending ? sendmsg(l->fd, &msg, flags) : recvmsg(l->fd, &msg, flags);

		if (done == 0)
			return closed_by_peer(l, e);
		if (done < 0) {
			if (retry(l, sending ? POLLOUT : POLLIN, e) < 0)
				return -e->code;
			continue;
		}
		atomic_fetch_add_explicit(counter, (uint64_t)done, memory_order_relaxed);
		iov_advance(&iov, &nr_iov, (size_t)done);
	}
	return 0;
}

int link_sendv_more(struct link *l, struct iovec *iov, int nr_iov, bool more, struct err *e)
{
	return transfer(l, SENDING, iov, nr_iov, MSG_NOSIGNAL | (more ? MSG_MORE : 0), e);
}

int link_sendv(struct link *l, struct iovec *iov, int nr_iov, struct err *e)
{
	return link_sendv_more(l, iov, nr_iov, false, e);
}

int link_recvv(struct link *l, struct iovec *iov, int nr_iov, struct err *e)
{
	return transfer(l, RECEIVING, iov, nr_iov, 0, e);
}

int link_send(struct link *l, const void *data, size_t len, struct err *e)
{
	struct iovec iov = {.iov_len = len};

	memcpy(&iov.iov_base, &data, sizeof(data)); /* sendmsg only reads through it */
	return link_sendv(l, &iov, 1, e);
}

int link_recv(struct link *l, void *data, size_t len, struct err *e)
{
	struct iovec iov = {.iov_base = data, .iov_len = len};

	return link_recvv(l, &iov, 1, e);
}

int link_sendfile(struct link *l, int fd, uint64_t offset, size_t len, struct err *e)
{
	off_t at = (off_t)offset;

	while (len) {
		ssize_t done = sendfile(l->fd, fd, &at, len);

		if (done == 0)
			return err_set(e, ERR_STATE, EIO, "what is being sent ends at offset %llu",
				       (unsigned long long)at);
		if (done < 0) {
			int ret = retry(l, POLLOUT, e);

			if (ret < 0)
				return ret;
			continue;
		}
		atomic_fetch_add_explicit(&l->sent, (uint64_t)done, memory_order_relaxed);
		len -= (size_t)done;
	}
	return 0;
}

/* Everything in the pipe, @len bytes, into the socket; @more follows at once. */
static int flush_pipe(struct link *l, int pipe_fd, size_t len, bool more, struct err *e)
{
	unsigned int flags = SPLICE_F_NONBLOCK | (more ? SPLICE_F_MORE : 0);

	while (len) {
		ssize_t done = splice(pipe_fd, NULL, l->fd, NULL, len, flags);

		if (done < 0) {
			if (retry(l, POLLOUT, e) < 0)
				return -e->code;
			continue;
		}
		atomic_fetch_add_explicit(&l->sent, (uint64_t)done, memory_order_relaxed);
		len -= (size_t)done;
	}
	return 0;
}

int link_splicev(struct link *l, const int pipe_fds[2], struct iovec *iov, int nr_iov,
		 struct err *e)
{
	iov_advance(&iov, &nr_iov, 0);
	while (nr_iov) {
		/* Takes as much as the empty pipe has room for. */
		ssize_t done = vmsplice(pipe_fds[1], iov,
					(size_t)(nr_iov < LINK_IOV_MAX ? nr_iov : LINK_IOV_MAX),
					SPLICE_F_NONBLOCK);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return err_sys(e, "vmsplice");
		iov_advance(&iov, &nr_iov, (size_t)done);
		if (flush_pipe(l, pipe_fds[0], (size_t)done, nr_iov > 0, e) < 0)
			return -e->code;
	}
	return 0;
}

ssize_t link_recvpipe(struct link *l, int pipe_fd, size_t len, struct err *e)
{
	for (;;) {
		ssize_t done =
			splice(l->fd, NULL, pipe_fd, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

		if (done > 0) {
			atomic_fetch_add_explicit(&l->received, (uint64_t)done,
						  memory_order_relaxed);
			return done;
		}
		if (done == 0)
			return closed_by_peer(l, e);
		if (retry(l, POLLIN, e) < 0)
			return -e->code;
	}
}
