/*
 * What a connection begins with: enough to tell whose it is before anybody serves it
 * (proto/STREAM.md, sections 1 and 2). Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/err.h"

#define MIGRATION_ID_BYTES 16

struct first_record {
	bool begins; /* HELLO, a migration begins; otherwise CHANNEL, one of its channels */
	uint8_t id[MIGRATION_ID_BYTES];
};

/* Read the @len bytes that have come. *@need is how many it takes in all, at most 64 KiB and a
 * header: with more than @len @out is not valid yet. ERR_STREAM for what begins no connection. */
int first_record_parse(const void *data, size_t len, struct first_record *out, size_t *need,
		       struct err *e);
