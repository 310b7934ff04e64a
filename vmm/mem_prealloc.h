/*
 * All of guest memory allocated at once, rather than a huge page at a time when the guest, or a
 * migration to here, touches it: what the host promises then is there, and nobody waits for the
 * kernel to find and clear it (which RDMA does while the pages are due). Several threads do it: the
 * kernel clears a few GiB a second in each.
 *
 * What it costs: memory that the guest never touches is the guest's all the same, and a migration
 * from here looks at it, too (zeroes travel as such), since guest_mem_next_data() finds it.
 * Source: madvise(2), MADV_POPULATE_WRITE (Linux 5.14); before, fallocate(2), which allocates and
 * leaves the clearing to the first touch.
 */
#pragma once

#include "vmm/base/err.h"
#include "vmm/mem.h"

/* Allocate all of @m, of which nothing is used yet. ENOMEM when this host cannot have as much; some
 * of it is allocated then. Returns when it is done: seconds for many GiB. */
int mem_prealloc(struct guest_mem *m, struct err *e);
