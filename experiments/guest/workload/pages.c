/* Writing and verifying pages of a vCPU's slice, by the in-flight protocol of the report. */
#include "experiments/guest/workload/machine.h"
#include "experiments/guest/workload/workload.h"

/* Where page `index` of the fill is. Few extents, and nearly always the first or second. */
static uint64_t fill_gfn(const struct workload *w, uint64_t index)
{
	volatile const struct guest_extent *e = w->report->extent;

	while (index - e->first_index >= e->nr_pages)
		e++;
	return e->gpa / PAGE_SIZE + (index - e->first_index);
}

static void record_error(struct cpu *c, uint64_t gfn, uint32_t expected, const uint64_t *page)
{
	volatile struct guest_cpu_report *r = c->report;
	struct guest_bad_page bad = {
		.gfn = gfn,
		.expected = expected,
		.found = pattern_found_version(page),
		.verdict = (uint32_t)pattern_verdict(&c->w->pattern, gfn, expected, page),
	};

	if (r->nr_errors == 0)
		r->first_bad = bad;
	r->last_bad = bad;
	barrier();
	r->nr_errors++;
}

static void store_page(struct cpu *c, uint64_t gfn, uint32_t version, volatile uint32_t *entry)
{
	volatile struct guest_cpu_report *r = c->report;

	r->inflight_version = version;
	r->inflight_gfn = gfn;
	pattern_write(&c->w->pattern, gfn, version, gpa_pointer(gfn * PAGE_SIZE));
	*entry = version;
	r->inflight_gfn = GUEST_NO_GFN;
	r->pages_written++;
}

void cpu_fill_slice(struct cpu *c)
{
	uint64_t first = c->report->first_index;
	bool is_boot = c->report->cpu == 0;

	for (uint64_t i = 0; i < c->report->nr_pages; i++)
		c->w->version[first + i] = 0;
	for (uint64_t i = 0; i < c->report->nr_pages; i++) {
		store_page(c, fill_gfn(c->w, first + i), 1, &c->w->version[first + i]);
		cpu_sample(c);
		if (is_boot)
			console_pump(&c->w->console);
	}
}

/* The header is about to be overwritten, and with it the proof: look at it first. */
void cpu_write_page(struct cpu *c, uint64_t index)
{
	uint64_t i = c->report->first_index + index;
	uint64_t gfn = fill_gfn(c->w, i);
	uint32_t version = c->w->version[i];
	const uint64_t *page = gpa_pointer(gfn * PAGE_SIZE);

	if (c->w->options.verify && !pattern_header_matches(&c->w->pattern, gfn, version, page))
		record_error(c, gfn, version, page);
	store_page(c, gfn, pattern_next_version(version), &c->w->version[i]);
}

bool cpu_verify_page(struct cpu *c, uint64_t index)
{
	uint64_t i = c->report->first_index + index;
	uint64_t gfn = fill_gfn(c->w, i);
	uint32_t version = c->w->version[i];
	const uint64_t *page = gpa_pointer(gfn * PAGE_SIZE);

	c->report->pages_verified++;
	if (__builtin_expect(pattern_matches(&c->w->pattern, gfn, version, page), 1))
		return true;
	record_error(c, gfn, version, page);
	return false;
}
