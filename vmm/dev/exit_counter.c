/*
 * Tells a guest how many exits its host has had from vCPU 0: for guests that measure exits
 * (nested/l1/bench.c). Only in machines that are made for that. Reads as all ones where KVM does
 * not count; so does a machine without it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nested/l1/l1_ports.h"
#include "vmm/dev/devices.h"
#include "vmm/kvm_stats.h"

struct exit_counter {
	struct device dev;
	struct kvm_stat exits; /* immutable after new */
};

static void exit_counter_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	const struct exit_counter *x = ctx;
	uint32_t value = (uint32_t)kvm_stat_read(&x->exits);

	memset(data, 0xff, len);
	if (offset == 0 && len == sizeof(value) && x->exits.fd >= 0)
		memcpy(data, &value, sizeof(value));
}

static void exit_counter_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	(void)ctx;
	(void)offset;
	(void)data;
	(void)len;
}

static void exit_counter_reset(struct device *d)
{
	(void)d;
}

static void exit_counter_free(struct device *d)
{
	struct exit_counter *x = (struct exit_counter *)d;

	kvm_stat_close(&x->exits);
	free(x);
}

/* Its count is the host's, not the guest's: neither save nor load. */
static const struct dev_ops exit_counter_ops = {
	.type = "exit-counter",
	.state_version = 1,
	.oldest_loadable = 1,
	.reset = exit_counter_reset,
	.free = exit_counter_free,
};

static const struct bus_ops exit_counter_bus_ops = {
	.read = exit_counter_read,
	.write = exit_counter_write,
};

int exit_counter_new(const struct machine *m, int vcpu_fd, struct device **out, struct err *e)
{
	struct exit_counter *x = calloc(1, sizeof(*x));
	struct err ignored = ERR_INIT;
	int ret;

	if (!x)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for exit-counter");
	x->dev.ops = &exit_counter_ops;
	x->exits.fd = -1;
	(void)kvm_stat_open(vcpu_fd, "exits", &x->exits, &ignored);
	ret = bus_add(m->bus, BUS_PIO, L1_EXITS_PORT, 4, "exit-counter", &exit_counter_bus_ops, x,
		      e);
	if (ret < 0) {
		exit_counter_free(&x->dev);
		return ret;
	}
	*out = &x->dev;
	return 0;
}
