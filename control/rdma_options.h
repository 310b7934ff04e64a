/* --rdma-pin and --rdma-fallback, which the commands at both ends of a migration have. */
#pragma once

#include "control/options.h"

struct rdma_options {
	const char *pin;      /* NULL: the default */
	const char *fallback; /* NULL: none */
};

/* Rows for a table whose target struct has a `struct rdma_options` at @offset. */
#define RDMA_OPTIONS(offset)                                                                     \
	{"rdma-pin",                                                                             \
	 "SIZE",                                                                                 \
	 "most memory that rdma: may pin at a time, or 'all';\ndefault 1G",                      \
	 OPTION_STRING,                                                                          \
	 (offset) + offsetof(struct rdma_options, pin),                                          \
	 0,                                                                                      \
	 0},                                                                                     \
	{                                                                                        \
		"rdma-fallback", "tcp", "go on over TCP when RDMA does not work", OPTION_STRING, \
			(offset) + offsetof(struct rdma_options, fallback), 0, 0                 \
	}

int rdma_options_parse(const struct rdma_options *o, uint64_t *pin_bytes, bool *fallback,
		       struct err *e);
