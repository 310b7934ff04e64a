#include "control/report_text.h"

#include <string.h>
#include <unistd.h>

#include "vmm/base/units.h"

#define TEXT 24

/* Page counts in at most 6 characters. */
static char *count(char *out, uint64_t n)
{
	if (n < 1000000)
		snprintf(out, TEXT, "%llu", (unsigned long long)n);
	else if (n < 100000000)
		snprintf(out, TEXT, "%.2fM", (double)n / 1e6);
	else
		snprintf(out, TEXT, "%.0fM", (double)n / 1e6);
	return out;
}

static char *time_or_dash(char *out, uint64_t ns)
{
	return ns ? units_format_ns(out, TEXT, ns) : strcpy(out, "-");
}

static char *rate_over(char *out, uint64_t bytes, uint64_t ns)
{
	if (!ns)
		return strcpy(out, "-");
	return units_format_rate(out, TEXT, (uint64_t)((double)bytes * 1e9 / (double)ns));
}

static const char *preposition(bool arrived)
{
	return arrived ? "at" : "to";
}

static void print_outcome(FILE *out, const struct migration_report *r, bool arrived)
{
	const char *where = preposition(arrived);
	char total[TEXT];

	units_format_ns(total, sizeof(total), r->total_ns);
	switch (r->status) {
	case MIGRATION_COMPLETED:
		fprintf(out, "%s %s in %s\n", arrived ? "Received the guest at" : "Migrated to",
			r->uri, total);
		return;
	case MIGRATION_CANCELLED:
		fprintf(out, "Migration %s %s cancelled after %s\n", where, r->uri, total);
		return;
	case MIGRATION_FAILED:
		fprintf(out, "Migration %s %s failed after %s\n", where, r->uri, total);
		return;
	case MIGRATION_UNKNOWN:
		fprintf(out, "Migration %s %s: outcome unknown after %s\n", where, r->uri, total);
		return;
	default:
		fprintf(out, "Migration %s %s: %s, %s so far\n", where, r->uri,
			migration_status_name(r->status), total);
		return;
	}
}

static void print_choices(FILE *out, const struct migration_report *r)
{
	char ram[TEXT];

	fprintf(out, "  memory %s", units_format_bytes(ram, sizeof(ram), r->ram_bytes));
	if (r->tracker[0])
		fprintf(out, "   dirty tracker %s", r->tracker);
	if (r->codec[0])
		fprintf(out, "   codec %s", r->codec);
	if (r->nr_channels)
		fprintf(out, "   %u channel%s", r->nr_channels, r->nr_channels == 1 ? "" : "s");
	if (r->verified)
		fputs("   verified", out);
	fputc('\n', out);
	if (r->nr_fallbacks)
		fprintf(out, "  %u of %u channels fell back to TCP: RDMA did not work\n",
			r->nr_fallbacks, r->nr_channels);
}

static void print_round(FILE *out, const char *name, const struct round_report *r)
{
	char text[8][TEXT];

	fprintf(out, " %5s %8s %7s %7s %7s %7s %7s %9s %12s\n", name,
		time_or_dash(text[0], r->duration_ns), count(text[1], r->dirty_pages),
		count(text[2], r->skipped_pages), count(text[3], r->zero_pages),
		count(text[4], r->raw_pages), count(text[5], r->compressed_pages),
		units_format_bytes(text[6], TEXT, r->wire_bytes),
		rate_over(text[7], r->wire_bytes, r->duration_ns));
}

static void add(struct round_report *sum, const struct round_report *r)
{
	sum->duration_ns += r->duration_ns;
	sum->dirty_pages += r->dirty_pages;
	sum->skipped_pages += r->skipped_pages;
	sum->zero_pages += r->zero_pages;
	sum->raw_pages += r->raw_pages;
	sum->compressed_pages += r->compressed_pages;
	sum->wire_bytes += r->wire_bytes;
}

static void print_rounds(FILE *out, const struct migration_report *r)
{
	struct round_report sum = {.number = 0};
	char name[TEXT];

	if (!r->nr_rounds)
		return;
	fprintf(out, "\n %5s %8s %7s %7s %7s %7s %7s %9s %12s\n", "round", "time", "pages",
		"skipped", "zero", "raw", "packed", "sent", "rate");
	for (uint32_t i = 0; i < r->nr_rounds && i < REPORT_MAX_ROUNDS; i++) {
		snprintf(name, sizeof(name), "%u", r->rounds[i].number);
		print_round(out, name, &r->rounds[i]);
		add(&sum, &r->rounds[i]);
	}
	print_round(out, "all", &sum);
	fputc('\n', out);
}

/* How fast the guest dirtied and what the policy made of it, round by round. */
static void print_predictions(FILE *out, const struct migration_report *r)
{
	char ns[TEXT];

	for (uint32_t i = 0; i < r->nr_rounds && i < REPORT_MAX_ROUNDS; i++) {
		const struct round_report *round = &r->rounds[i];

		if (!round->predicted_downtime_ns)
			continue;
		fprintf(out, "  after round %u: %llu pages/s dirtied, %s of downtime predicted\n",
			round->number, (unsigned long long)round->dirty_pages_per_s,
			units_format_ns(ns, sizeof(ns), round->predicted_downtime_ns));
	}
}

/* Steps with nothing to do took the time of finding that out. */
static bool is_worth_a_word(const struct migration_report *r, enum migration_phase p)
{
	if ((p == PHASE_DISKS || p == PHASE_OFFER) && !r->disks.nr)
		return false;
	return r->phase_ns[p] && (p != PHASE_VERIFY || r->verified);
}

static void print_phases(FILE *out, const struct migration_report *r)
{
	char ns[TEXT];
	int column = 0;

	for (enum migration_phase p = 0; p < NR_PHASES; p++) {
		if (!is_worth_a_word(r, p))
			continue;
		fprintf(out, "%s  %-10s %8s", column ? "   " : "", migration_phase_name(p),
			units_format_ns(ns, sizeof(ns), r->phase_ns[p]));
		column = (column + 1) % 3;
		if (!column)
			fputc('\n', out);
	}
	if (column)
		fputc('\n', out);
}

static void print_downtime(FILE *out, const struct migration_report *r)
{
	char text[TEXT];

	if (!r->downtime_ns)
		return; /* the source's knowledge */
	fputs("  downtime ", out);
	if (r->downtime_limit_ns)
		fprintf(out, "  limit %s",
			units_format_ns(text, sizeof(text), r->downtime_limit_ns));
	if (r->predicted_downtime_ns)
		fprintf(out, "  predicted %s",
			units_format_ns(text, sizeof(text), r->predicted_downtime_ns));
	fprintf(out, "  claimed %s\n", units_format_ns(text, sizeof(text), r->downtime_ns));
}

static void print_throttle(FILE *out, const struct migration_report *r)
{
	char text[TEXT];

	if (r->throttle_max_percent)
		fprintf(out, "  guest held back for %s, at most %u %% of its time\n",
			units_format_ns(text, sizeof(text), r->throttled_ns),
			r->throttle_max_percent);
}

static void print_blackout(FILE *out, const struct guest_blackout *b)
{
	char text[TEXT];

	if (!b->present)
		return;
	fprintf(out, "  guest felt %s%s at the switch-over", b->below ? "less than " : "",
		units_format_ns(text, sizeof(text), b->gap_ns));
	if (b->precopy_max_ns)
		fprintf(out, ", at most %s before",
			units_format_ns(text, sizeof(text), b->precopy_max_ns));
	fputc('\n', out);
}

static void print_disks(FILE *out, const struct disk_report *d)
{
	char text[3][TEXT];

	if (!d->nr)
		return;
	if (d->nr > d->nr_copied)
		fprintf(out, "  disks    %u shared\n", d->nr - d->nr_copied);
	if (d->nr_copied)
		fprintf(out,
			"  disks    %u copied: %s of %s as data in %u passes, %s became holes\n",
			d->nr_copied, units_format_bytes(text[0], TEXT, d->data_bytes),
			units_format_bytes(text[1], TEXT, d->bytes), d->nr_passes,
			units_format_bytes(text[2], TEXT, d->zero_bytes));
}

/* The destination sees what arrived, not what became of which page. */
static void print_arrival(FILE *out, const struct migration_report *r)
{
	char bytes[TEXT];
	char rate[TEXT];

	fprintf(out, "  received %s in %u rounds at %s\n",
		units_format_bytes(bytes, TEXT, r->wire_bytes), r->nr_rounds,
		rate_over(rate, r->wire_bytes, r->total_ns));
}

void report_print(FILE *out, const struct migration_report *r, bool arrived)
{
	print_outcome(out, r, arrived);
	if (r->error.kind != ERR_NONE)
		fprintf(out, "  %s\n", r->error.msg);
	if (r->ram_bytes)
		print_choices(out, r);
	if (arrived)
		print_arrival(out, r);
	else
		print_rounds(out, r);
	print_predictions(out, r);
	if (!arrived)
		print_disks(out, &r->disks);
	print_phases(out, r);
	if (r->status != MIGRATION_COMPLETED)
		return;
	print_downtime(out, r);
	print_throttle(out, r);
	print_blackout(out, &r->blackout);
}

static unsigned int percent(const struct migration_report *r)
{
	if (!r->ram_bytes || r->remaining_bytes >= r->ram_bytes)
		return 0;
	return (unsigned int)((double)(r->ram_bytes - r->remaining_bytes) * 100 /
			      (double)r->ram_bytes);
}

static char *progress_of_arrival(char *out, size_t cap, const struct migration_report *r)
{
	char bytes[TEXT];
	char total[TEXT];

	snprintf(out, cap, "receiving round %u  %s of a guest with %s", r->nr_rounds,
		 units_format_bytes(bytes, TEXT, r->wire_bytes),
		 units_format_bytes(total, TEXT, r->ram_bytes));
	return out;
}

static char *progress_of_disks(char *out, size_t cap, const struct migration_report *r)
{
	uint64_t done =
		r->disks.bytes > r->remaining_bytes ? r->disks.bytes - r->remaining_bytes : 0;
	char rate[TEXT];

	snprintf(out, cap, "disks, pass %u  %u %%  %s", r->disks.nr_passes + 1,
		 r->disks.bytes ? (unsigned int)((double)done * 100 / (double)r->disks.bytes) : 0,
		 units_format_rate(rate, TEXT, r->bytes_per_s));
	return out;
}

/* nr_rounds is how many are done; before the first is, there is nothing to predict from. */
static char *progress_of_round(char *out, size_t cap, const struct migration_report *r)
{
	char rate[TEXT];
	char downtime[TEXT];
	int used = snprintf(out, cap, "round %u  %u %%  %s", r->nr_rounds + 1, percent(r),
			    units_format_rate(rate, TEXT, r->bytes_per_s));

	if (r->nr_rounds && used > 0 && (size_t)used < cap)
		snprintf(out + used, cap - (size_t)used,
			 "  dirty %llu pages/s  downtime %s predicted",
			 (unsigned long long)r->dirty_pages_per_s,
			 time_or_dash(downtime, r->predicted_downtime_ns));
	return out;
}

char *report_progress(char *out, size_t cap, const struct migration_report *r, bool arrived)
{
	switch (r->status) {
	case MIGRATION_NONE:
	case MIGRATION_SETUP:
		snprintf(out, cap, "connecting (%s)", migration_phase_name(r->phase));
		return out;
	case MIGRATION_ACTIVE:
		if (arrived)
			return progress_of_arrival(out, cap, r);
		return r->phase == PHASE_DISKS ? progress_of_disks(out, cap, r)
					       : progress_of_round(out, cap, r);
	case MIGRATION_DEVICE:
		snprintf(out, cap, "switching over (%s)", migration_phase_name(r->phase));
		return out;
	case MIGRATION_COMPLETED:
		snprintf(out, cap, "arrived; waiting for what the guest felt");
		return out;
	default:
		snprintf(out, cap, "%s", migration_status_name(r->status));
		return out;
	}
}

void progress_init(struct progress *p)
{
	p->enabled = isatty(STDERR_FILENO);
	p->shown = false;
}

void progress_show(struct progress *p, const struct migration_report *report, bool arrived)
{
	char line[80];

	if (!p->enabled)
		return;
	fprintf(stderr, "\r\033[K%s", report_progress(line, sizeof(line), report, arrived));
	fflush(stderr);
	p->shown = true;
}

void progress_clear(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
