#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "tests/unit/cmocka_all.h"
#include "vmm/base/clock.h"
#include "vmm/base/link.h"

#define PATIENCE_NS (60 * NS_PER_S)

struct pair {
	struct cancel *cancel;
	struct link *a; /* with the cancellation token */
	struct link *b;
};

static int setup(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));
	struct err e = ERR_INIT;
	int fds[2];

	*state = p;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	return cancel_new(&p->cancel, &e) < 0 || link_from_fd(fds[0], p->cancel, &p->a, &e) < 0 ||
	       link_from_fd(fds[1], NULL, &p->b, &e) < 0;
}

static int teardown(void **state)
{
	struct pair *p = *state;

	link_free(p->a);
	link_free(p->b);
	cancel_free(p->cancel);
	free(p);
	return 0;
}

static void test_gather_and_scatter(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;
	char one[] = "hello ";
	char two[] = "world";
	char x[4];
	char y[7];
	struct iovec out[3] = {{one, 6}, {NULL, 0}, {two, 5}};
	struct iovec in[2] = {{x, 4}, {y, 7}};

	assert_int_equal(link_sendv(p->a, out, 3, &e), 0);
	assert_int_equal(link_recvv(p->b, in, 2, &e), 0);
	assert_memory_equal(x, "hell", 4);
	assert_memory_equal(y, "o world", 7);
	assert_int_equal(link_sent_bytes(p->a), 11);
	assert_int_equal(link_received_bytes(p->b), 11);
}

/* More pieces than one system call takes, and more bytes than a socket holds. */
#define NR_PIECES   3000
#define PIECE_BYTES 700

static void *send_pieces(void *arg)
{
	struct link *l = arg;
	struct err e = ERR_INIT;
	struct iovec *iov = calloc(NR_PIECES, sizeof(*iov));
	uint8_t *data = malloc(NR_PIECES * PIECE_BYTES);

	for (size_t i = 0; i < NR_PIECES; i++) {
		memset(data + i * PIECE_BYTES, (int)(i % 251), PIECE_BYTES);
		iov[i] = (struct iovec){data + i * PIECE_BYTES, PIECE_BYTES};
	}
	if (link_sendv(l, iov, NR_PIECES, &e) < 0)
		abort();
	free(iov);
	free(data);
	return NULL;
}

static void test_many_pieces(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;
	uint8_t *got = malloc(NR_PIECES * PIECE_BYTES);
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, send_pieces, p->a), 0);
	assert_int_equal(link_recv(p->b, got, NR_PIECES * PIECE_BYTES, &e), 0);
	pthread_join(t, NULL);
	for (size_t i = 0; i < NR_PIECES * PIECE_BYTES; i++)
		if (got[i] != i / PIECE_BYTES % 251)
			fail_msg("byte %zu", i);
	free(got);
}

static int file_of(uint64_t bytes)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		abort();
	return fd;
}

#define FILE_BYTES (3u << 20)

struct file_send {
	struct link *link;
	int fd;
};

static void *send_file(void *arg)
{
	struct file_send *s = arg;
	struct err e = ERR_INIT;

	if (link_sendfile(s->link, s->fd, 4096, FILE_BYTES - 4096, &e) < 0)
		abort();
	return NULL;
}

static void test_file_to_file(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;
	struct file_send s = {p->a, file_of(FILE_BYTES)};
	int to = file_of(FILE_BYTES);
	uint8_t *from_map = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, s.fd, 0);
	uint8_t *to_map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, to, 0);
	loff_t at = 4096;
	int pipe_fds[2];
	pthread_t t;

	assert_int_equal(pipe(pipe_fds), 0);
	for (size_t i = 0; i < FILE_BYTES; i++)
		from_map[i] = (uint8_t)(i * 2654435761u >> 24);
	assert_int_equal(pthread_create(&t, NULL, send_file, &s), 0);
	while (at < FILE_BYTES) {
		ssize_t n = link_recvpipe(p->b, pipe_fds[1], (size_t)(FILE_BYTES - at), &e);

		assert_true(n > 0);
		assert_int_equal(splice(pipe_fds[0], NULL, to, &at, (size_t)n, 0), n);
	}
	pthread_join(t, NULL);
	assert_memory_equal(to_map + 4096, from_map + 4096, FILE_BYTES - 4096);
	assert_int_equal(to_map[0], 0);
	munmap(from_map, FILE_BYTES);
	munmap(to_map, FILE_BYTES);
	close(s.fd);
	close(to);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void test_peer_closes(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;
	char c;

	link_free(p->b);
	p->b = NULL;
	assert_int_equal(link_recv(p->a, &c, 1, &e), -ECONNRESET);
	assert_int_equal(e.kind, ERR_PEER);
	assert_int_equal(link_send(p->a, "x", 1, &e), -EPIPE);
	assert_int_equal(e.kind, ERR_PEER);
}

static void test_stall_timeout(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;
	uint64_t start = clock_now_ns();
	char c;

	link_set_stall_timeout(p->a, 30 * NS_PER_MS);
	assert_int_equal(link_recv(p->a, &c, 1, &e), -ETIMEDOUT);
	assert_int_equal(e.kind, ERR_PEER);
	assert_true(clock_now_ns() - start >= 30 * NS_PER_MS);
}

static void *cancel_soon(void *arg)
{
	clock_sleep_until_ns(clock_now_ns() + 20 * NS_PER_MS);
	cancel_request(arg);
	return NULL;
}

static void test_cancel_wakes_a_wait(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;
	pthread_t t;
	char c;

	assert_int_equal(pthread_create(&t, NULL, cancel_soon, p->cancel), 0);
	assert_int_equal(link_recv(p->a, &c, 1, &e), -ECANCELED);
	assert_int_equal(e.kind, ERR_CANCELLED);
	pthread_join(t, NULL);
	/* Past the commit point the token means nothing any more. */
	link_forget_cancel(p->a);
	assert_int_equal(link_send(p->b, "y", 1, &e), 0);
	assert_int_equal(link_recv(p->a, &c, 1, &e), 0);
	assert_int_equal(c, 'y');
}

static void test_input_counts_though_cancelled(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;
	char c = 'c';

	cancel_request(p->cancel);
	assert_true(link_await_input(p->a, &e) < 0);
	assert_int_equal(e.kind, ERR_CANCELLED);
	assert_int_equal(link_send(p->b, &c, 1, &e), 0);
	assert_int_equal(link_await_input(p->a, &e), 0);
}

static void connect_and_talk(const char *where)
{
	struct err e = ERR_INIT;
	struct link_listener *ll;
	struct link *client;
	struct link *server;
	struct uri uri;
	char got[2];

	assert_int_equal(uri_parse(where, &uri, &e), 0);
	assert_int_equal(link_listen(&uri, &ll, &e), 0);
	assert_int_equal(uri_parse(link_listener_address(ll), &uri, &e), 0);
	assert_int_equal(link_connect(&uri, PATIENCE_NS, NULL, &client, &e), 0);
	assert_int_equal(link_accept(ll, NULL, PATIENCE_NS, NULL, &server, &e), 0);
	assert_int_equal(link_send(client, "hi", 2, &e), 0);
	assert_int_equal(link_recv(server, got, 2, &e), 0);
	assert_memory_equal(got, "hi", 2);
	link_free(client);
	link_free(server);
	link_listener_free(ll);
}

static void test_listen_and_connect(void **state)
{
	char path[64];

	(void)state;
	connect_and_talk("tcp:127.0.0.1:0");
	snprintf(path, sizeof(path), "unix:/tmp/godwit-test-link.%d", getpid());
	connect_and_talk(path);
	assert_true(access(path + 5, F_OK) < 0); /* the listener took its socket away */
}

/* That it is set before connecting, without which a system of BBR's goes on pacing, no socket
 * option shows; a profile does (tcp_pace_kick). */
static void test_within_the_host_nothing_paces(void **state)
{
	struct err e = ERR_INIT;
	char algorithm[16] = "";
	socklen_t len = sizeof(algorithm);
	struct link_listener *ll;
	struct link *client;
	struct uri uri;

	(void)state;
	assert_int_equal(uri_parse("tcp:127.0.0.1:0", &uri, &e), 0);
	assert_int_equal(link_listen(&uri, &ll, &e), 0);
	assert_int_equal(uri_parse(link_listener_address(ll), &uri, &e), 0);
	assert_int_equal(link_connect(&uri, PATIENCE_NS, NULL, &client, &e), 0);
	assert_int_equal(getsockopt(link_fd(client), IPPROTO_TCP, TCP_CONGESTION, algorithm, &len),
			 0);
	assert_string_equal(algorithm, "reno");
	link_free(client);
	link_listener_free(ll);
}

static void test_refused_says_what_to_do(void **state)
{
	struct err e = ERR_INIT;
	struct link *l;
	struct uri uri;

	(void)state;
	assert_int_equal(uri_parse("unix:/tmp/godwit-nobody-listens-here", &uri, &e), 0);
	assert_true(link_connect(&uri, PATIENCE_NS, NULL, &l, &e) < 0);
	assert_int_equal(e.kind, ERR_PEER);
	assert_non_null(strstr(e.msg, "godwit receive unix:/tmp/godwit-nobody-listens-here"));
}

static void test_cannot_listen_says_what_to_do(void **state)
{
	struct link_listener *first, *second;
	struct err e = ERR_INIT;
	struct uri uri;

	(void)state;
	assert_int_equal(uri_parse("tcp:127.0.0.1:0", &uri, &e), 0);
	assert_int_equal(link_listen(&uri, &first, &e), 0);
	assert_int_equal(uri_parse(link_listener_address(first), &uri, &e), 0);
	assert_int_equal(link_listen(&uri, &second, &e), -EADDRINUSE);
	assert_non_null(strstr(e.msg, "another program listens there"));
	link_listener_free(first);
	assert_int_equal(uri_parse("unix:/no-such-directory/socket", &uri, &e), 0);
	assert_int_equal(link_listen(&uri, &second, &e), -ENOENT);
	assert_non_null(strstr(e.msg, "create its directory"));
}

static void test_accept_times_out(void **state)
{
	struct err e = ERR_INIT;
	struct link_listener *ll;
	struct link *l;
	struct uri uri;

	(void)state;
	assert_int_equal(uri_parse("tcp:127.0.0.1:0", &uri, &e), 0);
	assert_int_equal(link_listen(&uri, &ll, &e), 0);
	assert_true(link_accept(ll, NULL, 20 * NS_PER_MS, NULL, &l, &e) < 0);
	link_listener_free(ll);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_gather_and_scatter, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_to_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_peer_closes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stall_timeout, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel_wakes_a_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(test_input_counts_though_cancelled, setup,
						teardown),
		cmocka_unit_test(test_listen_and_connect),
		cmocka_unit_test(test_within_the_host_nothing_paces),
		cmocka_unit_test(test_cannot_listen_says_what_to_do),
		cmocka_unit_test(test_refused_says_what_to_do),
		cmocka_unit_test(test_accept_times_out),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
