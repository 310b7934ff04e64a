/* A learning Ethernet switch between QEMU machines, as a process: it joins the testbed's hosts
 * without root, and its cables can be cut and slowed.
 *
 *   switch serve DIR PORT...    listens at DIR/PORT.port for each (QEMU's -netdev stream: every
 * frame after its length in 4 bytes, big-endian) and at DIR/switch for orders switch tell DIR
 * ORDER...    gives one order, prints the answer
 *
 * Orders: "cut A B", "join A B", "rate A B BYTES_PER_SECOND" (0: unlimited), "show".
 * A machine that takes frames more slowly than they come loses some, as behind any switch. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "path.h"

#define PORTS_MAX 16
#define MACS      1024
#define FRAME_MAX 69632 /* QEMU's NET_BUFSIZE */
#define OUT_BYTES (1u << 20)
#define IN_BYTES  (2 * FRAME_MAX)

struct port {
	const char *name;
	int listen_fd;
	int fd; /* -1: no machine */
	size_t in_used, out_begin, out_used;
	uint8_t in[IN_BYTES];
	uint8_t out[OUT_BYTES];
	uint64_t nr_in, nr_out, nr_lost;
};

struct mac {
	uint8_t address[6];
	bool known;
	uint8_t port;
};

struct net {
	int nr_ports;
	struct port *ports[PORTS_MAX];
	struct path paths[PORTS_MAX][PORTS_MAX]; /* [from][to] */
	struct mac macs[MACS];                   /* by hash; a collision only floods */
	int orders_fd;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void fail(const char *what, const char *where)
{
	fprintf(stderr, "switch: %s %s: %s\n", what, where, strerror(errno));
	exit(1);
}

static struct sockaddr_un address_of(const char *dir, const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	if ((size_t)snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s", dir, name) >=
	    sizeof(a.sun_path)) {
		errno = ENAMETOOLONG;
		fail("socket in", dir);
	}
	return a;
}

static int listen_at(const char *dir, const char *name)
{
	struct sockaddr_un a = address_of(dir, name);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	unlink(a.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 4) != 0)
		fail("cannot listen at", a.sun_path);
	return fd;
}

/* ---- Where a frame goes ---- */

static struct mac *mac_slot(struct net *n, const uint8_t *address)
{
	uint32_t hash = 2166136261u;

	for (int i = 0; i < 6; i++)
		hash = (hash ^ address[i]) * 16777619u;
	return &n->macs[hash % MACS];
}

static void learn(struct net *n, const uint8_t *source, int port)
{
	struct mac *m = mac_slot(n, source);

	memcpy(m->address, source, 6);
	m->known = true;
	m->port = (uint8_t)port;
}

static void forward(struct net *n, int from, const uint8_t *frame, uint32_t bytes)
{
	const struct mac *m = mac_slot(n, frame);
	bool one = m->known && memcmp(m->address, frame, 6) == 0;
	uint64_t now = now_ns();

	if (bytes < 14)
		return;
	learn(n, frame + 6, from);
	for (int to = 0; to < n->nr_ports; to++)
		if (to != from && (!one || m->port == to))
			path_push(&n->paths[from][to], frame, bytes, now);
}

/* ---- Machines ---- */

static void leave(struct port *p)
{
	close(p->fd);
	p->fd = -1;
	p->in_used = p->out_begin = p->out_used = 0;
}

static uint32_t frame_bytes(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void receive(struct net *n, int index)
{
	struct port *p = n->ports[index];
	ssize_t got = recv(p->fd, p->in + p->in_used, IN_BYTES - p->in_used, MSG_DONTWAIT);
	size_t at = 0;

	if (got <= 0) {
		if (got == 0 || (errno != EAGAIN && errno != EINTR))
			leave(p);
		return;
	}
	p->in_used += (size_t)got;
	while (p->in_used - at >= 4) {
		uint32_t bytes = frame_bytes(p->in + at);

		if (bytes > FRAME_MAX) {
			leave(p); /* no frame can be found any more */
			return;
		}
		if (p->in_used - at < 4 + bytes)
			break;
		forward(n, index, p->in + at + 4, bytes);
		p->nr_in++;
		at += 4 + bytes;
	}
	p->in_used -= at;
	memmove(p->in, p->in + at, p->in_used);
}

/* The rest of the output moves to the front when the end has no room. */
static bool has_room(struct port *p, size_t bytes)
{
	if (p->out_used + bytes > OUT_BYTES && p->out_begin > 0) {
		p->out_used -= p->out_begin;
		memmove(p->out, p->out + p->out_begin, p->out_used);
		p->out_begin = 0;
	}
	return p->out_used + bytes <= OUT_BYTES;
}

static void append(struct port *p, const struct frame *f)
{
	const uint8_t head[4] = {(uint8_t)(f->bytes >> 24), (uint8_t)(f->bytes >> 16),
				 (uint8_t)(f->bytes >> 8), (uint8_t)f->bytes};

	memcpy(p->out + p->out_used, head, 4);
	memcpy(p->out + p->out_used + 4, f->data, f->bytes);
	p->out_used += 4 + f->bytes;
	p->nr_out++;
}

/* Moves what is due from the paths to the ports; a port without a machine loses it. */
static void deliver(struct net *n, int to, uint64_t now)
{
	struct port *p = n->ports[to];
	struct frame *f;

	for (int from = 0; from < n->nr_ports; from++) {
		while (has_room(p, 4 + FRAME_MAX) &&
		       (f = path_pop(&n->paths[from][to], now)) != NULL) {
			if (p->fd >= 0)
				append(p, f);
			else
				p->nr_lost++;
			free(f);
		}
	}
}

static void send_out(struct port *p)
{
	ssize_t put = send(p->fd, p->out + p->out_begin, p->out_used - p->out_begin,
			   MSG_DONTWAIT | MSG_NOSIGNAL);

	if (put < 0 && errno != EAGAIN && errno != EINTR)
		leave(p);
	if (put > 0)
		p->out_begin += (size_t)put;
	if (p->out_begin == p->out_used)
		p->out_begin = p->out_used = 0;
}

static void arrive(struct port *p)
{
	int fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (p->fd >= 0) /* a machine that was started again */
		leave(p);
	p->fd = fd;
}

/* ---- Orders ---- */

static int port_named(const struct net *n, const char *name)
{
	for (int i = 0; i < n->nr_ports; i++)
		if (strcmp(n->ports[i]->name, name) == 0)
			return i;
	return -1;
}

static void show(const struct net *n, FILE *out)
{
	for (int i = 0; i < n->nr_ports; i++) {
		const struct port *p = n->ports[i];

		fprintf(out, "port %s %s in=%" PRIu64 " out=%" PRIu64 " lost=%" PRIu64 "\n",
			p->name, p->fd < 0 ? "down" : "up", p->nr_in, p->nr_out, p->nr_lost);
	}
	for (int i = 0; i < n->nr_ports; i++)
		for (int k = 0; k < n->nr_ports; k++) {
			const struct path *p = &n->paths[i][k];

			if (p->cut || p->rate != 0 || p->nr_dropped != 0)
				fprintf(out, "path %s %s %s rate=%" PRIu64 " dropped=%" PRIu64 "\n",
					n->ports[i]->name, n->ports[k]->name,
					p->cut ? "cut" : "joined", p->rate, p->nr_dropped);
		}
}

static void obey(struct net *n, const char *order, FILE *out)
{
	char verb[8] = "", name[2][64] = {"", ""};
	uint64_t rate = 0;
	int words = sscanf(order, "%7s %63s %63s %" SCNu64, verb, name[0], name[1], &rate);
	int a = port_named(n, name[0]), b = port_named(n, name[1]);

	if (strcmp(verb, "show") == 0) {
		show(n, out);
	} else if (words < 3 || a < 0 || b < 0) {
		fprintf(out, "error: '%s' needs two ports of this switch\n", verb);
	} else if (strcmp(verb, "cut") == 0 || strcmp(verb, "join") == 0) {
		path_cut(&n->paths[a][b], verb[0] == 'c');
		path_cut(&n->paths[b][a], verb[0] == 'c');
	} else if (strcmp(verb, "rate") == 0 && words == 4) {
		path_rate(&n->paths[a][b], rate);
		path_rate(&n->paths[b][a], rate);
	} else {
		fprintf(out, "error: unknown order '%s'\n", verb);
	}
}

/* One order a connection. Whoever may open the socket may do everything; a caller that says
 * nothing must not stop the traffic for long. */
static void take_order(struct net *n)
{
	struct timeval patience = {.tv_usec = 200000};
	int fd = accept4(n->orders_fd, NULL, NULL, SOCK_CLOEXEC);
	char order[256];
	ssize_t got;
	FILE *out;

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	got = recv(fd, order, sizeof(order) - 1, 0);
	out = fdopen(fd, "w");
	if (out == NULL) {
		close(fd);
		return;
	}
	order[got > 0 ? got : 0] = '\0';
	obey(n, order, out);
	fclose(out);
}

static int tell(const char *dir, int nr, char **words)
{
	struct sockaddr_un a = address_of(dir, "switch");
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char text[4096] = "";
	size_t used = 0;
	ssize_t got;

	for (int i = 0; i < nr; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s ", words[i]);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0 ||
	    send(fd, text, used, MSG_NOSIGNAL) < 0)
		fail("no switch at", a.sun_path);
	for (used = 0; (got = recv(fd, text + used, sizeof(text) - 1 - used, 0)) > 0;)
		used += (size_t)got;
	text[used] = '\0';
	fputs(text, stdout);
	return strncmp(text, "error", 5) == 0;
}

/* ---- The loop ---- */

/* Until when nothing happens by itself, into @t; false: for ever. A port with output left is woken
 * by its socket instead. */
static bool next_due(const struct net *n, uint64_t now, struct timespec *t)
{
	uint64_t due = UINT64_MAX;

	for (int i = 0; i < n->nr_ports; i++)
		for (int k = 0; k < n->nr_ports; k++)
			if (n->ports[k]->out_used == 0 && path_due_ns(&n->paths[i][k]) < due)
				due = path_due_ns(&n->paths[i][k]);
	if (due == UINT64_MAX)
		return false;
	due = due > now ? due - now : 0;
	*t = (struct timespec){.tv_sec = (time_t)(due / 1000000000),
			       .tv_nsec = (long)(due % 1000000000)};
	return true;
}

static void turn(struct net *n)
{
	struct pollfd polls[2 * PORTS_MAX + 1];
	struct timespec t;
	bool due = next_due(n, now_ns(), &t);

	for (int i = 0; i < n->nr_ports; i++) {
		const struct port *p = n->ports[i];
		short want = (short)(POLLIN | (p->out_used > 0 ? POLLOUT : 0));

		polls[2 * i] = (struct pollfd){.fd = p->listen_fd, .events = POLLIN};
		polls[2 * i + 1] = (struct pollfd){.fd = p->fd, .events = want};
	}
	polls[2 * n->nr_ports] = (struct pollfd){.fd = n->orders_fd, .events = POLLIN};
	if (ppoll(polls, (nfds_t)(2 * n->nr_ports + 1), due ? &t : NULL, NULL) < 0)
		return;
	for (int i = 0; i < n->nr_ports; i++) {
		if (polls[2 * i + 1].revents & (POLLIN | POLLHUP | POLLERR))
			receive(n, i);
		if (polls[2 * i].revents & POLLIN)
			arrive(n->ports[i]);
	}
	if (polls[2 * n->nr_ports].revents & POLLIN)
		take_order(n);
	for (int i = 0; i < n->nr_ports; i++) {
		deliver(n, i, now_ns());
		if (n->ports[i]->fd >= 0 && n->ports[i]->out_used > 0)
			send_out(n->ports[i]);
	}
}

static void serve(const char *dir, int nr, char **names)
{
	struct net *n = calloc(1, sizeof(*n));
	char file[80];

	if (n == NULL)
		fail("no memory for", dir);
	for (n->nr_ports = 0; n->nr_ports < nr; n->nr_ports++) {
		struct port *p = calloc(1, sizeof(*p));

		if (p == NULL)
			fail("no memory for", dir);
		p->name = names[n->nr_ports];
		snprintf(file, sizeof(file), "%.63s.port", p->name);
		p->listen_fd = listen_at(dir, file);
		p->fd = -1;
		n->ports[n->nr_ports] = p;
	}
	for (int i = 0; i < nr; i++)
		for (int k = 0; k < nr; k++)
			path_init(&n->paths[i][k]);
	n->orders_fd = listen_at(dir, "switch");
	for (;;)
		turn(n);
}

int main(int argc, char **argv)
{
	if (argc >= 4 && strcmp(argv[1], "tell") == 0)
		return tell(argv[2], argc - 3, argv + 3);
	if (argc < 4 || argc - 3 > PORTS_MAX || strcmp(argv[1], "serve") != 0) {
		fprintf(stderr, "usage: switch serve DIR PORT... | switch tell DIR ORDER...\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	serve(argv[2], argc - 3, argv + 3);
}
