/* QEMU's isa-debug-exit (hw/misc/debugexit.c there): how test programs end the VM with a status. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/dev/devices.h"

struct debug_exit {
	struct device dev;
	const struct machine *m; /* immutable after new */
};

static void debug_exit_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	(void)ctx;
	(void)offset;
	memset(data, 0, len);
}

static void debug_exit_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct debug_exit *x = ctx;
	uint8_t low;

	(void)offset;
	(void)len;
	/* exit(3) keeps eight bits, so one byte says all. */
	memcpy(&low, data, 1);
	x->m->request(x->m->ctx, MACHINE_EXIT, (low << 1 | 1) & 0xff);
}

static void debug_exit_reset(struct device *d)
{
	(void)d;
}

static void debug_exit_free(struct device *d)
{
	free(d);
}

/* Stateless: neither save nor load. */
static const struct dev_ops debug_exit_ops = {
	.type = "debug-exit",
	.state_version = 1,
	.oldest_loadable = 1,
	.reset = debug_exit_reset,
	.free = debug_exit_free,
};

static const struct bus_ops debug_exit_bus_ops = {
	.read = debug_exit_read,
	.write = debug_exit_write,
};

int debug_exit_new(const struct machine *m, struct device **out, struct err *e)
{
	struct debug_exit *x = calloc(1, sizeof(*x));
	int ret;

	if (!x)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for debug-exit");
	x->dev.ops = &debug_exit_ops;
	x->m = m;
	ret = bus_add(m->bus, BUS_PIO, BOARD_DEBUG_EXIT_PORT, 4, "debug-exit", &debug_exit_bus_ops,
		      x, e);
	if (ret) {
		free(x);
		return ret;
	}
	*out = &x->dev;
	return 0;
}
