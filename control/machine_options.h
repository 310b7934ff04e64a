/* The options that say what a machine is made of, shared by the commands that make one. */
#pragma once

#include "control/options.h"
#include "control/rdma_options.h"
#include "control/session.h"

struct machine_options {
	const char *kernel;
	const char *initrd;
	const char *append;
	uint64_t memory_bytes;
	bool prealloc;
	uint64_t nr_cpus;
	const char *cpu; /* model; NULL: host */
	const char *serial;
	const char *console; /* NULL: none */
	bool balloon;
	bool rng;
	struct option_list disks;
	struct option_list nets;
	const char *qmp;
	const char *tracker;
	bool debug_exit;
	bool test_devices;  /* debug_exit too */
	const char *nested; /* NULL: off; with test_devices: on */
	struct rdma_options rdma;
};

/* Rows for a table whose target struct has a `struct machine_options` member named @machine. */
#define MACHINE_OFFSET(target, member) \
	(offsetof(target, machine) + offsetof(struct machine_options, member))

/* Checks what can be checked before anything is opened, and fills @config in. @incoming: the
 * machine comes from elsewhere, so there need not be an image. */
int machine_options_apply(const struct machine_options *o, bool incoming,
			  struct session_config *config, struct err *e);
