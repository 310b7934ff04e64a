/*
 * What the boot vCPU says and hears on the serial line while the workload runs: a status line a
 * second, errors at once, commands.
 */
#include "experiments/guest/workload/machine.h"
#include "experiments/guest/workload/workload.h"

#define POLL_US           10000 /* each poll costs an exit */
#define LINE_MS           1000
#define MAX_CORRUPT_LINES 16

struct totals {
	uint64_t pages, errors, gaps, max_gap_ns, window_max_gap_ns, tsc_backwards;
};

static struct totals add_up(const struct workload *w)
{
	struct totals t = {0};

	for (uint32_t i = 0; i < w->report->nr_cpus; i++) {
		volatile const struct guest_cpu_report *r = &w->report->cpu[i];

		t.pages += r->pages_written;
		t.errors += r->nr_errors;
		t.gaps += r->nr_gaps;
		t.tsc_backwards += r->tsc_backwards;
		if (r->max_gap_ns > t.max_gap_ns)
			t.max_gap_ns = r->max_gap_ns;
		if (r->window == w->window && r->window_max_gap_ns > t.window_max_gap_ns)
			t.window_max_gap_ns = r->window_max_gap_ns;
	}
	return t;
}

static uint64_t cycles_ms(const struct workload *w, uint64_t cycles)
{
	return cycles / w->report->tsc_khz;
}

void status_ready(struct workload *w)
{
	volatile const struct guest_report *r = w->report;
	struct console *c = &w->console;
	uint64_t ms = cycles_ms(w, r->tsc_running - r->tsc_fill);

	console_text(c, "workload: ready");
	console_key(c, "fill_pages", r->nr_fill_pages);
	console_key(c, "fill_ms", ms);
	console_key(c, "fill_mb_s", r->nr_fill_pages * PAGE_SIZE / 1000 / (ms == 0 ? 1 : ms));
	console_key(c, "ws_pages", r->nr_ws_pages);
	console_key(c, "rate", r->rate_pages);
	console_key(c, "boot_us", (r->tsc_fill - r->tsc_entry) * 1000 / r->tsc_khz);
	console_text(c, "\n");
}

void status_start(struct workload *w, uint64_t now)
{
	w->next_poll_tsc = now;
	w->line_tsc = now;
	w->next_line_tsc = now + w->report->tsc_khz * LINE_MS;
	w->line_pages = add_up(w).pages;
}

static void print_line(struct workload *w, uint64_t now)
{
	struct console *c = &w->console;
	struct totals t = add_up(w);
	uint64_t ms = cycles_ms(w, now - w->line_tsc);
	uint64_t run_ms = cycles_ms(w, now - w->report->tsc_running);

	w->window++;
	console_text(c, "t=");
	console_u64(c, run_ms / 1000);
	console_text(c, ".");
	console_u64(c, run_ms / 100 % 10);
	console_key(c, "pages", t.pages);
	console_key(c, "rate", (t.pages - w->line_pages) * 1000 / (ms == 0 ? 1 : ms));
	console_key(c, "maxgap_us", t.window_max_gap_ns / 1000);
	console_key(c, "peak_us", t.max_gap_ns / 1000);
	console_key(c, "gaps", t.gaps);
	console_key(c, "errors", t.errors);
	console_key(c, "cpus", w->report->nr_cpus);
	if (t.tsc_backwards != 0)
		console_key(c, "tsc_back", t.tsc_backwards);
	console_text(c, "\n");
	w->line_tsc = now;
	w->line_pages = t.pages;
}

static void print_histogram(struct workload *w)
{
	struct console *c = &w->console;

	console_text(c, "hist:");
	for (unsigned int b = 0; b < GUEST_REPORT_NR_BUCKETS; b++) {
		uint64_t n = 0;

		for (uint32_t i = 0; i < w->report->nr_cpus; i++)
			n += w->report->cpu[i].gap_bucket[b];
		if (n == 0)
			continue;
		console_text(c, " ");
		console_u64(c, guest_gap_bucket_floor_ns(b) / 1000);
		console_text(c, "us:");
		console_u64(c, n);
	}
	console_text(c, "\n");
}

static void print_corrupt(struct workload *w, volatile const struct guest_cpu_report *r)
{
	struct console *c = &w->console;

	if (w->nr_corrupt_lines++ >= MAX_CORRUPT_LINES)
		return;
	console_text(c, "workload: CORRUPT");
	console_key_hex(c, "gfn", r->last_bad.gfn);
	console_text(c, " kind=");
	console_text(c, pattern_verdict_name((enum page_verdict)r->last_bad.verdict));
	console_key(c, "expected", r->last_bad.expected);
	console_key(c, "found", r->last_bad.found);
	console_key(c, "cpu", r->cpu);
	console_key(c, "errors", r->nr_errors);
	console_text(c, "\n");
}

static void look_for_errors(struct workload *w)
{
	for (uint32_t i = 0; i < w->report->nr_cpus; i++) {
		volatile const struct guest_cpu_report *r = &w->report->cpu[i];

		if (r->nr_errors != w->errors_seen[i]) {
			w->errors_seen[i] = r->nr_errors;
			print_corrupt(w, r);
		}
	}
}

static void look_for_check_end(struct workload *w)
{
	uint64_t pages = 0, errors = 0;

	if (w->check_printed == w->check_wanted)
		return;
	for (uint32_t i = 0; i < w->report->nr_cpus; i++) {
		if (w->report->cpu[i].check_seq != w->check_wanted)
			return;
		pages += w->report->cpu[i].check_pages;
		errors += w->report->cpu[i].check_errors;
	}
	w->check_printed = w->check_wanted;
	console_text(&w->console, "check:");
	console_key(&w->console, "pages", pages);
	console_key(&w->console, "errors", errors);
	console_text(&w->console, "\n");
}

static void obey_command(struct workload *w)
{
	switch (console_input()) {
	case 'c':
		if (w->check_printed == w->check_wanted)
			w->check_wanted++;
		break;
	case 'r':
		w->reset_wanted++;
		break;
	case 'h':
		print_histogram(w);
		break;
	default:
		break;
	}
}

/* A deadline is late, or so far ahead that the TSC must have jumped back. */
static bool has_passed(const struct workload *w, uint64_t now, uint64_t deadline)
{
	return now >= deadline || deadline - now > 10 * LINE_MS * w->report->tsc_khz;
}

void status_step(struct workload *w, uint64_t now)
{
	console_pump(&w->console);
	if (has_passed(w, now, w->next_poll_tsc)) {
		w->next_poll_tsc = now + w->report->tsc_khz * POLL_US / 1000;
		look_for_errors(w);
		look_for_check_end(w);
		obey_command(w);
	}
	if (has_passed(w, now, w->next_line_tsc)) {
		w->next_line_tsc = now + w->report->tsc_khz * LINE_MS;
		if (!w->options.quiet)
			print_line(w, now);
	}
}
