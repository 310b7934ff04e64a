/*
 * Who may write a disk image: open file description locks (fcntl(2), F_OFD_SETLK) on two parts of
 * the file, so that an image can change hands in a migration while strangers stay out throughout.
 *
 *                      source          destination
 *   at rest            gate, baton     -
 *   handing over       gate            baton (taken before READY)
 *   undone             gate, baton     - (dropped; until then the source goes on with the gate)
 *   committed          -               baton, and the gate once the source has dropped it
 *
 * A stranger needs both parts, so whoever holds either keeps him out. That the source and the
 * destination, holding one each, do not both write is the commit rule's doing (proto/STREAM.md,
 * section 2): the locks are never the reason why a guest cannot go on where it was.
 *
 * Read-only users hold shared locks on both. A lock lives as long as the descriptor; plain data,
 * one thread at a time. Other programs' locks of whole files (and QEMU's) collide with these.
 */
#pragma once

#include <stdbool.h>

#include "vmm/base/err.h"

enum image_lock_part {
	IMAGE_LOCK_GATE,
	IMAGE_LOCK_BATON,
	NR_IMAGE_LOCK_PARTS
};

struct image_lock {
	int fd;           /* borrowed */
	const char *path; /* borrowed; for messages */
	bool shared;
	bool off; /* the user vouches: nothing is taken, nothing is checked */
	bool held[NR_IMAGE_LOCK_PARTS];
};

/* Take @part, without waiting; nothing if it is held. A refusal names the holder, if this host
 * knows it. */
int image_lock_take(struct image_lock *l, enum image_lock_part part, struct err *e);
/* The same without the wish to know who: looking for a holder takes a while. */
bool image_lock_try(struct image_lock *l, enum image_lock_part part);
void image_lock_drop(struct image_lock *l, enum image_lock_part part);

/* Both parts or neither. */
int image_lock_take_both(struct image_lock *l, struct err *e);

/* Does somebody else hold @part, shared or not? */
bool image_lock_is_held_elsewhere(const struct image_lock *l, enum image_lock_part part);
