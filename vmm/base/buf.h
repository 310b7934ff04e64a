/*
 * A growable byte buffer. One owner, one thread. Growth is bounded by BUF_MAX_BYTES so that a size
 * that comes from outside can never exhaust memory.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vmm/base/err.h"

#define BUF_MAX_BYTES (256u << 20)

struct buf {
	uint8_t *data;
	size_t len;
	size_t cap;
};

#define BUF_INIT             \
	{                    \
		.data = NULL \
	}

void buf_fini(struct buf *b);
void buf_reset(struct buf *b); /* len = 0, memory kept */

/* Append @len bytes (zeroes if @data is NULL). */
int buf_append(struct buf *b, const void *data, size_t len, struct err *e);

/* Room for @len more bytes at data + len; the caller adds what it wrote to len. */
int buf_reserve(struct buf *b, size_t len, struct err *e);
