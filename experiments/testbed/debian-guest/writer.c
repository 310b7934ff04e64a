/*
 * writer: a client that knows what redis has acknowledged. Values follow from their keys.
 *
 *   writer write ADDRESS PORT SECONDS JOURNAL
 *       one SET after the other over one connection; the number of each acknowledged one goes into
 *       JOURNAL, which may exist already: then it goes on behind its last number
 *       SIGTERM ends the seconds early
 *           write s=10.0 acknowledged=1234 longest_gap_ms=14.0
 *   writer check ADDRESS PORT JOURNAL
 *       asks for every key of JOURNAL, and for a digest of their values in the order of the journal
 *           check keys=1234 missing=0 wrong=0 digest=f3a1... expected=f3a1...
 *
 * Exit status: 0; 1 the connection broke or an answer was wrong; 2 wrong usage.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	VALUE_BYTES = 64
};

/* Set by SIGTERM. */
static volatile sig_atomic_t stopped;

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

struct redis {
	int fd;
	FILE *in;
};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static bool redis_open(struct redis *r, const char *address, const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	int one = 1;

	r->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (inet_pton(AF_INET, address, &to.sin_addr) != 1 ||
	    connect(r->fd, (const struct sockaddr *)&to, sizeof(to))) {
		fprintf(stderr, "writer: cannot connect: %s\n", strerror(errno));
		return false;
	}
	setsockopt(r->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	r->in = fdopen(r->fd, "r");
	return r->in != NULL;
}

/* 64 hexadecimal digits made from the number (splitmix64). */
static void value_of(uint64_t number, char value[VALUE_BYTES + 1])
{
	for (int i = 0; i < 4; i++) {
		uint64_t z = (number * 4 + (uint64_t)i + 1) * 0x9e3779b97f4a7c15;

		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
		z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
		snprintf(value + i * 16, 17, "%016" PRIx64, z ^ (z >> 31));
	}
}

/* FNV-1a, continued. */
static uint64_t digest(uint64_t sum, const char *text)
{
	for (; *text; text++)
		sum = (sum ^ (uint8_t)*text) * 0x100000001b3;
	return sum;
}

static bool set(struct redis *r, uint64_t number)
{
	char value[VALUE_BYTES + 1];
	char line[64];

	value_of(number, value);
	return dprintf(r->fd, "SET key:%" PRIu64 " %s\r\n", number, value) > 0 &&
	       fgets(line, sizeof(line), r->in) && !strcmp(line, "+OK\r\n");
}

/* False: the connection broke. An absent key has an empty value. */
static bool get(struct redis *r, uint64_t number, char value[VALUE_BYTES + 3])
{
	char line[64];

	if (dprintf(r->fd, "GET key:%" PRIu64 "\r\n", number) < 0 ||
	    !fgets(line, sizeof(line), r->in) || line[0] != '$')
		return false;
	value[0] = '\0';
	if (line[1] != '-' && !fgets(value, VALUE_BYTES + 3, r->in))
		return false;
	value[strcspn(value, "\r\n")] = '\0';
	return true;
}

static uint64_t last_of(FILE *journal)
{
	uint64_t number = 0;

	while (fscanf(journal, "%" SCNu64, &number) == 1)
		;
	return number;
}

/* Lines are written before the next SET is sent, unbuffered: the journal lacks nothing that was
 * acknowledged, however this ends. */
static int write_keys(struct redis *r, double seconds, FILE *journal)
{
	uint64_t first = last_of(journal) + 1;
	uint64_t number = first;
	double begin = now_s();
	double last = begin;
	double gap = 0;
	bool ok = true;

	clearerr(journal);
	setvbuf(journal, NULL, _IONBF, 0);
	for (; !stopped && now_s() < begin + seconds && (ok = set(r, number)); number++) {
		double now = now_s();

		fprintf(journal, "%" PRIu64 "\n", number);
		gap = now - last > gap ? now - last : gap;
		last = now;
	}
	printf("write s=%.1f acknowledged=%" PRIu64 " longest_gap_ms=%.1f\n", now_s() - begin,
	       number - first, gap * 1000);
	if (!ok)
		fprintf(stderr, "writer: the connection broke at key:%" PRIu64 "\n", number);
	return !ok;
}

static int check_keys(struct redis *r, FILE *journal)
{
	uint64_t number;
	uint64_t keys = 0;
	uint64_t missing = 0;
	uint64_t wrong = 0;
	uint64_t sum = 0xcbf29ce484222325;
	uint64_t expected = sum;

	for (; fscanf(journal, "%" SCNu64, &number) == 1; keys++) {
		char value[VALUE_BYTES + 3];
		char right[VALUE_BYTES + 1];

		if (!get(r, number, value)) {
			fprintf(stderr, "writer: no answer for key:%" PRIu64 "\n", number);
			return 1;
		}
		value_of(number, right);
		missing += !value[0];
		wrong += value[0] && strcmp(value, right);
		sum = digest(sum, value);
		expected = digest(expected, right);
	}
	printf("check keys=%" PRIu64 " missing=%" PRIu64 " wrong=%" PRIu64 " digest=%016" PRIx64
	       " expected=%016" PRIx64 "\n",
	       keys, missing, wrong, sum, expected);
	return missing || wrong || !keys;
}

int main(int argc, char **argv)
{
	bool writing = argc == 6 && !strcmp(argv[1], "write");
	struct redis r;
	FILE *journal;

	if (!writing && !(argc == 5 && !strcmp(argv[1], "check"))) {
		fprintf(stderr, "usage: writer write ADDRESS PORT SECONDS JOURNAL\n"
				"       writer check ADDRESS PORT JOURNAL\n");
		return 2;
	}
	journal = fopen(argv[argc - 1], writing ? "a+" : "r");
	if (!journal) {
		fprintf(stderr, "writer: %s: %s\n", argv[argc - 1], strerror(errno));
		return 2;
	}
	signal(SIGTERM, stop); /* what it interrupts goes on */
	if (!redis_open(&r, argv[2], argv[3]))
		return 1;
	return writing ? write_keys(&r, atof(argv[4]), journal) : check_keys(&r, journal);
}
