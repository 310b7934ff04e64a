/*
 * The bare-metal L1 in QEMU, for comparison: starts it, tells it how many exits L0 has had whenever
 * it asks (nested/l1/l1_exits.h), and takes its table from its serial line. One thread, one call.
 *
 * The number is KVM's own: `exits` of that VM in debugfs, all vCPUs together, of which there is
 * one. By KVM's binary statistics only the process that has the VM can read it.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"

struct nested_qemu {
	const char *program;
	const char *kernel;
	const char *append;
	uint64_t memory_bytes;
	const char *end; /* it is done when it has said this */
	uint64_t patience_ns;
	int signals; /* ending_signals_open(): one that comes ends it; -1: none does */
};

/* What it said, in *@serial; free() it. Without debugfs (a warning says so) exits stay unknown. */
int nested_qemu_run(const struct nested_qemu *q, char **serial, struct err *e);
