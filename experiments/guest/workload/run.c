/* What every vCPU does: fill its slice, then rewrite its working set at its rate for ever. */
#include "experiments/guest/workload/machine.h"
#include "experiments/guest/workload/workload.h"

#define MAX_DEBT_MS 10 /* how far a vCPU that was held up tries to catch up */

static void set_pace(struct cpu *c, uint64_t now)
{
	const struct options *o = &c->w->options;
	uint64_t hz = c->w->report->tsc_khz * 1000;

	c->rate = o->rate / o->nr_cpus + (c->report->cpu < o->rate % o->nr_cpus ? 1 : 0);
	c->idle = c->report->nr_ws_pages == 0 || (o->rate != 0 && c->rate == 0);
	c->interval = c->rate == 0 ? 0 : hz / c->rate;
	c->interval_rest = c->rate == 0 ? 0 : hz % c->rate;
	c->rest = 0;
	c->due_tsc = now;
}

static bool is_due(const struct cpu *c, uint64_t now)
{
	return !c->idle && (int64_t)(now - c->due_tsc) >= 0;
}

static void advance_due(struct cpu *c, uint64_t now)
{
	uint64_t debt = c->w->report->tsc_khz * MAX_DEBT_MS;

	c->due_tsc += c->interval;
	c->rest += c->interval_rest;
	if (c->rest >= c->rate && c->rate != 0) {
		c->rest -= c->rate;
		c->due_tsc++;
	}
	/* Too late, or too early by far (the TSC jumped back): start counting from here. */
	if (c->interval == 0 || (int64_t)(now - c->due_tsc) > (int64_t)debt)
		c->due_tsc = c->interval == 0 ? now : now - debt;
	else if ((int64_t)(c->due_tsc - now) > (int64_t)(c->interval + debt))
		c->due_tsc = now + c->interval;
}

/* One page of the check under way, if any; the workload goes on between pages. */
static void check_step(struct cpu *c)
{
	uint64_t wanted = c->w->check_wanted;

	if (c->check_seq != wanted) {
		c->check_seq = wanted;
		c->check_next = c->check_pages = c->check_errors = 0;
	}
	if (c->report->check_seq == wanted)
		return;
	if (c->check_next < c->report->nr_pages) {
		c->check_pages++;
		if (!cpu_verify_page(c, c->check_next++))
			c->check_errors++;
		return;
	}
	c->report->check_pages = c->check_pages;
	c->report->check_errors = c->check_errors;
	barrier();
	c->report->check_seq = wanted;
}

static void work_step(struct cpu *c, uint64_t now)
{
	if (is_due(c, now)) {
		cpu_write_page(c, cpu_pick_page(c));
		if (c->w->options.verify)
			cpu_verify_page(c, cpu_random_below(c, c->report->nr_pages));
		advance_due(c, now);
	} else {
		cpu_pause();
	}
	check_step(c);
	if (c->reset_seen != c->w->reset_wanted) {
		c->reset_seen = c->w->reset_wanted;
		cpu_reset_gaps(c);
	}
}

static void wait_for_all(struct workload *w)
{
	for (uint32_t i = 1; i < w->report->nr_cpus; i++)
		while (w->report->cpu[i].state != GUEST_STATE_RUNNING)
			cpu_pause();
	w->report->tsc_running = rdtsc();
	w->report->state = GUEST_STATE_RUNNING;
	status_ready(w);
	w->go = 1;
}

_Noreturn void cpu_run(struct cpu *c)
{
	struct workload *w = c->w;
	bool is_boot = c->report->cpu == 0;

	c->report->state = GUEST_STATE_FILLING;
	c->report->last_tsc = rdtsc();
	cpu_fill_slice(c);
	c->report->state = GUEST_STATE_RUNNING;
	if (is_boot)
		wait_for_all(w);
	while (w->go == 0)
		cpu_pause();
	cpu_reset_gaps(c);
	set_pace(c, rdtsc());
	if (is_boot)
		status_start(w, rdtsc());
	for (;;) {
		uint64_t now = cpu_sample(c);

		work_step(c, now);
		if (is_boot)
			status_step(w, now);
	}
}
