#include "vmm/base/uri.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "vmm/base/units.h"

static int bad(const char *text, const char *why, struct err *e)
{
	return err_set(e, ERR_USAGE, EINVAL,
		       "'%.200s' %s; write tcp:HOST:PORT, tcp:[IPV6]:PORT, "
		       "rdma:HOST:PORT or unix:PATH",
		       text, why);
}

static int parse_unix(const char *path, struct uri *uri, struct err *e)
{
	if (!*path)
		return bad(uri->text, "names no path", e);
	if (strlen(path) >= sizeof(uri->path))
		return err_set(e, ERR_USAGE, ENAMETOOLONG,
			       "'%.200s' is too long for a unix socket (%zu bytes at most)", path,
			       sizeof(uri->path) - 1);
	strcpy(uri->path, path);
	return 0;
}

static int parse_host_port(const char *rest, struct uri *uri, struct err *e)
{
	const char *colon = strrchr(rest, ':');
	size_t host_len;
	uint64_t port;
	struct err ignored = ERR_INIT;

	if (!colon || strlen(colon + 1) >= sizeof(uri->port))
		return bad(uri->text, "names no port", e);
	host_len = (size_t)(colon - rest);
	if (host_len >= 2 && rest[0] == '[' && colon[-1] == ']') {
		rest++;
		host_len -= 2;
	}
	if (host_len >= sizeof(uri->host))
		return bad(uri->text, "has too long a host name", e);
	memcpy(uri->host, rest, host_len);
	uri->host[host_len] = '\0';
	strcpy(uri->port, colon + 1);
	if (units_parse_u64(uri->port, 0, 65535, &port, &ignored) < 0)
		return bad(uri->text, "has no port number from 0 to 65535", e);
	return 0;
}

int uri_parse(const char *text, struct uri *uri, struct err *e)
{
	memset(uri, 0, sizeof(*uri));
	if (strlen(text) >= sizeof(uri->text))
		return bad(text, "is too long", e);
	strcpy(uri->text, text);
	if (!strncmp(text, "tcp:", 4)) {
		uri->scheme = URI_TCP;
		return parse_host_port(text + 4, uri, e);
	}
	if (!strncmp(text, "rdma:", 5)) {
		uri->scheme = URI_RDMA;
		return parse_host_port(text + 5, uri, e);
	}
	if (!strncmp(text, "unix:", 5)) {
		uri->scheme = URI_UNIX;
		return parse_unix(text + 5, uri, e);
	}
	return bad(text, "is not an address godwit knows", e);
}

int uri_resolve(const struct uri *uri, int flags, struct addrinfo **list, struct err *e)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
	const char *host = uri->host[0] ? uri->host : "127.0.0.1";
	int ret = getaddrinfo(host, uri->port, &hints, list);

	if (ret == 0)
		return 0;
	return err_set(e, ERR_USAGE, EHOSTUNREACH, "%s: cannot resolve host '%s': %s", uri->text,
		       host, gai_strerror(ret));
}
