/*
 * Verifies from outside what a workload guest (experiments/guest) keeps in its memory: every page
 * of the fill against the guest's version table. The guest must be paused, or its memory a copy
 * taken while it was. Holds no state; any thread.
 */
#ifndef GODWIT_EXPERIMENTS_GUEST_CHECK_H
#define GODWIT_EXPERIMENTS_GUEST_CHECK_H

#include <stdint.h>

/* How to reach guest memory: `len` bytes at `gpa`, 8-byte aligned, or NULL when that is not RAM. */
struct guest_check_memory {
	const void *(*at)(void *ctx, uint64_t gpa, uint64_t len);
	void *ctx;
};

struct guest_check_result {
	uint64_t nr_pages;        /* of the fill; the sum of those below */
	uint64_t nr_ok;           /* exactly the version the table says */
	uint64_t nr_unfilled;     /* not written yet: the guest was still filling */
	uint64_t nr_in_flight;    /* being written when the guest was paused, and consistently so */
	uint64_t nr_lost;         /* zeroes, or another page's content */
	uint64_t nr_stale;        /* an older version, or newer than a stale version table says */
	uint64_t nr_torn;         /* parts of different versions, or plain corruption */
	uint64_t first_bad_gfn;   /* UINT64_MAX when no page is bad */
	uint64_t nr_guest_errors; /* errors the guest itself has counted so far */
	char message[200];        /* the first bad page, or why there is no result, in a line */
};

/*
 * Checks the guest whose report is at `report_gpa`. 0 when every page is what it must be, -EBADMSG
 * when some are not (counted in *res, the first explained), -EINVAL when there is no usable report,
 * -EFAULT when the report points outside guest memory, -EAGAIN before the guest has begun to fill.
 */
int guest_check(const struct guest_check_memory *mem, uint64_t report_gpa,
		struct guest_check_result *res);

#endif
