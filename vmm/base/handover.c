#include "vmm/base/handover.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Room and alignment for the one descriptor of a message. */
union rights {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

int handover_pair(int ends[2], struct err *e)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return err_sys(e, "cannot make a socket pair");
	return 0;
}

int handover_give(int end, int fd, struct err *e)
{
	char something = 0; /* an empty message would be taken for the end */
	struct iovec iov = {&something, 1};
	union rights rights = {.bytes = {0}};
	struct msghdr message = {.msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = rights.bytes,
				 .msg_controllen = sizeof(rights.bytes)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	if (sendmsg(end, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return err_sys(e, "cannot hand a connection over");
	return 0;
}

int handover_take(int end, struct err *e)
{
	char something;
	struct iovec iov = {&something, 1};
	union rights rights;
	struct msghdr message = {.msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = rights.bytes,
				 .msg_controllen = sizeof(rights.bytes)};
	ssize_t nr = recvmsg(end, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *header = nr > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	int fd;

	if (nr < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (nr < 0)
		return err_sys(e, "cannot take a connection over");
	if (nr == 0)
		return err_set(e, ERR_PEER, EPIPE,
			       "the process that hands connections over has ended");
	/* Without room in our table of descriptors the kernel delivers the message alone. */
	if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(fd)))
		return err_set(e, ERR_SYS, EMFILE, "a connection was handed over and none came");
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}
