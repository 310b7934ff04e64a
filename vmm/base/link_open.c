/* How links come to be: connecting, listening, accepting. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "vmm/base/handover.h"
#include "vmm/base/link.h"

struct link_listener {
	int fd;
	bool handed; /* connections come from another process, which has the address */
	struct uri uri;
	char address[512];
};

static void unix_address(const struct uri *uri, struct sockaddr_un *sun)
{
	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	memcpy(sun->sun_path, uri->path, sizeof(uri->path));
}

/* Finish a non-blocking connect(2). */
static int finish_connect(int fd, const struct uri *uri, uint64_t timeout_ns,
			  const struct cancel *cancel, struct err *e)
{
	int code = errno;
	socklen_t len = sizeof(code);

	if (code == EINPROGRESS) {
		if (link_poll(fd, POLLOUT, cancel, timeout_ns, e) < 0) {
			if (e->kind != ERR_CANCELLED)
				err_set(e, ERR_PEER, ETIMEDOUT,
					"%s: no answer within %.0f s; is the host up and the port "
					"open in its firewall?",
					uri->text, (double)timeout_ns / 1e9);
			return -e->code;
		}
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len);
	}
	if (code == 0)
		return 0;
	if (code == ECONNREFUSED || code == ENOENT)
		return err_set(e, ERR_PEER, code,
			       "%s: connection refused; is 'godwit receive %s' running there?",
			       uri->text, uri->text);
	return err_set(e, ERR_PEER, code, "%s: cannot connect: %s", uri->text,
		       strerrordesc_np(code));
}

/* Is the other end's address our own, too? */
static bool stays_here(int fd)
{
	struct sockaddr_in6 ours = {0}; /* large enough for either family */
	struct sockaddr_in6 theirs = {0};
	socklen_t our_len = sizeof(ours);
	socklen_t their_len = sizeof(theirs);

	if (getsockname(fd, (struct sockaddr *)&ours, &our_len) < 0 ||
	    getpeername(fd, (struct sockaddr *)&theirs, &their_len) < 0 ||
	    ours.sin6_family != theirs.sin6_family)
		return false;
	if (ours.sin6_family == AF_INET)
		return ((struct sockaddr_in *)&ours)->sin_addr.s_addr ==
		       ((struct sockaddr_in *)&theirs)->sin_addr.s_addr;
	return ours.sin6_family == AF_INET6 &&
	       memcmp(&ours.sin6_addr, &theirs.sin6_addr, sizeof(ours.sin6_addr)) == 0;
}

/* Connecting a datagram socket looks up the route and sends nothing. */
static bool leads_here(const struct sockaddr *sa, socklen_t sa_len)
{
	int fd = socket(sa->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool here = fd >= 0 && connect(fd, sa, sa_len) == 0 && stays_here(fd);

	if (fd >= 0)
		close(fd);
	return here;
}

/* Within a host there is no congestion to control, but BBR, where it is the system's choice, paces
 * there too: a timer for every 64 KiB. A connection that was BBR's when it was made is paced for
 * good, whatever it is given later, so this comes before connect(2). */
static void choose_no_pacing(int fd)
{
	static const char no_pacing[] = "reno"; /* every kernel has it */

	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, no_pacing, sizeof(no_pacing) - 1);
}

static int connect_one(const struct sockaddr *sa, socklen_t sa_len, const struct uri *uri,
		       uint64_t timeout_ns, const struct cancel *cancel, struct err *e)
{
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_sys(e, "socket");
	if (sa->sa_family != AF_UNIX && leads_here(sa, sa_len))
		choose_no_pacing(fd);
	if (connect(fd, sa, sa_len) == 0 || finish_connect(fd, uri, timeout_ns, cancel, e) == 0)
		return fd;
	close(fd);
	return -e->code;
}

static int connect_tcp(const struct uri *uri, uint64_t timeout_ns, const struct cancel *cancel,
		       struct err *e)
{
	struct addrinfo *list;
	int fd = -1;

	if (uri_resolve(uri, 0, &list, e) < 0)
		return -e->code;
	for (struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next) {
		fd = connect_one(ai->ai_addr, ai->ai_addrlen, uri, timeout_ns, cancel, e);
		if (fd < 0 && e->kind == ERR_CANCELLED)
			break;
	}
	freeaddrinfo(list);
	return fd;
}

int link_connect(const struct uri *uri, uint64_t timeout_ns, const struct cancel *cancel,
		 struct link **out, struct err *e)
{
	struct sockaddr_un sun;
	int fd;

	if (uri->scheme != URI_UNIX) {
		fd = connect_tcp(uri, timeout_ns, cancel, e);
	} else {
		unix_address(uri, &sun);
		fd = connect_one((struct sockaddr *)&sun, sizeof(sun), uri, timeout_ns, cancel, e);
	}
	return fd < 0 ? -e->code : link_from_fd(fd, cancel, out, e);
}

/* A socket file left behind by a dead process would make bind(2) fail for ever. */
static void remove_stale_socket(const struct sockaddr_un *sun)
{
	struct stat st;
	int fd;

	if (stat(sun->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	if (connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) < 0 && errno == ECONNREFUSED)
		unlink(sun->sun_path);
	close(fd);
}

/* What to do when nobody can listen there. */
static const char *listen_remedy(int code)
{
	switch (code) {
	case EADDRINUSE:
		return "; another program listens there: choose another port, or 0 for any";
	case EADDRNOTAVAIL:
		return "; that is no address of this host: name one of its own, or 0.0.0.0 for all";
	case EACCES:
		return "; choose a port from 1024 on, or a directory you may write to";
	case ENOENT:
		return "; create its directory first";
	default:
		return "";
	}
}

static int bind_and_listen(struct link_listener *ll, const struct sockaddr *sa, socklen_t sa_len,
			   struct err *e)
{
	int on = 1, code;

	ll->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ll->fd < 0)
		return err_sys(e, "socket");
	setsockopt(ll->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(ll->fd, sa, sa_len) == 0 && listen(ll->fd, 64) == 0)
		return 0;
	code = errno;
	close(ll->fd);
	return err_set(e, ERR_SYS, code, "cannot listen at %s: %s%s", ll->uri.text,
		       strerrordesc_np(code), listen_remedy(code));
}

static int listen_tcp(struct link_listener *ll, struct err *e)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct addrinfo *list;
	char host[256];
	char port[16];
	int ret;

	if (uri_resolve(&ll->uri, AI_PASSIVE, &list, e) < 0)
		return -e->code;
	ret = bind_and_listen(ll, list->ai_addr, list->ai_addrlen, e);
	freeaddrinfo(list);
	if (ret < 0)
		return ret;
	getsockname(ll->fd, (struct sockaddr *)&ss, &len);
	getnameinfo((struct sockaddr *)&ss, len, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(ll->address, sizeof(ll->address), strchr(host, ':') ? "%s:[%s]:%s" : "%s:%s:%s",
		 ll->uri.scheme == URI_RDMA ? "rdma" : "tcp", host, port);
	return 0;
}

static int listen_unix(struct link_listener *ll, struct err *e)
{
	struct sockaddr_un sun;

	unix_address(&ll->uri, &sun);
	remove_stale_socket(&sun);
	strcpy(ll->address, ll->uri.text);
	return bind_and_listen(ll, (struct sockaddr *)&sun, sizeof(sun), e);
}

int link_listen(const struct uri *uri, struct link_listener **out, struct err *e)
{
	struct link_listener *ll = calloc(1, sizeof(*ll));
	int ret;

	if (!ll)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a listener");
	ll->uri = *uri;
	ret = uri->scheme != URI_UNIX ? listen_tcp(ll, e) : listen_unix(ll, e);
	if (ret < 0) {
		free(ll);
		return ret;
	}
	*out = ll;
	return 0;
}

int link_listen_handed(int end, const char *address, struct link_listener **out, struct err *e)
{
	struct link_listener *ll = calloc(1, sizeof(*ll));

	if (!ll) {
		close(end);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a listener");
	}
	ll->fd = end;
	ll->handed = true;
	strncpy(ll->address, address, sizeof(ll->address) - 1);
	fcntl(end, F_SETFD, FD_CLOEXEC);
	*out = ll;
	return 0;
}

int link_accept_fd(struct link_listener *ll, struct err *e)
{
	int fd;

	if (ll->handed)
		return handover_take(ll->fd, e);
	fd = accept4(ll->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		return fd;
	if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
		return -EAGAIN;
	return err_sys(e, "accept at %s", ll->address);
}

int link_accept(struct link_listener *ll, const struct link *beside, uint64_t timeout_ns,
		const struct cancel *cancel, struct link **out, struct err *e)
{
	for (;;) {
		int fd;

		if (link_poll_beside(ll->fd, POLLIN, beside, cancel, timeout_ns, e) < 0)
			return err_prefix(e, "waiting for a connection at %s", ll->address);
		fd = link_accept_fd(ll, e);
		if (fd >= 0)
			return link_from_fd(fd, cancel, out, e);
		if (fd != -EAGAIN)
			return fd;
	}
}

int link_listener_fd(const struct link_listener *ll)
{
	return ll->fd;
}

const char *link_listener_address(const struct link_listener *ll)
{
	return ll->address;
}

void link_listener_free(struct link_listener *ll)
{
	if (!ll)
		return;
	close(ll->fd);
	if (!ll->handed && ll->uri.scheme == URI_UNIX)
		unlink(ll->uri.path);
	free(ll);
}
