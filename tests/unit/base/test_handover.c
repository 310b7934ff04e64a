#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/cmocka_all.h"
#include "vmm/base/handover.h"
#include "vmm/base/link.h"

static void give_a_connection(int end, int *peer)
{
	struct err e = ERR_INIT;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(handover_give(end, fds[0], &e), 0);
	close(fds[0]);
	*peer = fds[1];
}

static void test_what_was_sent_before_stays_in_it(void **state)
{
	struct err e = ERR_INIT;
	char word[8] = "";
	int ends[2];
	int peer;
	int fd;

	(void)state;
	assert_int_equal(handover_pair(ends, &e), 0);
	assert_int_equal(handover_take(ends[1], &e), -EAGAIN);
	assert_int_equal(e.kind, ERR_NONE);
	give_a_connection(ends[0], &peer);
	assert_int_equal(write(peer, "early", 5), 5);
	fd = handover_take(ends[1], &e);
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(read(fd, word, sizeof(word)), 5);
	assert_string_equal(word, "early");
	close(fd);
	close(peer);
	close(ends[0]);
	close(ends[1]);
}

static void test_each_side_notices_the_others_end(void **state)
{
	struct err e = ERR_INIT;
	int ends[2];

	(void)state;
	assert_int_equal(handover_pair(ends, &e), 0);
	close(ends[0]);
	assert_int_equal(handover_take(ends[1], &e), -EPIPE);
	assert_int_equal(e.kind, ERR_PEER);
	close(ends[1]);

	assert_int_equal(handover_pair(ends, &e), 0);
	close(ends[1]);
	assert_int_equal(handover_give(ends[0], STDIN_FILENO, &e), -EPIPE);
	close(ends[0]);
}

/* Whoever gives more than is taken is told, not kept waiting. */
static void test_giving_never_waits(void **state)
{
	struct err e = ERR_INIT;
	int ends[2];
	int ret = 0;

	(void)state;
	assert_int_equal(handover_pair(ends, &e), 0);
	for (int i = 0; ret == 0 && i < 100000; i++)
		ret = handover_give(ends[0], ends[0], &e);
	assert_true(ret < 0);
	close(ends[0]);
	close(ends[1]);
}

static void test_a_listener_takes_what_is_handed_over(void **state)
{
	struct link_listener *listener;
	struct err e = ERR_INIT;
	struct link *link;
	char word[3];
	int ends[2];
	int peer;

	(void)state;
	assert_int_equal(handover_pair(ends, &e), 0);
	assert_int_equal(link_listen_handed(ends[1], "tcp:10.0.0.1:4444", &listener, &e), 0);
	assert_string_equal(link_listener_address(listener), "tcp:10.0.0.1:4444");
	give_a_connection(ends[0], &peer);
	assert_int_equal(link_accept(listener, NULL, 0, NULL, &link, &e), 0);
	assert_int_equal(write(peer, "abc", 3), 3);
	assert_int_equal(link_recv(link, word, 3, &e), 0);
	link_free(link);
	close(ends[0]);
	assert_true(link_accept(listener, NULL, 0, NULL, &link, &e) < 0);
	assert_non_null(strstr(e.msg, "has ended"));
	link_listener_free(listener);
	close(peer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_was_sent_before_stays_in_it),
		cmocka_unit_test(test_each_side_notices_the_others_end),
		cmocka_unit_test(test_giving_never_waits),
		cmocka_unit_test(test_a_listener_takes_what_is_handed_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
