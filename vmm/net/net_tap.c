/*
 * A tap interface (Linux Documentation/networking/tuntap.rst, linux/if_tun.h): what the guest sends
 * the host receives on it, and the other way round. Put into a bridge, it is the guest's cable.
 *
 * The interface must exist. With privileges TUNSETIFF would make one, but it would be in no bridge,
 * down, and gone with this process: never what somebody meant who mistyped a name.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/base/log.h"
#include "vmm/net/net_backend.h"

#define TUN_PATH     "/dev/net/tun"
#define ALL_OFFLOADS (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_UFO)

_Static_assert(NET_OFFLOAD_CSUM == TUN_F_CSUM && NET_OFFLOAD_TSO4 == TUN_F_TSO4 &&
		       NET_OFFLOAD_TSO6 == TUN_F_TSO6 && NET_OFFLOAD_ECN == TUN_F_TSO_ECN &&
		       NET_OFFLOAD_UFO == TUN_F_UFO,
	       "offloads are passed on as they are");

static const char *multi_queue(const struct net_backend *b)
{
	return b->nr_queues > 1 ? " multi_queue" : "";
}

static int no_such_tap(const struct net_backend *b, struct err *e)
{
	return err_set(
		e, ERR_USAGE, ENODEV,
		"there is no network interface '%s'; make it, as root: ip tuntap add dev %s "
		"mode tap user %u%s && ip link set %s up (and 'master BRIDGE' to put it into "
		"a bridge)",
		b->name, b->name, (unsigned)geteuid(), multi_queue(b), b->name);
}

static int open_device(struct err *e)
{
	int fd = open(TUN_PATH, O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0)
		return fd;
	if (errno == EACCES || errno == EPERM)
		return err_sys(e,
			       "cannot open %s; as root: chmod 0666 %s (each interface still "
			       "belongs to its user)",
			       TUN_PATH, TUN_PATH);
	return err_sys(e, "cannot open %s; as root: modprobe tun", TUN_PATH);
}

static int refused(const struct net_backend *b, struct err *e)
{
	switch (errno) {
	case EPERM:
		return err_set(
			e, ERR_SYS, EPERM,
			"tap '%s' belongs to another user; as root: ip tuntap del dev %s mode "
			"tap; ip tuntap add dev %s mode tap user %u%s",
			b->name, b->name, b->name, (unsigned)geteuid(), multi_queue(b));
	case EBUSY:
	case E2BIG:
		return err_set(
			e, ERR_SYS, EBUSY,
			"tap '%s' is in use by another program: give this guest a tap of its "
			"own",
			b->name);
	case EINVAL:
		return err_set(e, ERR_SYS, EINVAL,
			       "'%s' is not a tap that this guest can use%s; make another: ip "
			       "tuntap add dev NAME mode tap user %u%s",
			       b->name, b->nr_queues > 1 ? " with several queues" : "",
			       (unsigned)geteuid(), multi_queue(b));
	default:
		return err_sys(e, "cannot attach to tap '%s'", b->name);
	}
}

static int attach(const struct net_backend *b, int fd, short flags)
{
	struct ifreq r = {.ifr_flags = flags};

	memcpy(r.ifr_name, b->name, IFNAMSIZ);
	return ioctl(fd, TUNSETIFF, &r);
}

static int open_queue(struct net_backend *b, uint32_t i, struct err *e)
{
	const short flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	int header = NET_HDR_BYTES;
	int ret = -1;

	b->fds[i] = open_device(e);
	if (b->fds[i] < 0)
		return -e->code;
	errno = EINVAL;
	if (b->nr_queues == 1)
		ret = attach(b, b->fds[i], flags);
	/* A tap made for several queues is attached to as such, also for one. */
	if (ret < 0 && errno == EINVAL)
		ret = attach(b, b->fds[i], flags | IFF_MULTI_QUEUE);
	if (ret < 0)
		return refused(b, e);
	if (ioctl(b->fds[i], TUNSETVNETHDRSZ, &header) < 0)
		return err_sys(e, "tap '%s' does not take headers of %d bytes", b->name, header);
	return 0;
}

/* The guest is told the MTU, because behind a bridge nothing else would tell it. */
static void look_at_interface(struct net_backend *b)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq r = {.ifr_mtu = 0};

	if (fd < 0)
		return;
	memcpy(r.ifr_name, b->name, IFNAMSIZ);
	if (!ioctl(fd, SIOCGIFMTU, &r) && r.ifr_mtu >= 68 && r.ifr_mtu <= UINT16_MAX)
		b->mtu = (uint16_t)r.ifr_mtu;
	if (!ioctl(fd, SIOCGIFFLAGS, &r) && !(r.ifr_flags & IFF_UP))
		log_warning("tap '%s' is down, so its guest has no network; as root: ip link set "
			    "%s up",
			    b->name, b->name);
	close(fd);
}

/* UFO came and went and came back between kernels; the rest is in all of them. */
static void probe_offloads(struct net_backend *b)
{
	b->offloads = ALL_OFFLOADS;
	if (ioctl(b->fds[0], TUNSETOFFLOAD, (unsigned long)b->offloads) < 0)
		b->offloads &= ~(uint32_t)NET_OFFLOAD_UFO;
}

static int tap_open(struct net_backend *b, const struct net_config *config, struct err *e)
{
	if (strlen(config->name) >= IFNAMSIZ)
		return err_set(e, ERR_USAGE, ENAMETOOLONG,
			       "'%s' is no name of an interface: they have at most %d characters",
			       config->name, IFNAMSIZ - 1);
	if (!if_nametoindex(b->name))
		return no_such_tap(b, e);
	for (uint32_t i = 0; i < b->nr_queues; i++)
		if (open_queue(b, i, e) < 0)
			return -e->code;
	probe_offloads(b);
	look_at_interface(b);
	return 0;
}

static int tap_set_offloads(struct net_backend *b, uint32_t offloads, struct err *e)
{
	if (ioctl(b->fds[0], TUNSETOFFLOAD, (unsigned long)offloads) < 0)
		return err_sys(e, "tap '%s' refuses offloads 0x%x", b->name, offloads);
	return 0;
}

static int tap_set_queues(struct net_backend *b, uint32_t nr, struct err *e)
{
	for (uint32_t i = 0; i < b->nr_queues; i++) {
		struct ifreq r = {.ifr_flags = i < nr ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

		if ((i < nr) == (i < b->nr_attached))
			continue;
		if (ioctl(b->fds[i], TUNSETQUEUE, &r) < 0)
			return err_sys(e, "tap '%s' cannot switch queue %u %s", b->name, i,
				       i < nr ? "on" : "off");
	}
	return 0;
}

const struct net_backend_ops net_tap_ops = {
	.kind = "tap",
	.open = tap_open,
	.set_offloads = tap_set_offloads,
	.set_queues = tap_set_queues,
};
