/*
 * Golden streams as files: what a source sent on one connection of one migration, in hexadecimal,
 * with comments (lines that begin with '#'). Shared by the program that captures them and the test
 * that holds every later godwit against them. Include after cmocka.
 */
#pragma once

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "proto/batch.h"
#include "proto/record.h"

/* "control" is the first connection, "channel-N" the others. */
static inline void golden_path(char *path, size_t cap, const char *dir, int connection)
{
	if (connection == 0)
		snprintf(path, cap, "%s/control.hex", dir);
	else
		snprintf(path, cap, "%s/channel-%d.hex", dir, connection - 1);
}

/* Append the file's bytes to @out; false when there is no such file. */
static inline bool golden_read(const char *path, struct buf *out)
{
	FILE *f = fopen(path, "re");
	struct err e = ERR_INIT;
	char line[256];

	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		unsigned int byte;

		for (const char *at = line; line[0] != '#' && isxdigit(*at); at += 2) {
			assert_int_equal(sscanf(at, "%2x", &byte), 1);
			assert_int_equal(buf_reserve(out, 1, &e), 0);
			out->data[out->len++] = (uint8_t)byte;
		}
	}
	fclose(f);
	return true;
}

/* The record at @at of @stream, the @sequence-th; its length with the header. 0: a batch, or the
 * end. The body in @r is borrowed from @stream. */
static inline size_t golden_record(const struct buf *stream, size_t at, uint32_t sequence,
				   struct record *r)
{
	struct err e = ERR_INIT;
	uint32_t magic = 0;
	uint32_t length;

	if (at + RECORD_HEADER_BYTES > stream->len)
		return 0;
	memcpy(&magic, stream->data + at, sizeof(magic));
	if (magic != RECORD_MAGIC)
		return 0;
	if (record_parse_header(stream->data + at, sequence, &r->type, &length, &e) < 0)
		fail_msg("record %u at byte %zu: %s", sequence, at, e.msg);
	assert_true(at + RECORD_HEADER_BYTES + length <= stream->len);
	r->body = (struct buf){.data = stream->data + at + RECORD_HEADER_BYTES, .len = length};
	return RECORD_HEADER_BYTES + length;
}

/* The same for the batch at @at. */
static inline size_t golden_batch(const struct buf *stream, size_t at, struct batch_header *h)
{
	size_t len;

	if (at + sizeof(*h) > stream->len)
		return 0;
	memcpy(h, stream->data + at, sizeof(*h));
	assert_int_equal(h->magic, BATCH_MAGIC);
	len = sizeof(*h) + h->nr_runs * sizeof(struct batch_run) + h->payload_bytes;
	assert_true(at + len <= stream->len);
	return len;
}
