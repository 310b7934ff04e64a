#include "experiments/guest/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "experiments/guest/pattern.h"
#include "vmm/guest_report.h"

/* Table entries and pages are asked for in pieces that divide both memory slots evenly. */
#define TABLE_STEP (PATTERN_PAGE_SIZE / sizeof(uint32_t))

struct check {
	const struct guest_check_memory *mem;
	const struct guest_report *report;
	const uint32_t *table; /* the page of the version table that holds the current index */
	struct pattern pattern;
	struct guest_check_result *res;
};

__attribute__((format(printf, 2, 3))) static void explain(struct guest_check_result *res,
							  const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(res->message, sizeof(res->message), format, args);
	va_end(args);
}

/* The vCPU that is writing this page right now, or NULL. */
static const struct guest_cpu_report *find_writer(const struct check *c, uint64_t gfn)
{
	for (uint32_t i = 0; i < c->report->nr_cpus; i++)
		if (c->report->cpu[i].inflight_gfn == gfn)
			return &c->report->cpu[i];
	return NULL;
}

/*
 * Stores are in ascending order, so a page caught in the middle is new up to some word and old from
 * there. Before version 1 the old content can be anything.
 */
static bool is_in_flight(const struct check *c, uint64_t gfn, uint32_t new_version,
			 const uint64_t *page)
{
	uint32_t old_version = new_version - 1;
	unsigned int i = 0;

	while (i < PATTERN_PAGE_WORDS && page[i] == pattern_word(&c->pattern, gfn, new_version, i))
		i++;
	if (old_version == 0)
		return true;
	while (i < PATTERN_PAGE_WORDS && page[i] == pattern_word(&c->pattern, gfn, old_version, i))
		i++;
	return i == PATTERN_PAGE_WORDS;
}

static bool is_zero(const uint64_t *page)
{
	uint64_t any = 0;

	for (unsigned int i = 0; i < PATTERN_PAGE_WORDS; i++)
		any |= page[i];
	return any == 0;
}

static void explain_page(struct guest_check_result *res, enum page_verdict verdict, uint64_t gfn,
			 uint32_t expected, const uint64_t *page)
{
	uint32_t found = pattern_found_version(page);

	if (verdict == PAGE_LOST && is_zero(page))
		explain(res, "gfn 0x%" PRIx64 " is lost: all zeroes instead of version %" PRIu32,
			gfn, expected);
	else if (verdict == PAGE_LOST && page[PATTERN_W_MAGIC] == PATTERN_MAGIC)
		explain(res, "gfn 0x%" PRIx64 " is lost: holds the content of gfn 0x%" PRIx64, gfn,
			page[PATTERN_W_GFN]);
	else if (verdict == PAGE_LOST)
		explain(res, "gfn 0x%" PRIx64 " is lost: no page header, first word 0x%016" PRIx64,
			gfn, page[PATTERN_W_MAGIC]);
	else if (verdict == PAGE_STALE)
		explain(res,
			"gfn 0x%" PRIx64 " is stale: holds version %" PRIu32 " instead of %" PRIu32,
			gfn, found, expected);
	else if (verdict == PAGE_AHEAD)
		explain(res,
			"gfn 0x%" PRIx64 " is at version %" PRIu32
			" but the version table says %" PRIu32 ": the table's page is stale",
			gfn, found, expected);
	else
		explain(res,
			"gfn 0x%" PRIx64 " is torn: header says version %" PRIu32
			" (expected %" PRIu32 ") but the body does not match",
			gfn, found, expected);
}

static void count_bad(struct check *c, enum page_verdict verdict, uint64_t gfn, uint32_t expected,
		      const uint64_t *page)
{
	struct guest_check_result *res = c->res;

	if (verdict == PAGE_LOST)
		res->nr_lost++;
	else if (verdict == PAGE_TORN)
		res->nr_torn++;
	else
		res->nr_stale++;
	if (res->first_bad_gfn != UINT64_MAX)
		return;
	res->first_bad_gfn = gfn;
	explain_page(res, verdict, gfn, expected, page);
}

/*
 * A page in flight is at either version or between, with the table at either version too: anything
 * else is judged by the version the table says.
 */
static void check_page(struct check *c, uint64_t gfn, uint32_t expected, const uint64_t *page)
{
	const struct guest_cpu_report *writer = find_writer(c, gfn);
	enum page_verdict verdict;

	if (writer != NULL &&
	    (expected == writer->inflight_version ||
	     pattern_next_version(expected) == writer->inflight_version) &&
	    is_in_flight(c, gfn, writer->inflight_version, page)) {
		c->res->nr_in_flight++;
		return;
	}
	if (expected == 0) {
		c->res->nr_unfilled++;
		return;
	}
	verdict = pattern_verdict(&c->pattern, gfn, expected, page);
	if (verdict == PAGE_OK)
		c->res->nr_ok++;
	else
		count_bad(c, verdict, gfn, expected, page);
}

/* The table's entry for fill index `index`; its pages are fetched as the walk reaches them. */
static int load_table(struct check *c, uint64_t index)
{
	uint64_t gpa = c->report->version_table_gpa + index * sizeof(uint32_t);

	if (c->table != NULL && index % TABLE_STEP != 0)
		return 0;
	c->table = c->mem->at(c->mem->ctx, gpa - gpa % PATTERN_PAGE_SIZE, PATTERN_PAGE_SIZE);
	if (c->table != NULL)
		return 0;
	explain(c->res, "the version table at gpa 0x%" PRIx64 " is not in guest memory", gpa);
	return -EFAULT;
}

static int check_extent(struct check *c, const struct guest_extent *e)
{
	for (uint64_t i = 0; i < e->nr_pages; i++) {
		uint64_t index = e->first_index + i;
		uint64_t gpa = e->gpa + i * PATTERN_PAGE_SIZE;
		const uint64_t *page = c->mem->at(c->mem->ctx, gpa, PATTERN_PAGE_SIZE);
		int rc = load_table(c, index);

		if (rc < 0)
			return rc;
		if (page == NULL) {
			explain(c->res, "filled page at gpa 0x%" PRIx64 " is not in guest memory",
				gpa);
			return -EFAULT;
		}
		c->res->nr_pages++;
		check_page(c, gpa / PATTERN_PAGE_SIZE, c->table[index % TABLE_STEP], page);
	}
	return 0;
}

/* Guest memory is not to be trusted: nothing is indexed by what has not been bounded here. */
static int check_report(const struct guest_report *r, struct guest_check_result *res)
{
	uint64_t next = 0;

	if (r->magic != GUEST_REPORT_MAGIC || r->abi != GUEST_REPORT_ABI) {
		explain(res, "no report of ABI %u: magic 0x%016" PRIx64 ", ABI %" PRIu32,
			GUEST_REPORT_ABI, r->magic, r->abi);
		return -EINVAL;
	}
	if (r->nr_cpus == 0 || r->nr_cpus > GUEST_REPORT_MAX_CPUS ||
	    r->nr_extents > GUEST_REPORT_MAX_EXTENTS || r->compress_percent > 100 ||
	    r->version_table_gpa % PATTERN_PAGE_SIZE != 0) {
		explain(res, "the report is damaged: cpus %" PRIu32 ", extents %" PRIu32,
			r->nr_cpus, r->nr_extents);
		return -EINVAL;
	}
	for (uint32_t i = 0; i < r->nr_extents; i++) {
		if (r->extent[i].first_index != next || r->extent[i].gpa % PATTERN_PAGE_SIZE != 0) {
			explain(res, "the report is damaged: extent %" PRIu32, i);
			return -EINVAL;
		}
		next += r->extent[i].nr_pages;
	}
	if (r->state != GUEST_STATE_FILLING && r->state != GUEST_STATE_RUNNING) {
		explain(res, "the guest has filled nothing yet (state %" PRIu32 ")", r->state);
		return -EAGAIN;
	}
	return 0;
}

/* Maps the whole report, once its header says how long it is; NULL with the reason explained. */
static const struct guest_report *find_report(const struct guest_check_memory *mem, uint64_t gpa,
					      struct guest_check_result *res, int *rc)
{
	const struct guest_report *r = mem->at(mem->ctx, gpa, sizeof(*r));

	*rc = r == NULL ? -EFAULT : check_report(r, res);
	if (r != NULL && *rc < 0)
		return NULL;
	if (r != NULL)
		r = mem->at(mem->ctx, gpa,
			    sizeof(*r) + r->nr_cpus * sizeof(struct guest_cpu_report));
	if (r != NULL)
		return r;
	explain(res, "the report at gpa 0x%" PRIx64 " is not in guest memory", gpa);
	*rc = -EFAULT;
	return NULL;
}

int guest_check(const struct guest_check_memory *mem, uint64_t report_gpa,
		struct guest_check_result *res)
{
	struct check c = {.mem = mem, .res = res};
	int rc;

	*res = (struct guest_check_result){.first_bad_gfn = UINT64_MAX};
	c.report = find_report(mem, report_gpa, res, &rc);
	if (c.report == NULL)
		return rc;
	c.pattern = pattern_make(c.report->seed, c.report->compress_percent);
	for (uint32_t i = 0; i < c.report->nr_cpus; i++)
		res->nr_guest_errors += c.report->cpu[i].nr_errors;
	for (uint32_t i = 0; i < c.report->nr_extents; i++) {
		rc = check_extent(&c, &c.report->extent[i]);
		if (rc < 0)
			return rc;
	}
	return res->first_bad_gfn == UINT64_MAX ? 0 : -EBADMSG;
}
