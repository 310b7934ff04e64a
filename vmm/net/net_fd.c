/*
 * A descriptor that the parent process opened (fd:NUMBER): a datagram socket whose other end is
 * another card, a switch in user space or a test. Needs no privileges. Each datagram is a frame
 * behind its header; the other end understands every offload, as a card does.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "vmm/base/units.h"
#include "vmm/net/net_backend.h"

#define ALL_OFFLOADS \
	(NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN | NET_OFFLOAD_UFO)

static int check_socket(int fd, struct err *e)
{
	int type = 0;
	socklen_t len = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return err_sys(e, "network fd:%d is not a socket of this process", fd);
	if (type != SOCK_DGRAM)
		return err_set(e, ERR_USAGE, EINVAL,
			       "network fd:%d: only a datagram socket keeps frames "
			       "apart",
			       fd);
	return 0;
}

static int fd_open(struct net_backend *b, const struct net_config *config, struct err *e)
{
	uint64_t first;

	if (units_parse_u64(config->name, 0, INT32_MAX - NET_MAX_QUEUES, &first, e) < 0)
		return err_prefix(e, "network fd:%s", config->name);
	/* Several queues are descriptors that follow each other. */
	for (uint32_t i = 0; i < b->nr_queues; i++) {
		int fd = (int)first + (int)i;

		if (check_socket(fd, e) < 0)
			return -e->code;
		b->fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (b->fds[i] < 0 || fcntl(b->fds[i], F_SETFL, O_NONBLOCK) < 0)
			return err_sys(e, "cannot use network fd:%d", fd);
	}
	b->offloads = ALL_OFFLOADS;
	return 0;
}

static int fd_set_offloads(struct net_backend *b, uint32_t offloads, struct err *e)
{
	(void)b;
	(void)offloads;
	(void)e;
	return 0;
}

static int fd_set_queues(struct net_backend *b, uint32_t nr, struct err *e)
{
	(void)b;
	(void)nr;
	(void)e;
	return 0;
}

const struct net_backend_ops net_fd_ops = {
	.kind = "fd",
	.open = fd_open,
	.set_offloads = fd_set_offloads,
	.set_queues = fd_set_queues,
};
