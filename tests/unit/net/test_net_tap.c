/* Back ends: taps in a namespace, and descriptors. */
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <sys/uio.h>

#include "tests/unit/net/tap_namespace.h"
#include "vmm/net/net_announce.h"
#include "vmm/net/net_backend.h"

static struct net_backend *open_tap(const char *name, uint32_t nr_queues)
{
	struct net_config c = {.kind = "tap", .nr_queues = nr_queues};
	struct net_backend *b;
	struct err e = ERR_INIT;

	strcpy(c.name, name);
	if (net_backend_new(&c, &b, &e) < 0)
		fail_msg("%s", e.msg);
	return b;
}

static void expect_error(const char *kind, const char *name, uint32_t nr_queues, int code,
			 const char *words)
{
	struct net_config c = {.nr_queues = nr_queues};
	struct net_backend *b;
	struct err e = ERR_INIT;

	strcpy(c.kind, kind);
	strcpy(c.name, name);
	assert_int_equal(net_backend_new(&c, &b, &e), -code);
	if (!strstr(e.msg, words))
		fail_msg("'%s' does not say '%s'", e.msg, words);
}

static void test_frames_both_ways(void **state)
{
	static const uint8_t mac[] = {0x52, 0x54, 0, 0, 0, 1};
	struct virtio_net_hdr_v1 h = {.flags = 0};
	uint8_t frame[ANNOUNCE_FRAME_BYTES];
	uint8_t got[2048];
	struct iovec iov[] = {{&h, sizeof(h)}, {frame, sizeof(frame)}};
	struct net_backend *b;
	int host;

	(void)state;
	make_tap("t0", 0, 9000);
	b = open_tap("t0", 0);
	host = packet_socket("t0");
	announce_rarp(mac, frame);
	assert_int_equal(writev(b->fds[0], iov, 2), sizeof(h) + sizeof(frame));
	assert_int_equal(receive_type(host, got, sizeof(got), 0, ETHERTYPE_REVARP), sizeof(frame));
	assert_memory_equal(got, frame, sizeof(frame));

	assert_int_equal(send_until_received(host, frame, sizeof(frame), b->fds[0], got,
					     sizeof(got), NET_HDR_BYTES),
			 NET_HDR_BYTES + sizeof(frame));
	assert_memory_equal(got + NET_HDR_BYTES, frame, sizeof(frame));
	close(host);
	net_backend_free(b);
	remove_tap("t0");
}

static void test_what_it_learns_of_a_tap(void **state)
{
	struct net_backend *b;
	struct err e = ERR_INIT;

	(void)state;
	make_tap("t0", 0, 9000);
	b = open_tap("t0", 0);
	assert_int_equal(b->mtu, 9000);
	assert_int_equal(b->nr_queues, 1);
	assert_true(b->offloads & NET_OFFLOAD_TSO4 && b->offloads & NET_OFFLOAD_CSUM);
	assert_int_equal(net_backend_set_offloads(b, b->offloads, &e), 0);
	assert_int_equal(net_backend_set_offloads(b, 0, &e), 0);
	expect_error("tap", "t0", 1, EBUSY, "in use by another program");
	net_backend_free(b);
	remove_tap("t0");
}

static void test_several_queues(void **state)
{
	struct net_backend *b;
	struct err e = ERR_INIT;

	(void)state;
	make_tap("m0", IFF_MULTI_QUEUE, 9000);
	b = open_tap("m0", 4);
	assert_int_equal(b->nr_attached, 1);
	assert_int_equal(net_backend_set_queues(b, 4, &e), 0);
	assert_int_equal(net_backend_set_queues(b, 2, &e), 0);
	assert_int_equal(b->nr_attached, 2);
	net_backend_free(b);
	/* Made for several, used with one. */
	b = open_tap("m0", 1);
	net_backend_free(b);
	remove_tap("m0");
}

static void test_what_to_do_about_it(void **state)
{
	(void)state;
	make_tap("t0", 0, 9000);
	expect_error("tap", "t1", 1, ENODEV, "ip tuntap add dev t1 mode tap user ");
	expect_error("tap", "t1", 2, ENODEV, " multi_queue && ip link set t1 up");
	expect_error("tap", "t0", 2, EINVAL, "multi_queue");
	expect_error("tap", "lo", 1, EINVAL, "is not a tap");
	expect_error("tap", "a-name-of-16-byt", 1, ENAMETOOLONG, "15 characters");
	expect_error("fd", "999", 1, EBADF, "fd:999");
	expect_error("fd", "x", 1, EINVAL, "fd:x");
	expect_error("bus", "x", 1, EINVAL, "tap:INTERFACE");
	remove_tap("t0");
}

static void test_fd_pair(void **state)
{
	struct net_config c = {.kind = "fd"};
	struct net_backend *b;
	struct err e = ERR_INIT;
	int ends[2];
	char got[8];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
	snprintf(c.name, sizeof(c.name), "%d", ends[0]);
	if (net_backend_new(&c, &b, &e) < 0)
		fail_msg("%s", e.msg);
	assert_int_equal(write(ends[1], "one", 3), 3);
	assert_int_equal(write(ends[1], "three", 5), 5);
	assert_int_equal(read(b->fds[0], got, sizeof(got)), 3);
	assert_int_equal(read(b->fds[0], got, sizeof(got)), 5);
	assert_int_equal(read(b->fds[0], got, sizeof(got)), -1);
	assert_int_equal(errno, EAGAIN);
	net_backend_free(b);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	snprintf(c.name, sizeof(c.name), "%d", ends[0]);
	assert_int_equal(net_backend_new(&c, &b, &e), -EINVAL);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames_both_ways),
		cmocka_unit_test(test_what_it_learns_of_a_tap),
		cmocka_unit_test(test_several_queues),
		cmocka_unit_test(test_what_to_do_about_it),
		cmocka_unit_test(test_fd_pair),
	};

	return cmocka_run_group_tests(tests, enter_namespace, NULL);
}
