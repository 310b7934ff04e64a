/*
 * Output to a file. It is appended to, never truncated: a log that is there survives a mistyped
 * command, and source and destination of a migration on one host continue the same log.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "vmm/dev/serial_port.h"

struct advice {
	int code;
	const char *text;
};

static const char *remedy(int code)
{
	static const struct advice table[] = {
		{ENOENT, "create its directory first"},
		{EACCES, "choose a path you may write to"},
		{EISDIR, "name a file in it"},
		{ENXIO, "start the reader of the FIFO first"},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].code == code)
			return table[i].text;
	return "choose another path";
}

static int file_open(struct serial_port *p, const char *path, struct err *e)
{
	/* Non-blocking, or a FIFO without a reader would hang the start. */
	int fd =
		open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
	int code = errno;

	if (fd < 0)
		return err_set(e, ERR_SYS, code, "cannot open serial file '%s' for writing: %s; %s",
			       path, strerrordesc_np(code), remedy(code));
	p->out_fd = fd;
	p->priv = (void *)(intptr_t)fd;
	return 0;
}

static void file_close(struct serial_port *p)
{
	close((int)(intptr_t)p->priv);
}

const struct serial_kind serial_file = {
	.name = "file",
	.has_argument = true,
	.open = file_open,
	.close = file_close,
};
