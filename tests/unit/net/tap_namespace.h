/*
 * Taps in a network namespace of the test program's own: nothing of the machine's network is seen
 * or changed, and no root is needed where users may make namespaces. A packet socket on the tap is
 * the host's side of the cable.
 */
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tests/unit/cmocka_all.h"

static bool in_namespace;

/* Before the program has threads. Where it fails, making taps skips. */
static inline int enter_namespace(void **state)
{
	(void)state;
	in_namespace = !unshare(CLONE_NEWUSER | CLONE_NEWNET) || !unshare(CLONE_NEWNET);
	return 0;
}

static inline void control_interface(const char *name, unsigned long request, struct ifreq *r)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(r->ifr_name, name);
	assert_int_equal(ioctl(fd, request, r), 0);
	close(fd);
}

static inline int attach_tap(const char *name, short flags)
{
	struct ifreq r = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | flags)};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	strcpy(r.ifr_name, name);
	if (fd >= 0 && ioctl(fd, TUNSETIFF, &r) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* As `ip tuntap add dev NAME mode tap [multi_queue]` and `ip link set NAME up mtu MTU`. */
static inline void make_tap(const char *name, short flags, int mtu)
{
	struct ifreq r = {.ifr_mtu = mtu};
	int fd = in_namespace ? attach_tap(name, flags) : -1;

	if (fd < 0) {
		print_message("skipped: no /dev/net/tun, or no network namespace for this user\n");
		skip();
	}
	assert_int_equal(ioctl(fd, TUNSETPERSIST, 1), 0);
	close(fd);
	control_interface(name, SIOCSIFMTU, &r);
	r.ifr_flags = IFF_UP;
	control_interface(name, SIOCSIFFLAGS, &r);
}

/* As `ip link del NAME`, also under the feet of who uses it. */
static inline void remove_tap(const char *name)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} m = {.h = {.nlmsg_len = sizeof(m),
		     .nlmsg_type = RTM_DELLINK,
		     .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
	       .i = {.ifi_index = (int)if_nametoindex(name)}};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	char answer[256];

	assert_int_equal(send(fd, &m, sizeof(m), 0), sizeof(m));
	assert_true(recv(fd, answer, sizeof(answer), 0) > 0);
	assert_int_equal(if_nametoindex(name), 0);
	close(fd);
}

static inline int packet_socket(const char *name)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET,
				      .sll_protocol = htons(ETH_P_ALL),
				      .sll_ifindex = (int)if_nametoindex(name)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* The next frame of @type that comes within @timeout_ms of the one before, 0 if there is none; the
 * kernel of the namespace talks too (IPv6), that is passed over. @header bytes come before each. */
static inline size_t next_of_type(int fd, uint8_t *bytes, size_t cap, size_t header, uint16_t type,
				  int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (poll(&p, 1, timeout_ms) == 1) {
		ssize_t n = read(fd, bytes, cap);

		assert_true(n >= (ssize_t)header + ETH_HLEN);
		if (bytes[header + 12] == type >> 8 && bytes[header + 13] == (type & 0xff))
			return (size_t)n;
	}
	return 0;
}

static inline size_t receive_type(int fd, uint8_t *bytes, size_t cap, size_t header, uint16_t type)
{
	size_t n = next_of_type(fd, bytes, cap, header, type, 60000);

	if (!n)
		fail_msg("no frame of type 0x%x came in 60 s", type);
	return n;
}

/* From the host, until one has come through: the kernel starts a tap's queue some time after its
 * cable is plugged in, and loses what is sent before that. */
static inline size_t send_until_received(int host, const uint8_t *frame, size_t len, int fd,
					 uint8_t *bytes, size_t cap, size_t header)
{
	uint16_t type = (uint16_t)(frame[12] << 8 | frame[13]);

	for (int i = 0; i < 3000; i++) {
		size_t n;

		assert_int_equal(write(host, frame, len), len);
		n = next_of_type(fd, bytes, cap, header, type, 20);
		if (n)
			return n;
	}
	fail_msg("no frame of type 0x%x came through in 60 s", type);
	return 0;
}
