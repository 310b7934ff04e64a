/*
 * Port and memory-mapped I/O dispatch: which device answers which address.
 *
 * Ranges are added while the machine is assembled (one thread) and are immutable once vCPUs run, so
 * dispatch needs no lock. Unclaimed reads yield all ones and unclaimed writes vanish, as on a PC.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"

enum bus_space {
	BUS_PIO,
	BUS_MMIO
};

/* @offset is relative to the start of the range; @data holds @len (1, 2, 4 or 8) bytes, little
 * endian. Called on the vCPU's thread; may block only for as long as the device's own lock. */
struct bus_ops {
	void (*read)(void *ctx, uint64_t offset, void *data, uint32_t len);
	void (*write)(void *ctx, uint64_t offset, const void *data, uint32_t len);
};

struct bus;

int bus_new(struct bus **out, struct err *e);
void bus_free(struct bus *b);

/* Overlap with an earlier range is an error (ERR_STATE). @name is a literal, for messages. */
int bus_add(struct bus *b, enum bus_space space, uint64_t base, uint64_t len, const char *name,
	    const struct bus_ops *ops, void *ctx, struct err *e);

void bus_read(struct bus *b, enum bus_space space, uint64_t addr, void *data, uint32_t len);
void bus_write(struct bus *b, enum bus_space space, uint64_t addr, const void *data, uint32_t len);
