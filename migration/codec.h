/*
 * Page codecs: how a batch's data pages are packed into its payload.
 *
 * A codec is a pair of pure functions over private memory (never over live guest memory, see "Torn
 * pages" in proto/STREAM.md). Any thread. Adding one: a file with a codec_ops, a wire number in
 * proto/batch.h, a line in the table of codec.c.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vmm/base/err.h"

struct codec_ops {
	const char *name;
	uint8_t wire_id; /* enum batch_codec */

	/* Pack @len bytes into at most @cap; 0 when it does not fit (not worth it). */
	size_t (*compress)(const uint8_t *in, size_t len, uint8_t *out, size_t cap);

	/* Unpack to exactly @out_len bytes, or ERR_STREAM. The input is hostile. */
	int (*decompress)(const uint8_t *in, size_t len, uint8_t *out, size_t out_len,
			  struct err *e);
};

extern const struct codec_ops codec_lz4;

/* By the number on the wire; NULL for none (the pages as they are) and for unknown ones. */
const struct codec_ops *codec_by_wire_id(uint8_t wire_id);

/* "auto", "none" or a codec's name? */
int codec_check_name(const char *name, struct err *e);

/*
 * What to do with the next batch. `auto` compares, per batch, sending it raw with compressing
 * first, from the measured speed of the link and of the codec and the measured ratio. The first
 * batch goes raw and the next CODEC_TRIAL compressed, to measure; every CODEC_PROBE_INTERVAL
 * batches it tries the other way so that the measurements stay fresh.
 *
 * One per channel, used by its worker only.
 */
#define CODEC_PROBE_INTERVAL 128
#define CODEC_TRIAL          4

struct codec_choice {
	const struct codec_ops *codec; /* candidate; NULL: always raw */
	int automatic;
	/* exponential averages, ns and bytes per byte of page; 0: not measured yet */
	double link_ns_per_byte;
	double codec_ns_per_byte;
	double ratio; /* payload bytes per page byte */
	uint64_t nr_batches;
	uint64_t nr_tried; /* batches that went through the codec */
};

int codec_choice_init(struct codec_choice *c, const char *name, struct err *e);
/* NULL: raw. */
const struct codec_ops *codec_choose(struct codec_choice *c);
void codec_note_link(struct codec_choice *c, uint64_t ns, size_t wire_bytes);
void codec_note_codec(struct codec_choice *c, uint64_t ns, size_t page_bytes, size_t payload_bytes);
