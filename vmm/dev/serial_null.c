/* Output vanishes (serial_backend.c does not even queue it), input never comes. */
#include "vmm/dev/serial_port.h"

static int null_open(struct serial_port *p, const char *path, struct err *e)
{
	(void)p;
	(void)path;
	(void)e;
	return 0;
}

static void null_close(struct serial_port *p)
{
	(void)p;
}

const struct serial_kind serial_null = {
	.name = "null",
	.open = null_open,
	.close = null_close,
};
