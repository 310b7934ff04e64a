/*
 * Disk pieces: the fixed layout of the disk connection (proto/STREAM.md, section 8), and its
 * checks. One header, then the bytes of a data piece.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"

#define DISK_PIECE_MAGIC      0x4b534944u
#define DISK_PIECE_BACK_MAGIC 0x4b424944u
#define DISK_PIECE_MAX_BYTES  (1u << 20)
#define DISK_PIECE_UNIT       512u

enum disk_piece_kind {
	DISK_PIECE_DATA = 1,
	DISK_PIECE_ZERO = 2,
	DISK_PIECE_BARRIER = 3
};

struct disk_piece {
	uint32_t magic;
	uint8_t kind;
	uint8_t zero;
	uint16_t disk; /* as DESCRIBE numbers them */
	uint32_t pass;
	uint32_t sequence;
	uint64_t offset;
	uint64_t bytes;
};
_Static_assert(sizeof(struct disk_piece) == 32, "wire layout");

struct disk_piece_back {
	uint32_t magic;
	uint32_t pass;
};
_Static_assert(sizeof(struct disk_piece_back) == 8, "wire layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian");

/* Is this piece one that the format allows, with this sequence number, when disk i has @bytes[i]
 * bytes, or 0 if it is not copied? */
int disk_piece_check(const struct disk_piece *p, uint32_t want_sequence, const uint64_t *bytes,
		     uint32_t nr_disks, struct err *e);
