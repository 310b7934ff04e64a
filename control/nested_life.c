#include "control/nested_life.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/nested_lines.h"
#include "vmm/base/clock.h"

/* ---- By the report page ---- */

/* The guest goes on writing it: how many CPUs it has is what the view says. */
static struct blackout_view report_of(const struct lab *l)
{
	struct blackout_view v;

	blackout_view(lab_vm(l), &v);
	return v;
}

static int report_ill(const struct lab *l, struct err *e)
{
	const struct blackout_view v = report_of(l);
	const struct guest_report *r = v.report;

	if (r && r->state == GUEST_STATE_FAILED)
		return err_set(e, ERR_STATE, EIO, "the guest failed: see --serial");
	for (uint32_t i = 0; r && i < v.nr_cpus; i++)
		if (r->cpu[i].nr_errors)
			return err_set(e, ERR_STATE, EIO,
				       "%s %u found %llu errors, the first in page 0x%llx",
				       i ? "L2" : "L1", i ? i - 1 : 0,
				       (unsigned long long)r->cpu[i].nr_errors,
				       (unsigned long long)r->cpu[i].first_bad.gfn);
	return 0;
}

static bool report_ready(const struct lab *l)
{
	const struct guest_report *r = report_of(l).report;

	return r && __atomic_load_n(&r->state, __ATOMIC_ACQUIRE) == GUEST_STATE_RUNNING;
}

static void report_take(const struct lab *l, struct life_pulse *p)
{
	const struct blackout_view v = report_of(l);

	blackout_mark(&v, &p->report);
}

static bool report_moved(const struct lab *l, const struct life_pulse *p, char *still, size_t cap)
{
	const struct blackout_view v = report_of(l);

	snprintf(still, cap, "L1");
	for (uint32_t i = 0; i < v.nr_cpus; i++) {
		const uint64_t *last_tsc = &v.report->cpu[i].last_tsc;

		if (i)
			snprintf(still, cap, "L2 %u", i - 1);
		if (__atomic_load_n(last_tsc, __ATOMIC_RELAXED) == p->report.last_tsc[i])
			return false;
	}
	return v.nr_cpus != 0;
}

static void report_gaps(const struct lab *l, const struct life_pulse *p, struct lab_move *out)
{
	const struct blackout_view v = report_of(l);

	if (v.nr_cpus < 2)
		return;
	out->felt = true;
	out->l1_gap_ns = blackout_largest_of_ns(&v, &p->report, 0);
	for (uint32_t i = 1; i < v.nr_cpus; i++) {
		uint64_t gap = blackout_largest_of_ns(&v, &p->report, i);

		if (gap > out->l2_gap_ns)
			out->l2_gap_ns = gap;
	}
}

const struct life_ops life_by_report = {
	.look_ns = 2 * NS_PER_MS,
	.ill = report_ill,
	.ready = report_ready,
	.take = report_take,
	.moved = report_moved,
	.gaps = report_gaps,
};

/* ---- By words ---- */

/* Has the guest said @word since the @from-th byte? */
static bool said(const struct lab *l, size_t from, const char *word)
{
	char *told = lab_told(l);
	bool has = word && from <= strlen(told) && strstr(told + from, word);

	free(told);
	return has;
}

static int never_said(const struct lab *l, const char *word, struct err *e)
{
	char *told;

	if (!said(l, 0, word))
		return 0;
	told = lab_told(l);
	err_set(e, ERR_STATE, EIO, "the guest said '%.60s': %.200s", word, strstr(told, word));
	free(told);
	return -EIO;
}

static int words_ill(const struct lab *l, struct err *e)
{
	return never_said(l, lab_config(l)->bad, e);
}

static bool words_ready(const struct lab *l)
{
	return said(l, 0, lab_config(l)->ready);
}

static void words_take(const struct lab *l, struct life_pulse *p)
{
	char *told = lab_told(l);

	p->told = strlen(told);
	free(told);
}

static bool words_moved(const struct lab *l, const struct life_pulse *p, char *still, size_t cap)
{
	snprintf(still, cap, "the guest, which does not say '%.60s' any more,",
		 lab_config(l)->alive);
	return said(l, p->told, lab_config(l)->alive);
}

const struct life_ops life_by_words = {
	.look_ns = 20 * NS_PER_MS,
	.ill = words_ill,
	.ready = words_ready,
	.take = words_take,
	.moved = words_moved,
};

/* ---- By the lines of L1 and L2 ---- */

static void lines_since(const struct lab *l, size_t from, struct lines *out)
{
	char *told = lab_told(l);

	lines_read(from <= strlen(told) ? told + from : "", out);
	free(told);
}

static int lines_ill(const struct lab *l, struct err *e)
{
	static const char *const words[] = {"FAILED", "Call Trace:"};
	struct lines now;

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (never_said(l, words[i], e) < 0)
			return -EIO;
	lines_since(l, 0, &now);
	if (now.l1.nr_errors || now.l2.nr_errors)
		return err_set(e, ERR_STATE, EIO, "L1 found %llu errors, L2 %llu: see --serial",
			       (unsigned long long)now.l1.nr_errors,
			       (unsigned long long)now.l2.nr_errors);
	return 0;
}

/* The first line of each tells of its start. */
static bool lines_ready(const struct lab *l)
{
	struct lines now;

	lines_since(l, 0, &now);
	return now.l1.nr >= 2 && now.l2.nr >= 2;
}

/* The second that was interrupted is told of first, or after what was said before and is still on
 * its way through L1's pipes; the last line is all of here. */
#define LINES_ALIVE 3

static bool lines_moved(const struct lab *l, const struct life_pulse *p, char *still, size_t cap)
{
	struct lines now;

	lines_since(l, p->told, &now);
	snprintf(still, cap, "%s", now.l1.nr < LINES_ALIVE ? "L1" : "L2");
	return now.l1.nr >= LINES_ALIVE && now.l2.nr >= LINES_ALIVE;
}

static void lines_gaps(const struct lab *l, const struct life_pulse *p, struct lab_move *out)
{
	struct lines now;

	lines_since(l, p->told, &now);
	out->felt = true;
	out->l1_gap_ns = now.l1.gap_ns;
	out->l2_gap_ns = now.l2.gap_ns;
}

const struct life_ops life_by_lines = {
	.look_ns = 50 * NS_PER_MS,
	.ill = lines_ill,
	.ready = lines_ready,
	.take = words_take,
	.moved = lines_moved,
	.gaps = lines_gaps,
};

const struct life_ops *life_of(const struct lab_config *config)
{
	if (config->lines)
		return &life_by_lines;
	return config->ready ? &life_by_words : &life_by_report;
}
