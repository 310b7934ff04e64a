/*
 * A listening unix socket; one client at a time, others wait in the queue until it leaves. The
 * client that comes gets what the guest wrote meanwhile, as far as the queue holds it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/base/log.h"
#include "vmm/dev/serial_port.h"

struct unix_server {
	struct sockaddr_un address;
	dev_t dev; /* the socket file we made: another one at that path is not ours to remove */
	ino_t ino;
};

static int fill_address(struct sockaddr_un *address, const char *path, struct err *e)
{
	size_t len = strlen(path);

	address->sun_family = AF_UNIX;
	if (len >= sizeof(address->sun_path))
		return err_set(e, ERR_USAGE, ENAMETOOLONG,
			       "serial socket '%s' has %zu characters, at most %zu; use a shorter "
			       "path",
			       path, len, sizeof(address->sun_path) - 1);
	memcpy(address->sun_path, path, len + 1);
	return 0;
}

/* A socket file that nobody listens on is a leftover and goes; anything else stays. */
static int remove_stale(const struct sockaddr_un *address, struct err *e)
{
	const char *path = address->sun_path;
	struct stat st;
	int fd;
	int code;

	if (lstat(path, &st))
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, ERR_SYS, EEXIST,
			       "serial socket '%s' exists and is not a socket; choose another path",
			       path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "cannot create a socket for serial '%s'", path);
	code = connect(fd, (const struct sockaddr *)address, sizeof(*address)) ? errno : 0;
	close(fd);
	if (code != ECONNREFUSED)
		return err_set(
			e, ERR_SYS, EADDRINUSE,
			"serial socket '%s' is in use by another program; choose another path",
			path);
	unlink(path);
	return 0;
}

static int start_listening(int fd, struct unix_server *s, struct err *e)
{
	const char *path = s->address.sun_path;
	struct stat st;

	if (bind(fd, (const struct sockaddr *)&s->address, sizeof(s->address)))
		return err_sys(e,
			       "cannot create serial socket '%s' (does its directory exist, and "
			       "may you write there?)",
			       path);
	if (listen(fd, 4))
		return err_sys(e, "cannot listen on serial socket '%s'", path);
	if (!lstat(path, &st)) {
		s->dev = st.st_dev;
		s->ino = st.st_ino;
	}
	return 0;
}

static int unix_listen(struct serial_port *p, struct unix_server *s, const char *path,
		       struct err *e)
{
	int ret = fill_address(&s->address, path, e);
	int fd;

	if (!ret)
		ret = remove_stale(&s->address, e);
	if (ret)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "cannot create a socket for serial '%s'", path);
	ret = start_listening(fd, s, e);
	if (ret) {
		close(fd);
		return ret;
	}
	p->listen_fd = fd;
	return 0;
}

static int unix_open(struct serial_port *p, const char *path, struct err *e)
{
	struct unix_server *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for serial unix");
	ret = unix_listen(p, s, path, e);
	if (ret) {
		free(s);
		return ret;
	}
	p->priv = s;
	return 0;
}

static void unix_accept(struct serial_port *p)
{
	int fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		p->in_fd = p->out_fd = fd;
		return;
	}
	if (errno == EMFILE || errno == ENFILE) {
		/* The client stays in the queue, so poll would return at once, for ever. */
		log_debug("serial unix: too many open files to accept a client; retrying");
		usleep(100000);
	}
}

static void unix_hangup(struct serial_port *p)
{
	close(p->out_fd);
	p->in_fd = p->out_fd = -1;
}

static void unix_close(struct serial_port *p)
{
	struct unix_server *s = p->priv;
	struct stat st;

	if (p->out_fd >= 0)
		unix_hangup(p);
	if (!lstat(s->address.sun_path, &st) && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->address.sun_path);
	close(p->listen_fd);
	free(s);
}

const struct serial_kind serial_unix = {
	.name = "unix",
	.has_argument = true,
	.open = unix_open,
	.close = unix_close,
	.accept = unix_accept,
	.hangup = unix_hangup,
};
