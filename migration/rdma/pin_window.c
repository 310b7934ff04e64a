#include "migration/rdma/pin_window.h"

#include <errno.h>
#include <stdlib.h>

#include "proto/batch.h"

#define NR_BUCKETS 4096u /* 8 GiB of neighbouring chunks without a collision */

struct pin_window {
	uint64_t budget_pages;
	uint64_t nr_pages;
	uint32_t max_regions;
	uint32_t nr_regions;
	struct pin_region *oldest; /* the ends of the list by time of use */
	struct pin_region *newest;
	struct pin_region *buckets[NR_BUCKETS]; /* by chunk */
};

static struct pin_region **bucket_of(struct pin_window *w, uint64_t gfn)
{
	return &w->buckets[gfn / CHUNK_PAGES % NR_BUCKETS];
}

int pin_window_new(uint64_t budget_bytes, uint32_t max_regions, struct pin_window **out,
		   struct err *e)
{
	struct pin_window *w = calloc(1, sizeof(*w));

	if (!w)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for the window of pinned memory");
	w->budget_pages = budget_bytes / BATCH_PAGE_BYTES;
	w->max_regions = max_regions;
	*out = w;
	return 0;
}

void pin_window_free(struct pin_window *w)
{
	if (!w)
		return;
	for (struct pin_region *r = w->oldest, *newer; r; r = newer) {
		newer = r->newer;
		free(r);
	}
	free(w);
}

uint64_t pin_window_bytes(const struct pin_window *w)
{
	return w->nr_pages * BATCH_PAGE_BYTES;
}

uint64_t pin_window_budget(const struct pin_window *w)
{
	return w->budget_pages * BATCH_PAGE_BYTES;
}

void pin_window_shrink(struct pin_window *w, uint64_t budget_bytes)
{
	if (budget_bytes / BATCH_PAGE_BYTES < w->budget_pages)
		w->budget_pages = budget_bytes / BATCH_PAGE_BYTES;
}

void pin_window_shrink_regions(struct pin_window *w, uint32_t max_regions)
{
	if (max_regions < w->max_regions)
		w->max_regions = max_regions ? max_regions : 1;
}

uint32_t pin_window_regions(const struct pin_window *w)
{
	return w->nr_regions;
}

struct pin_region *pin_window_find(struct pin_window *w, uint64_t gfn, uint32_t nr_pages)
{
	struct pin_region *r = *bucket_of(w, gfn);

	while (r && (gfn < r->gfn || gfn + nr_pages > r->gfn + r->nr_pages))
		r = r->next_in_bucket;
	return r;
}

struct pin_region *pin_window_exact(struct pin_window *w, uint64_t gfn, uint32_t nr_pages)
{
	struct pin_region *r = *bucket_of(w, gfn);

	while (r && (r->gfn != gfn || r->nr_pages != nr_pages))
		r = r->next_in_bucket;
	return r;
}

struct pin_region *pin_window_idle_in_chunk(struct pin_window *w, uint64_t gfn)
{
	struct pin_region *r = *bucket_of(w, gfn);

	while (r && (r->gfn / CHUNK_PAGES != gfn / CHUNK_PAGES || r->nr_users))
		r = r->next_in_bucket;
	return r;
}

bool pin_window_fits(const struct pin_window *w, uint32_t nr_pages)
{
	return w->nr_regions < w->max_regions && w->nr_pages + nr_pages <= w->budget_pages;
}

struct pin_region *pin_window_oldest_idle(struct pin_window *w)
{
	struct pin_region *r = w->oldest;

	while (r && r->nr_users)
		r = r->newer;
	return r;
}

struct pin_region *pin_window_any(struct pin_window *w)
{
	return w->oldest;
}

static void link_newest(struct pin_window *w, struct pin_region *r)
{
	r->older = w->newest;
	r->newer = NULL;
	*(w->newest ? &w->newest->newer : &w->oldest) = r;
	w->newest = r;
}

static void unlink_age(struct pin_window *w, struct pin_region *r)
{
	*(r->older ? &r->older->newer : &w->oldest) = r->newer;
	*(r->newer ? &r->newer->older : &w->newest) = r->older;
}

int pin_window_add(struct pin_window *w, uint64_t gfn, uint32_t nr_pages, struct pin_region **out,
		   struct err *e)
{
	struct pin_region **bucket = bucket_of(w, gfn);
	struct pin_region *r = calloc(1, sizeof(*r));

	if (!r)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a pinned region");
	r->gfn = gfn;
	r->nr_pages = nr_pages;
	r->next_in_bucket = *bucket;
	*bucket = r;
	link_newest(w, r);
	w->nr_pages += nr_pages;
	w->nr_regions++;
	*out = r;
	return 0;
}

void pin_window_remove(struct pin_window *w, struct pin_region *r)
{
	struct pin_region **at = bucket_of(w, r->gfn);

	while (*at != r)
		at = &(*at)->next_in_bucket;
	*at = r->next_in_bucket;
	unlink_age(w, r);
	w->nr_pages -= r->nr_pages;
	w->nr_regions--;
	free(r);
}

void pin_window_use(struct pin_window *w, struct pin_region *r)
{
	r->nr_users++;
	unlink_age(w, r);
	link_newest(w, r);
}

void pin_window_unuse(struct pin_region *r)
{
	r->nr_users--;
}
