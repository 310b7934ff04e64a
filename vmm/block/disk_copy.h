/*
 * The file that a migration's copy of a disk is written into.
 *
 * Where there is none it is made, as PATH.part: whatever interrupts the copy, no half image lies
 * under a name that somebody might boot. It gets its name when it is whole. A file or device that
 * exists is overwritten in place. Plain data inside struct disk, one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"

struct disk_copy {
	char *path; /* its name when it is whole; borrowed */
	char *part; /* its name until then; NULL: it existed, or it has its name */
	bool made;  /* by us, and nobody has settled on it: removed when discarded */
};

/* The descriptor to write through, in @fd. */
int disk_copy_open(struct disk_copy *c, char *path, int *fd, struct err *e);

/* Is there no file of that name, so that one is being made? */
bool disk_copy_is_made(const struct disk_copy *c);

/* Once it is locked, and known to be ours to overwrite: @bytes of nothing but holes. */
int disk_copy_prepare(struct disk_copy *c, int fd, bool is_file, uint64_t bytes, struct err *e);

/* It is whole: durable, and under its own name. */
int disk_copy_finish(struct disk_copy *c, int fd, struct err *e);

/* The guest runs on it: from here on discarding leaves it. */
void disk_copy_keep(struct disk_copy *c);

/* Remove what was made here, unless it is kept. Zeroed structs are fine. */
void disk_copy_discard(struct disk_copy *c);
