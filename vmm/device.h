/*
 * What the VM asks of a device. A device embeds `struct device` first and registers itself with
 * the bus it answers on; the VM keeps the list (machine.c, the bill of materials) and drives it.
 *
 * Threads: port and memory handlers run on vCPU threads, several at once; every device locks its
 * own state. The operations below run on one thread (the VM's controller: QMP loop or migration)
 * while all vCPUs are paused, except `free`.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/buf.h"
#include "vmm/base/err.h"

struct device;

struct dev_ops {
	const char *type;         /* "uart16550"; the name in the stream, never changed */
	uint32_t state_version;   /* what save writes */
	uint32_t oldest_loadable; /* the oldest version load takes */

	/* Back to power-on state. */
	void (*reset)(struct device *d);

	/* After quiesce no device thread touches guest memory or device state; unquiesce undoes it.
	 * Either may be NULL: nothing to do. */
	int (*quiesce)(struct device *d, struct err *e);
	void (*unquiesce)(struct device *d);

	/* Append the state to @out; changes nothing. NULL: stateless. */
	int (*save)(const struct device *d, struct buf *out, struct err *e);

	/* Validate all of @len bytes, then assign: a load that fails changes nothing. */
	int (*load)(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		    struct err *e);

	void (*free)(struct device *d);
};

struct device {
	const struct dev_ops *ops;
	uint32_t instance; /* 0, 1, ... among devices of one type */
};
