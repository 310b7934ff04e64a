/*
 * peer: two ends of a network, to see what a migration does to it. `peer serve` is the guest's end;
 * the other words are a client's and print one line:
 *
 *   peer serve PORT
 *   peer receive ADDRESS PORT SECONDS   a TCP stream from the server, every byte of it checked
 *       receive s=10.0 bytes=123 mbit=99.1 bad=0 longest_gap_ms=3.1
 *   peer send ADDRESS PORT SECONDS      a TCP stream to the server
 *       send s=10.0 bytes=123 mbit=99.1
 *   peer ask ADDRESS PORT SECONDS [MS]  requests over TCP, one after the other, 64 bytes each way;
 *                                       with MS not sooner than so many milliseconds after the last
 *       ask s=10.0 answers=12345 longest_gap_ms=3.1
 *   peer echo ADDRESS PORT SECONDS [MS] a UDP datagram every MS (1) milliseconds
 *       echo s=10.0 sent=10000 lost=12 longest_gap_ms=14.0
 *
 * longest_gap_ms is the longest time in which nothing came. SIGTERM ends the seconds early. Exit
 * status: 0; 1 the connection broke or could not be made, or a byte was wrong; 2 wrong usage.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	BUFFER_BYTES = 256 * 1024,
	ASK_BYTES = 64,
	NS_PER_MS = 1000 * 1000,
	NS_PER_S = 1000 * 1000 * 1000,
};

/* Set by SIGTERM. */
static volatile sig_atomic_t stopped;

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

/* The stream's word number n is n: what is lost, doubled or moved shows. */
static void fill(uint64_t *words, size_t nr, uint64_t *next)
{
	for (size_t i = 0; i < nr; i++)
		words[i] = (*next)++;
}

static bool send_all(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		at += n;
		len -= (size_t)n;
	}
	return true;
}

/* ---- The server ---- */

static void serve_source(int fd)
{
	static __thread uint64_t words[BUFFER_BYTES / 8];
	uint64_t next = 0;

	do
		fill(words, BUFFER_BYTES / 8, &next);
	while (send_all(fd, words, sizeof(words)));
}

static void serve_sink(int fd)
{
	static __thread char buffer[BUFFER_BYTES];

	while (recv(fd, buffer, sizeof(buffer), 0) > 0)
		;
}

static void serve_answers(int fd)
{
	char buffer[ASK_BYTES];

	while (recv(fd, buffer, sizeof(buffer), MSG_WAITALL) == sizeof(buffer) &&
	       send_all(fd, buffer, sizeof(buffer)))
		;
}

static void *serve_connection(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char what;

	if (recv(fd, &what, 1, 0) == 1) {
		if (what == 'r')
			serve_source(fd);
		else if (what == 's')
			serve_sink(fd);
		else if (what == 'a')
			serve_answers(fd);
	}
	close(fd);
	return NULL;
}

static void *serve_udp(void *arg)
{
	int fd = (int)(intptr_t)arg;
	struct sockaddr_in from;
	char buffer[2048];

	for (;;) {
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(fd, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &len);

		if (n > 0)
			sendto(fd, buffer, (size_t)n, 0, (struct sockaddr *)&from, len);
	}
	return NULL;
}

static int open_server(int type, const struct sockaddr_in *at)
{
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	int one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)at, sizeof(*at)) ||
	    (type == SOCK_STREAM && listen(fd, 16))) {
		perror("peer: cannot serve");
		exit(1);
	}
	return fd;
}

_Noreturn static void serve(uint16_t port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
	int tcp = open_server(SOCK_STREAM, &at);
	int udp = open_server(SOCK_DGRAM, &at);
	pthread_t thread;

	pthread_create(&thread, NULL, serve_udp, (void *)(intptr_t)udp);
	for (;;) {
		int fd = accept4(tcp, NULL, NULL, SOCK_CLOEXEC);
		int one = 1;

		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (!pthread_create(&thread, NULL, serve_connection, (void *)(intptr_t)fd))
			pthread_detach(thread);
	}
}

/* ---- Clients ---- */

struct client {
	int fd;
	int64_t interval_ns; /* echo */
	int64_t begin_ns;
	int64_t end_ns;
	int64_t last_ns; /* when something came last */
	int64_t gap_ns;
};

static bool goes_on(const struct client *c)
{
	return !stopped && now_ns() < c->end_ns;
}

static void came(struct client *c)
{
	int64_t now = now_ns();

	if (now - c->last_ns > c->gap_ns)
		c->gap_ns = now - c->last_ns;
	c->last_ns = now;
}

static double seconds(const struct client *c)
{
	return (double)(now_ns() - c->begin_ns) / NS_PER_S;
}

static double gap_ms(const struct client *c)
{
	return (double)c->gap_ns / NS_PER_MS;
}

static int broken(const char *word)
{
	fprintf(stderr, "peer %s: the connection broke: %s\n", word, strerror(errno));
	return 1;
}

static int receive(struct client *c)
{
	static uint64_t words[BUFFER_BYTES / 8];
	uint64_t expected = 0;
	uint64_t bytes = 0;
	uint64_t bad = 0;
	size_t have = 0; /* bytes of a word that is not whole yet are kept in front */

	while (goes_on(c)) {
		ssize_t n = recv(c->fd, (char *)words + have, sizeof(words) - have, 0);

		if (n <= 0)
			return broken("receive");
		came(c);
		bytes += (uint64_t)n;
		have += (size_t)n;
		for (size_t i = 0; i < have / 8; i++)
			bad += words[i] != expected++;
		memmove(words, (char *)words + have / 8 * 8, have % 8);
		have %= 8;
	}
	printf("receive s=%.1f bytes=%llu mbit=%.1f bad=%llu longest_gap_ms=%.1f\n", seconds(c),
	       (unsigned long long)bytes, (double)bytes * 8e-6 / seconds(c),
	       (unsigned long long)bad, gap_ms(c));
	return bad != 0;
}

static int send_stream(struct client *c)
{
	static uint64_t words[BUFFER_BYTES / 8];
	uint64_t next = 0;

	while (goes_on(c)) {
		fill(words, BUFFER_BYTES / 8, &next);
		if (!send_all(c->fd, words, sizeof(words)))
			return broken("send");
	}
	printf("send s=%.1f bytes=%llu mbit=%.1f\n", seconds(c), (unsigned long long)next * 8,
	       (double)next * 64e-6 / seconds(c));
	return 0;
}

static void wait_until(int64_t due_ns)
{
	struct timespec ts = {.tv_sec = due_ns / NS_PER_S, .tv_nsec = due_ns % NS_PER_S};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

static int ask(struct client *c)
{
	char buffer[ASK_BYTES] = {0};
	uint64_t nr = 0;

	for (; goes_on(c); nr++) {
		wait_until(c->begin_ns + (int64_t)nr * c->interval_ns);
		if (!send_all(c->fd, buffer, sizeof(buffer)) ||
		    recv(c->fd, buffer, sizeof(buffer), MSG_WAITALL) != sizeof(buffer))
			return broken("ask");
		came(c);
	}
	printf("ask s=%.1f answers=%llu longest_gap_ms=%.1f\n", seconds(c), (unsigned long long)nr,
	       gap_ms(c));
	return 0;
}

/* Echoes that are late count, those that never come are lost: wait a second for the last. */
static int echo(struct client *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	uint64_t sent = 0;
	uint64_t got = 0;
	uint64_t number;

	while (now_ns() < c->end_ns + NS_PER_S && (got < sent || goes_on(c))) {
		int64_t due = c->begin_ns + (int64_t)sent * c->interval_ns;
		int64_t wait = due - now_ns();
		struct timespec ts = {.tv_nsec = wait > 0 && wait < NS_PER_S ? wait : 0};

		if (stopped && now_ns() < c->end_ns)
			c->end_ns = now_ns();
		if (wait <= 0 && goes_on(c)) {
			send(c->fd, &sent, sizeof(sent), MSG_NOSIGNAL);
			sent++;
		}
		if (ppoll(&p, 1, &ts, NULL) > 0 &&
		    recv(c->fd, &number, sizeof(number), MSG_DONTWAIT) == sizeof(number)) {
			got++;
			came(c);
		}
	}
	printf("echo s=%.1f sent=%llu lost=%llu longest_gap_ms=%.1f\n", seconds(c),
	       (unsigned long long)sent, (unsigned long long)(sent - got), gap_ms(c));
	return got == 0;
}

static const struct {
	const char *word;
	int type;
	int (*run)(struct client *c);
	int interval_ms;
} clients[] = {
	{"receive", SOCK_STREAM, receive, 0},
	{"send", SOCK_STREAM, send_stream, 0},
	{"ask", SOCK_STREAM, ask, 0},
	{"echo", SOCK_DGRAM, echo, 1},
};

static int run_client(size_t i, const struct sockaddr_in *to, double s, int interval_ms)
{
	struct client c = {.fd = socket(AF_INET, clients[i].type | SOCK_CLOEXEC, 0),
			   .interval_ns = (int64_t)interval_ms * NS_PER_MS};
	int one = 1;

	signal(SIGTERM, stop); /* what it interrupts goes on */
	if (connect(c.fd, (const struct sockaddr *)to, sizeof(*to))) {
		fprintf(stderr, "peer %s: cannot connect: %s\n", clients[i].word, strerror(errno));
		return 1;
	}
	if (clients[i].type == SOCK_STREAM) {
		setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		send_all(c.fd, clients[i].word, 1); /* the first letter says what is wanted */
	}
	c.begin_ns = c.last_ns = now_ns();
	c.end_ns = c.begin_ns + (int64_t)(s * NS_PER_S);
	return clients[i].run(&c);
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};

	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve((uint16_t)atoi(argv[2]));
	if ((argc == 5 || argc == 6) && inet_pton(AF_INET, argv[2], &to.sin_addr) == 1) {
		to.sin_port = htons((uint16_t)atoi(argv[3]));
		for (size_t i = 0; i < sizeof(clients) / sizeof(clients[0]); i++)
			if (!strcmp(argv[1], clients[i].word))
				return run_client(i, &to, atof(argv[4]),
						  argc == 6 ? atoi(argv[5])
							    : clients[i].interval_ms);
	}
	fprintf(stderr, "usage: peer serve PORT\n"
			"       peer receive|send|ask|echo ADDRESS PORT SECONDS [MS]\n");
	return 2;
}
