/*
 * Page batches: the fixed layout of the channel connections (proto/STREAM.md, section 3), and its
 * checks. Not protobuf: one header and a run list for up to 512 pages, read in one go.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"

#define BATCH_MAGIC      0x48435442u
#define BATCH_BACK_MAGIC 0x4b434142u
#define GRANT_MAGIC      0x544e5247u
#define BATCH_MAX_RUNS   512u
#define BATCH_MAX_PAGES  512u
#define BATCH_PAGE_BYTES 4096u
#define BATCH_MAX_GFN    (1ull << 40) /* x86 addresses have up to 52 bits: gfn * 4096 cannot wrap */
#define CHUNK_PAGES      512u         /* 2 MiB: the unit of channel affinity */

enum batch_kind {
	BATCH_PAGES = 1,
	BATCH_BARRIER = 2,
	BATCH_PLACED = 3, /* the data pages come beside the connection, by RDMA WRITE */
	BATCH_WINDOW = 4, /* regions to pin and to unpin */
	BATCH_CLOSE = 5,  /* no more RDMA on this channel */
	NR_BATCH_KINDS
};
enum run_kind {
	RUN_DATA = 1,
	RUN_ZERO = 2,
	RUN_PIN = 3,  /* of a WINDOW */
	RUN_UNPIN = 4 /* of a WINDOW */
};
enum batch_codec {
	BATCH_CODEC_NONE = 0,
	BATCH_CODEC_LZ4 = 1,
	NR_BATCH_CODECS
};

struct batch_header {
	uint32_t magic;
	uint8_t kind;
	uint8_t codec;
	uint16_t nr_runs;
	uint32_t payload_bytes;
	uint32_t round;
	uint64_t sequence;
};
_Static_assert(sizeof(struct batch_header) == 24, "wire layout");

struct batch_run {
	uint64_t gfn;
	uint16_t nr_pages;
	uint8_t kind;
	uint8_t zero[5];
};
_Static_assert(sizeof(struct batch_run) == 16, "wire layout");

struct batch_back {
	uint32_t magic;
	uint32_t round;
};
_Static_assert(sizeof(struct batch_back) == 8, "wire layout");

/* The answer to one RUN_PIN. */
struct batch_grant {
	uint32_t magic;
	uint32_t refused; /* 0, or the errno why it could not be pinned */
	uint64_t gfn;     /* of that run */
	uint32_t key;     /* what an RDMA WRITE to it must present; remote address = gfn * 4096 */
	uint32_t zero;
};
_Static_assert(sizeof(struct batch_grant) == 24, "wire layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian");

/* Which channel carries a page. */
static inline uint32_t batch_channel_of(uint64_t gfn, uint32_t nr_channels)
{
	return (uint32_t)(gfn / CHUNK_PAGES % nr_channels);
}

/* Is this header one the format allows, with this sequence number? */
int batch_check_header(const struct batch_header *h, uint64_t want_sequence, struct err *e);

/* Are these runs allowed on channel @channel of @nr_channels, and does the header's payload fit
 * them? @nr_data_pages gets the number of data pages. Whether a run is RAM is for the caller. */
int batch_check_runs(const struct batch_header *h, const struct batch_run *runs, uint32_t channel,
		     uint32_t nr_channels, uint32_t *nr_data_pages, struct err *e);
