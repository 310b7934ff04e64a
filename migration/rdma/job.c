#include "migration/rdma/job.h"

/* The first page from @from on whose bit is @value, or CHUNK_PAGES. */
static uint32_t next_page(const struct job *j, uint32_t from, bool value)
{
	while (from < CHUNK_PAGES) {
		uint64_t word = (value ? j->pages[from / 64] : ~j->pages[from / 64]) >> from % 64;

		if (word)
			return from + (uint32_t)__builtin_ctzll(word);
		from = (from / 64 + 1) * 64;
	}
	return CHUNK_PAGES;
}

/* The next run of pages to write, from @from on; false when there is none. */
static bool next_run(const struct job *j, uint32_t from, uint32_t *first, uint32_t *end)
{
	*first = next_page(j, from, true);
	*end = next_page(j, *first, false);
	return *first < CHUNK_PAGES;
}

static void set_pages(struct job *j, const struct batch_run *run)
{
	for (uint64_t page = run->gfn % CHUNK_PAGES, nr = run->nr_pages; nr; page++, nr--)
		j->pages[page / 64] |= 1ull << page % 64;
}

uint32_t job_init(struct job *j, const struct page_batch *b, uint32_t run)
{
	uint64_t chunk = b->runs[run].gfn / CHUNK_PAGES;

	*j = (struct job){.first_gfn = chunk * CHUNK_PAGES};
	for (; run < b->nr_runs && b->runs[run].gfn / CHUNK_PAGES == chunk; run++)
		if (b->runs[run].kind == RUN_DATA)
			set_pages(j, &b->runs[run]);
	if (next_page(j, 0, true) == CHUNK_PAGES)
		j->next = CHUNK_PAGES;
	return run;
}

void job_hull(const struct job *j, uint64_t *gfn, uint32_t *nr_pages)
{
	uint32_t first = next_page(j, 0, true);
	uint32_t last = first;

	for (uint32_t at = first; at < CHUNK_PAGES; at = next_page(j, at + 1, true))
		last = at;
	*gfn = j->first_gfn + first;
	*nr_pages = last - first + 1;
}

uint32_t job_gather(const struct job *j, struct rdma_piece *pieces, uint32_t max, uint32_t *next)
{
	uint32_t nr = 0;
	uint32_t first;
	uint32_t end;

	*next = j->next;
	while (nr < max && next_run(j, *next, &first, &end)) {
		pieces[nr++] = (struct rdma_piece){.gpa = (j->first_gfn + first) * PAGE_BYTES,
						   .bytes = (uint32_t)((end - first) * PAGE_BYTES),
						   .local_key = j->region->local_key,
						   .remote_key = j->region->remote_key};
		*next = end;
	}
	if (next_page(j, *next, true) == CHUNK_PAGES)
		*next = CHUNK_PAGES;
	return nr;
}

void job_to_batch(const struct job *j, struct page_batch *out)
{
	uint32_t end = 0;
	uint32_t first;

	out->nr_runs = out->nr_data_pages = 0;
	while (next_run(j, end, &first, &end)) {
		out->runs[out->nr_runs++] = (struct batch_run){.gfn = j->first_gfn + first,
							       .nr_pages = (uint16_t)(end - first),
							       .kind = RUN_DATA};
		out->nr_data_pages += end - first;
	}
}
