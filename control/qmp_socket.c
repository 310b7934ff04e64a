#include "control/qmp_socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int parse_option(const char *option, bool *server, const char *address, struct err *e)
{
	if (!*option || !strcmp(option, "server=on") || !strcmp(option, "server"))
		*server = true;
	else if (!strcmp(option, "server=off"))
		*server = false;
	else if (strcmp(option, "wait=off") && strcmp(option, "nowait"))
		return err_set(e, ERR_USAGE, EINVAL,
			       "'%.200s': unknown option '%.50s'; write unix:PATH or "
			       "unix:PATH,server=off",
			       address, option);
	return 0;
}

int qmp_socket_parse(const char *address, char path[QMP_SOCKET_PATH_MAX], bool *server,
		     struct err *e)
{
	const char *rest = strncmp(address, "unix:", 5) ? address : address + 5;
	size_t len = strcspn(rest, ",");
	char options[64];
	char *at = options;
	char *word;

	if (!strncmp(address, "tcp:", 4) || !len)
		return err_set(e, ERR_USAGE, EINVAL,
			       "'%.200s' is not a QMP socket; write unix:PATH", address);
	if (len >= QMP_SOCKET_PATH_MAX)
		return err_set(e, ERR_USAGE, ENAMETOOLONG,
			       "'%.200s' is too long for a unix socket (%d bytes at most)", rest,
			       QMP_SOCKET_PATH_MAX - 1);
	memcpy(path, rest, len);
	path[len] = '\0';
	*server = true;
	snprintf(options, sizeof(options), "%s", rest[len] ? rest + len + 1 : "");
	while ((word = strsep(&at, ","))) {
		int ret = parse_option(word, server, address, e);

		if (ret < 0)
			return ret;
	}
	return 0;
}

static struct sockaddr_un name_of(const char *path)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};

	snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
	return name;
}

static int new_socket(struct err *e)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd >= 0 ? fd : err_sys(e, "cannot make a unix socket");
}

static int connect_errno(const char *path)
{
	struct sockaddr_un name = name_of(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int failure = 0;

	if (fd < 0)
		return errno;
	if (connect(fd, (struct sockaddr *)&name, sizeof(name)) < 0)
		failure = errno;
	close(fd);
	return failure;
}

/* Make @path free for bind(2), if that is safe. */
static int take_over(const char *path, struct err *e)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return 0; /* bind says what is wrong, if anything is */
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, ERR_USAGE, EEXIST,
			       "%s exists and is not a socket: choose another path", path);
	if (connect_errno(path) != ECONNREFUSED)
		return err_set(e, ERR_STATE, EADDRINUSE,
			       "%s is in use by another process: stop that or choose another path",
			       path);
	if (unlink(path) < 0)
		return err_sys(e, "cannot replace the stale socket %s", path);
	return 0;
}

int qmp_socket_listen(const char *path, struct err *e)
{
	struct sockaddr_un name = name_of(path);
	int ret = take_over(path, e);
	int fd;

	if (ret < 0)
		return ret;
	fd = new_socket(e);
	if (fd < 0)
		return fd;
	if (bind(fd, (struct sockaddr *)&name, sizeof(name)) < 0) {
		ret = err_sys(e, "cannot make the socket %s", path);
		close(fd);
		return ret;
	}
	/* Who can talk to it owns the guest. Nobody gets in before listen(2). */
	if (chmod(path, 0600) < 0) {
		ret = err_sys(e, "cannot protect the socket %s", path);
		unlink(path);
		close(fd);
		return ret;
	}
	return fd;
}

static bool is_socket(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

static int connect_failed(const char *path, struct err *e)
{
	int code = errno;

	switch (code) {
	case ENOENT:
		return err_set(e, ERR_PEER, ENOENT,
			       "there is no QMP socket %s: was the guest started with --qmp "
			       "unix:%s?",
			       path, path);
	case ECONNREFUSED: /* so it is for what is no socket, too */
		if (!is_socket(path))
			return err_set(e, ERR_USAGE, ENOTSOCK, "%s is not a QMP socket", path);
		return err_set(e, ERR_PEER, ECONNREFUSED,
			       "nobody serves %s any more: the VMM behind it has ended", path);
	case EACCES:
		return err_set(e, ERR_SYS, EACCES,
			       "no permission for %s: use the account that runs the VMM", path);
	default:
		return err_set(e, ERR_SYS, code, "cannot connect to %s: %s", path,
			       strerrordesc_np(code));
	}
}

int qmp_socket_connect(const char *path, struct err *e)
{
	struct sockaddr_un name = name_of(path);
	int fd = new_socket(e);
	int ret;

	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&name, sizeof(name)) < 0) {
		ret = connect_failed(path, e);
		close(fd);
		return ret;
	}
	return fd;
}
