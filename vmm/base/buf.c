#include "vmm/base/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Most are a device's state: less than this, and a page of new memory for each would be noticed in
 * a blackout. */
#define FIRST_BYTES 512

void buf_fini(struct buf *b)
{
	free(b->data);
	*b = (struct buf)BUF_INIT;
}

void buf_reset(struct buf *b)
{
	b->len = 0;
}

int buf_reserve(struct buf *b, size_t len, struct err *e)
{
	size_t want;
	uint8_t *data;

	if (len > BUF_MAX_BYTES || b->len > BUF_MAX_BYTES - len)
		return err_set(e, ERR_STREAM, EFBIG, "a buffer of %zu + %zu bytes exceeds %u MiB",
			       b->len, len, BUF_MAX_BYTES >> 20);
	if (b->cap - b->len >= len)
		return 0;
	want = b->cap ? b->cap : FIRST_BYTES;
	while (want < b->len + len)
		want *= 2;
	data = realloc(b->data, want);
	if (!data)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for %zu bytes", want);
	b->data = data;
	b->cap = want;
	return 0;
}

int buf_append(struct buf *b, const void *data, size_t len, struct err *e)
{
	int ret = buf_reserve(b, len, e);

	if (ret < 0 || !len)
		return ret;
	if (data)
		memcpy(b->data + b->len, data, len);
	else
		memset(b->data + b->len, 0, len);
	b->len += len;
	return 0;
}
