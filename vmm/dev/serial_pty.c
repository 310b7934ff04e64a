/*
 * A pseudo-terminal, for `screen /dev/pts/N`. The slave side is kept open here as well: without a
 * slave, the master reports hang-ups that poll cannot wait out, and settings are lost each time a
 * program detaches.
 */
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/dev/serial_port.h"

struct pty {
	int master;
	int slave;
};

static int open_pair(struct pty *pty, char *path, struct err *e)
{
	struct termios raw;
	int code;

	pty->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (pty->master < 0)
		return err_sys(e, "cannot open a pseudo-terminal (is /dev/pts mounted?)");
	if (grantpt(pty->master) || unlockpt(pty->master))
		return err_sys(e, "cannot unlock a pseudo-terminal");
	code = ptsname_r(pty->master, path, SERIAL_PATH_BYTES);
	if (code)
		return err_set(e, ERR_SYS, code, "cannot name the pseudo-terminal: %s",
			       strerrordesc_np(code));
	pty->slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (pty->slave < 0)
		return err_sys(e, "cannot open pseudo-terminal %s", path);
	/* Raw, or the line discipline would echo the guest's output back to it as input. */
	if (tcgetattr(pty->slave, &raw))
		return err_sys(e, "cannot read the settings of %s", path);
	cfmakeraw(&raw);
	if (tcsetattr(pty->slave, TCSANOW, &raw))
		return err_sys(e, "cannot change the settings of %s", path);
	return 0;
}

static void pty_free(struct pty *pty)
{
	if (pty->slave >= 0)
		close(pty->slave);
	if (pty->master >= 0)
		close(pty->master);
	free(pty);
}

static int pty_open(struct serial_port *p, const char *path, struct err *e)
{
	struct pty *pty = malloc(sizeof(*pty));
	int ret;

	(void)path;
	if (!pty)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for serial pty");
	*pty = (struct pty){.master = -1, .slave = -1};
	ret = open_pair(pty, p->path, e);
	if (ret) {
		pty_free(pty);
		return ret;
	}
	p->in_fd = p->out_fd = pty->master;
	p->priv = pty;
	return 0;
}

static void pty_close(struct serial_port *p)
{
	pty_free(p->priv);
}

const struct serial_kind serial_pty = {
	.name = "pty",
	.open = pty_open,
	.close = pty_close,
};
