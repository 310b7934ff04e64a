#include "migration/round.h"

#include "proto/batch.h"

int round_init(struct round *r, const struct guest_mem *mem, struct err *e)
{
	*r = (struct round){.claim = true};
	return bitmap_init(&r->set, guest_mem_nr_gfns(mem), e);
}

void round_fini(struct round *r)
{
	bitmap_fini(&r->set);
}

static void ready(struct round *r, bool first)
{
	r->first = first;
	r->nr_pages = bitmap_count(&r->set);
	atomic_store(&r->seen_pages, 0);
}

/* The next gap of [from, end) that holds no data, in whole chunks; false when there is none. */
static bool next_untouched(const struct guest_mem *mem, uint64_t from, uint64_t end,
			   uint64_t *first, uint64_t *stop)
{
	const uint64_t chunk_bytes = CHUNK_PAGES * PAGE_BYTES;

	while (from < end) {
		uint64_t data_start = end;
		uint64_t data_stop = end;

		if (!guest_mem_next_data(mem, NULL, from * PAGE_BYTES, end * PAGE_BYTES,
					 &data_start, &data_stop))
			data_start = data_stop = end * PAGE_BYTES;
		*first = from;
		*stop = data_start / chunk_bytes * CHUNK_PAGES;
		if (*stop > *first)
			return true;
		from = (data_stop + chunk_bytes - 1) / chunk_bytes * CHUNK_PAGES;
	}
	return false;
}

static int leave_out_untouched(struct round *r, const struct guest_mem *mem,
			       struct dirty_tracker *t, const struct mem_slot *slot, struct err *e)
{
	uint64_t from = slot->gpa / PAGE_BYTES;
	uint64_t end = from + slot->bytes / PAGE_BYTES;
	uint64_t first;
	uint64_t stop;

	while (next_untouched(mem, from, end, &first, &stop)) {
		uint64_t start_byte = first * PAGE_BYTES;
		uint64_t stop_byte;

		if (dirty_claim(t, &r->set, first, stop - first, e) < 0)
			return -e->code;
		bitmap_clear_range(&r->set, first, stop - first);
		/* Touched between the search and the claim? Then it is claimed, and sent. */
		while (guest_mem_next_data(mem, NULL, start_byte, stop * PAGE_BYTES, &start_byte,
					   &stop_byte)) {
			bitmap_set_range(&r->set, start_byte / PAGE_BYTES,
					 (stop_byte - start_byte + PAGE_BYTES - 1) / PAGE_BYTES);
			start_byte = stop_byte;
		}
		from = stop;
	}
	return 0;
}

int round_prepare_first(struct round *r, const struct guest_mem *mem, struct dirty_tracker *t,
			uint64_t *skipped_pages, struct err *e)
{
	for (uint32_t i = 0; i < guest_mem_nr_slots(mem); i++) {
		const struct mem_slot *slot = guest_mem_slot(mem, i);

		bitmap_set_range(&r->set, slot->gpa / PAGE_BYTES, slot->bytes / PAGE_BYTES);
		if (leave_out_untouched(r, mem, t, slot, e) < 0)
			return -e->code;
	}
	ready(r, true);
	*skipped_pages = guest_mem_bytes(mem) / PAGE_BYTES - r->nr_pages;
	return 0;
}

int round_prepare_next(struct round *r, struct dirty_tracker *t, bool keep, struct err *e)
{
	if (!keep)
		bitmap_zero(&r->set);
	if (dirty_collect(t, &r->set, e) < 0)
		return -e->code;
	ready(r, false);
	return 0;
}
