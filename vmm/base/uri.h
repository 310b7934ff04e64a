/*
 * Where a migration goes to or comes from: tcp:HOST:PORT, unix:PATH, rdma:HOST:PORT. An IPv6
 * address stands in brackets: tcp:[::1]:4444. rdma: is TCP for everything but the pages. Plain
 * data.
 */
#pragma once

#include "vmm/base/err.h"

struct addrinfo; /* of <netdb.h> */

enum uri_scheme {
	URI_TCP,
	URI_UNIX,
	URI_RDMA
};

struct uri {
	enum uri_scheme scheme;
	char host[256]; /* tcp, rdma; empty means loopback */
	char port[16];  /* tcp, rdma */
	char path[108]; /* unix; fits sockaddr_un */
	char text[400]; /* as the user wrote it, for messages */
};

int uri_parse(const char *text, struct uri *uri, struct err *e);

/* The addresses that a tcp: or rdma: @uri may mean, for freeaddrinfo(3). @flags: AI_PASSIVE to
 * listen there, 0 to connect. May wait for the name service. */
int uri_resolve(const struct uri *uri, int flags, struct addrinfo **list, struct err *e);
