/*
 * A disk: a raw image (a file or a block device) and the right to use it.
 *
 * Owned by the VM, closed after every disk_queue on it (vmm/block/disk_queue.h) is gone. Opening,
 * closing and the changes of hands are for the VM's controller (one thread at a time); the rest is
 * for any thread. Bytes go through the page cache and are durable after a flush, as on a real disk
 * with a volatile write cache.
 *
 * A disk changes hands in a migration as vmm/block/image_lock.h lays down:
 *
 *   source                         destination
 *   disk_offer() while paused
 *                                  disk_accept() before READY
 *   disk_release() after RUNNING   disk_settle() after COMMIT
 *   disk_reclaim() if undone       disk_close() if undone
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"

#define DISK_SECTOR_BYTES 512u
#define DISK_MAX_BYTES    (1ull << 50)
/* What tracking tells apart. Small enough for a database's random writes, large enough that the
 * bitmap of 1 TiB (8 MiB) is looked through in a switch-over's time. */
#define DISK_BLOCK_BYTES 16384u

enum disk_role {
	DISK_OWNED,    /* used from here on: locked at once */
	DISK_INCOMING, /* a migration's: the source uses it until it is accepted here */
	DISK_COPY, /* a migration's: filled in here from the source's; made if it does not exist */
};

/* Strings are copied by disk_open. */
struct disk_config {
	const char *path;
	bool readonly;
	bool unlocked; /* lock=off: the file system has no locks, the user vouches for it */
	enum disk_role role;
	uint64_t bytes; /* what it must be; 0 (DISK_OWNED only): whatever it is */
};

struct disk;

int disk_open(const struct disk_config *config, struct disk **out, struct err *e);
/* A copy that nobody has settled on is removed, if it was made here. */
void disk_close(struct disk *d);

const char *disk_path(const struct disk *d);
uint64_t disk_bytes(const struct disk *d);   /* a multiple of DISK_SECTOR_BYTES */
bool disk_is_readonly(const struct disk *d); /* to the guest */
/* What the storage below likes: writes of multiples of this are not read-modify-write there. */
uint32_t disk_physical_block_bytes(const struct disk *d);
int disk_fd(const struct disk *d);

/* Everything written before is durable after this (fdatasync). */
int disk_flush(struct disk *d, struct err *e);

/* The same, if any request has changed anything since the last time; nothing otherwise. */
int disk_flush_written(struct disk *d, struct err *e);

/* Make [offset, offset + bytes) read as zeroes and, if @unmap and the storage can, take no space.
 */
int disk_zero(struct disk *d, uint64_t offset, uint64_t bytes, bool unmap, struct err *e);

/* The next data of [from, to): where it starts and stops, in whole sectors; both @to if there is
 * none. Storage that cannot tell holes has data everywhere. One thread at a time. */
void disk_next_data(const struct disk *d, uint64_t from, uint64_t to, uint64_t *start,
		    uint64_t *stop);

/* ---- Changing hands ---- */

/* Source, paused: nothing is written from here until disk_reclaim(), what was written is durable,
 * and the destination may take the image. */
int disk_offer(struct disk *d, struct err *e);
/* Source: the migration is undone. The image is ours at once; the destination, which will not use
 * it, may take a moment to let go. */
void disk_reclaim(struct disk *d);
/* Source: the guest runs elsewhere. */
void disk_release(struct disk *d);
/* Take an image whole that may be elsewhere: ERR_STATE names who has it. For a forced resume. */
int disk_seize(struct disk *d, struct err *e);
/* Destination, before READY: ours as soon as COMMIT comes; what was cached of it is forgotten. A
 * copy is complete and durable under its own name. */
int disk_accept(struct disk *d, struct err *e);
/* Destination, after COMMIT: keep strangers out without the source's help. It may not have let go
 * yet: false, and nothing is lost; later again. */
bool disk_settle(struct disk *d);

/* ---- Which blocks were written: block n is the bytes from n * DISK_BLOCK_BYTES ---- */

uint64_t disk_nr_blocks(const struct disk *d);
/* From here on every write is marked when it has completed. Forgets what was marked before. */
int disk_track_start(struct disk *d, struct err *e);
void disk_track_stop(struct disk *d);
/* Move all marks into @set (of disk_nr_blocks bits, ORed), leaving none. A write that completes
 * meanwhile is in @set or marked; one in @set can be read from the image. */
void disk_track_take(struct disk *d, struct bitmap *set);
/* For disk_queue: [offset, offset + bytes) has been changed. */
void disk_mark(struct disk *d, uint64_t offset, uint64_t bytes);
