#include "proto/disk_piece.h"

#include <errno.h>

static int check_barrier(const struct disk_piece *p, struct err *e)
{
	if (p->disk || p->offset || p->bytes || !p->pass)
		return err_set(e, ERR_STREAM, EPROTO, "a disk barrier of pass %u with an extent",
			       p->pass);
	return 0;
}

static int check_extent(const struct disk_piece *p, const uint64_t *bytes, uint32_t nr_disks,
			struct err *e)
{
	if (p->disk >= nr_disks || !bytes[p->disk])
		return err_set(e, ERR_STREAM, EPROTO, "a piece of disk %u, which is not copied",
			       p->disk);
	if (!p->bytes || p->bytes % DISK_PIECE_UNIT || p->offset % DISK_PIECE_UNIT ||
	    p->offset >= bytes[p->disk] || p->bytes > bytes[p->disk] - p->offset)
		return err_set(e, ERR_STREAM, EPROTO, "%llu bytes at %llu are no piece of disk %u",
			       (unsigned long long)p->bytes, (unsigned long long)p->offset,
			       p->disk);
	if (p->kind == DISK_PIECE_DATA && p->bytes > DISK_PIECE_MAX_BYTES)
		return err_set(e, ERR_STREAM, EPROTO, "a disk piece of %llu bytes of data",
			       (unsigned long long)p->bytes);
	return 0;
}

int disk_piece_check(const struct disk_piece *p, uint32_t want_sequence, const uint64_t *bytes,
		     uint32_t nr_disks, struct err *e)
{
	if (p->magic != DISK_PIECE_MAGIC || p->zero)
		return err_set(e, ERR_STREAM, EPROTO, "a disk piece begins with 0x%08x", p->magic);
	if (p->sequence != want_sequence)
		return err_set(e, ERR_STREAM, EPROTO, "disk piece %u came where %u was due",
			       p->sequence, want_sequence);
	switch (p->kind) {
	case DISK_PIECE_DATA:
	case DISK_PIECE_ZERO:
		return check_extent(p, bytes, nr_disks, e);
	case DISK_PIECE_BARRIER:
		return check_barrier(p, e);
	default:
		return err_set(e, ERR_STREAM, EPROTO, "disk piece kind %u is unknown", p->kind);
	}
}
