/*
 * Work that shows when something is lost: L1 and every L2 are one "CPU" each of the workload's
 * report (vmm/guest_report.h). Each writes stamped pages of its own slice, verifies others, and
 * takes TSC samples, so that whoever reads the report sees whether each is alive, what each felt of
 * a blackout, and, page by page, whether a byte is wrong. L1 shares the CPU out by its timer and
 * passes the ticks on to L2, which complains when they stop coming.
 */
#include "experiments/guest/workload/tsc.h"
#include "nested/l1/cpu.h"
#include "nested/l1/l1.h"

#define TICK_US              2000
#define LINE_TICKS           500   /* a line on the console */
#define SILENCE_MS           20000 /* ticks that stay away so long are lost */
#define ASK_EVERY            16    /* samples of L2 between two exits it asks for */
#define HYPERCALL_TICKS_LOST 0xbad
#define HYPERCALL_NOTHING    1

/* ---- L2 ---- */

/* What L1 must answer, each in turn. A wrong answer is an error like a wrong page. */
static void ask(struct cpu *c, uint64_t n, bool vmcall)
{
	uint64_t a = 0x40000000, d = 0;
	uint64_t reg_c = 0;

	switch (n % 4) {
	case 0:
		l2_cpuid(&a, &reg_c, &d);
		break;
	case 1:
		reg_c = MSR_APIC_BASE;
		l2_rdmsr(&a, &reg_c, &d);
		break;
	case 2:
		l2_out(0x80, (uint8_t)n);
		a = L1_ANSWER;
		break;
	default:
		a = HYPERCALL_NOTHING;
		l2_hypercall(&a, vmcall);
	}
	if ((uint32_t)a != L1_ANSWER)
		c->report->nr_errors++;
}

static void watch_ticks(struct cpu *c, uint64_t now, uint64_t *seen, uint64_t *since, bool vmcall)
{
	uint64_t ticks = l2_trap_count[L1_TIMER_VECTOR];
	uint64_t a = HYPERCALL_TICKS_LOST;

	if (ticks != *seen) {
		*seen = ticks;
		*since = now;
	} else if (now - *since > c->w->report->tsc_khz * SILENCE_MS) {
		l2_hypercall(&a, vmcall);
	}
}

static void l2_work(void *argument)
{
	struct cpu *c = argument;
	bool vmcall = l1_uses_vmcall;
	uint64_t seen = 0, since = rdtsc(), nr = 0;

	cpu_fill_slice(c);
	c->report->state = GUEST_STATE_RUNNING;
	for (;;) {
		uint64_t now = cpu_sample(c);

		watch_ticks(c, now, &seen, &since, vmcall);
		if (now - c->due_tsc < 1ull << 63) {
			cpu_write_page(c, cpu_pick_page(c));
			cpu_verify_page(c, cpu_random_below(c, c->report->nr_pages));
			c->due_tsc = now + c->interval;
		}
		if (++nr % ASK_EVERY == 0)
			ask(c, nr / ASK_EVERY, vmcall);
	}
}

/* ---- L1 ---- */

static void answer(struct guest *g)
{
	switch (g->exit.kind) {
	case EXIT_CPUID:
		g->regs.rcx = g->regs.rdx = 0;
		break;
	case EXIT_MSR:
		g->regs.rdx = 0;
		break;
	case EXIT_HYPERCALL:
		if (g->rax == HYPERCALL_TICKS_LOST)
			l1_fail("L2 gets no timer interrupts; guest", g->id);
		break;
	case EXIT_PORT:
		g->rip = g->regs.rbx;
		return;
	default:
		l1_fail("L2 left for another reason; code", g->exit.code);
	}
	g->rax = L1_ANSWER;
	g->rip = g->regs.rbx;
}

static void run_guest(struct l1 *m, struct guest *g)
{
	const struct injection tick = {.vector = L1_TIMER_VECTOR};

	if (g->tick_pending && g->interruptible) {
		g->tick_pending = false;
		m->cpu->inject(g, &tick);
	}
	m->cpu->run(g);
	if (g->exit.kind != EXIT_INTERRUPT)
		answer(g);
}

static void start_timer(struct l1 *m)
{
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + m->workload->report->tsc_khz * TICK_US / 1000);
}

/* Gaps: the longest of all, and the longest since the last line. */
static void print_line(struct l1 *m)
{
	struct console *c = &m->workload->console;
	volatile struct guest_report *r = m->workload->report;

	console_text(c, "l1:");
	console_key(c, "ticks", m->ticks);
	console_key(c, "l2_ticks", l2_trap_count[L1_TIMER_VECTOR]);
	for (uint32_t i = 0; i < r->nr_cpus; i++) {
		console_text(c, i == 0 ? " L1" : " L2");
		console_key(c, "pages", r->cpu[i].pages_written);
		console_key(c, "errors", r->cpu[i].nr_errors);
		console_key(c, "max_gap_us", r->cpu[i].max_gap_ns / 1000);
		console_key(c, "gap_us",
			    r->cpu[i].window == m->workload->window
				    ? r->cpu[i].window_max_gap_ns / 1000
				    : 0);
	}
	m->workload->window++;
	console_text(c, "\n");
}

static bool all_work(struct l1 *m)
{
	volatile struct guest_report *r = m->workload->report;

	for (uint32_t i = 0; i < r->nr_cpus; i++)
		if (r->cpu[i].state != GUEST_STATE_RUNNING)
			return false;
	return true;
}

/* All slices are written: from here on gaps count. */
static void begin(struct l1 *m)
{
	struct workload *w = m->workload;

	for (uint32_t i = 0; i < w->report->nr_cpus; i++)
		cpu_reset_gaps(&w->cpu[i]);
	w->report->tsc_running = rdtsc();
	w->report->state = GUEST_STATE_RUNNING;
	console_text(&w->console, "l1: ready");
	console_key_hex(&w->console, "report_gpa", pointer_gpa(w->report));
	console_text(&w->console, "\n");
}

static void on_tick(struct l1 *m)
{
	struct cpu *c = &m->workload->cpu[0];

	start_timer(m);
	for (uint32_t i = 0; i < m->nr_guests; i++)
		m->guest[i].tick_pending = true;
	cpu_write_page(c, cpu_pick_page(c));
	if (m->workload->report->state == GUEST_STATE_FILLING && all_work(m))
		begin(m);
	if (m->ticks % LINE_TICKS == 0 && !m->workload->options.quiet)
		print_line(m);
}

_Noreturn static void share_out(struct l1 *m)
{
	uint64_t ticks = m->ticks;
	uint32_t current = 0;

	start_timer(m);
	for (;;) {
		run_guest(m, &m->guest[current]);
		cpu_sample(&m->workload->cpu[0]);
		console_pump(&m->workload->console);
		if (m->ticks == ticks)
			continue;
		ticks = m->ticks;
		on_tick(m);
		current = (current + 1) % m->nr_guests;
	}
}

/* ---- Making the report and the slices ---- */

static void make_report(struct workload *w)
{
	uint64_t gpa = memory_take(&w->memory, PAGE_SIZE * (1 + w->options.nr_cpus));
	enum guest_tsc_source source = GUEST_TSC_OPTION;
	volatile struct guest_report *r = gpa_pointer(gpa);

	memset(gpa_pointer(gpa), 0, PAGE_SIZE * (1 + w->options.nr_cpus));
	w->report = r;
	r->abi = GUEST_REPORT_ABI;
	r->size = PAGE_SIZE * (1 + w->options.nr_cpus);
	r->nr_cpus = (uint32_t)w->options.nr_cpus;
	r->state = GUEST_STATE_BOOTING;
	r->seed = w->options.seed;
	r->compress_percent = (uint32_t)w->options.compress_percent;
	r->rate_pages = w->options.rate;
	r->tsc_khz = tsc_find_khz(&source);
	r->tsc_source = source;
	if (r->tsc_khz == 0)
		l1_fail("nothing tells the TSC frequency", 0);
	r->gap_threshold_ns = w->options.gap_us * 1000;
	r->long_gap_threshold_ns = w->options.longgap_us * 1000;
	w->gap_threshold_cycles = w->options.gap_us * r->tsc_khz / 1000;
	w->ns_per_cycle_q32 = (1000000ull << 32) / r->tsc_khz;
}

static void lay_fill(struct workload *w)
{
	volatile struct guest_report *r = w->report;
	uint64_t wanted = w->options.fill_bytes / PAGE_SIZE;
	struct guest_extent extent[GUEST_REPORT_MAX_EXTENTS];
	uint32_t nr;

	r->version_table_gpa = memory_take(&w->memory, wanted * sizeof(uint32_t));
	w->version = gpa_pointer(r->version_table_gpa);
	if (r->version_table_gpa == 0 ||
	    memory_lay_extents(&w->memory, wanted, extent, &nr) < wanted)
		l1_fail("fill= is larger than memory; pages", wanted);
	for (uint32_t i = 0; i < nr; i++)
		r->extent[i] = extent[i];
	r->nr_extents = nr;
	r->nr_fill_pages = wanted;
	r->nr_ws_pages = w->options.ws_bytes / PAGE_SIZE;
}

static void make_cpu(struct workload *w, uint32_t i)
{
	uint64_t n = w->options.nr_cpus, fill = w->report->nr_fill_pages;
	struct cpu *c = &w->cpu[i];

	*c = (struct cpu){.w = w, .report = &w->report->cpu[i]};
	c->report->cpu = i;
	c->report->first_index = fill * i / n;
	c->report->nr_pages = fill * (i + 1) / n - c->report->first_index;
	c->report->nr_ws_pages = w->report->nr_ws_pages / n;
	c->report->inflight_gfn = GUEST_NO_GFN;
	c->interval = w->options.rate == 0 ? 0 : w->report->tsc_khz * 1000 * n / w->options.rate;
	c->due_tsc = c->report->last_tsc = rdtsc();
	cpu_seed_random(c);
	if (c->report->nr_ws_pages == 0 || c->report->nr_ws_pages > c->report->nr_pages)
		l1_fail("ws= must be a page for each CPU and at most fill=; pages",
			w->report->nr_ws_pages);
}

static void prepare(struct l1 *m)
{
	struct workload *w = m->workload;
	const char *bad = NULL;
	const char *problem = options_parse(&w->options, w->memory.cmdline, &bad);

	if (problem != NULL)
		l1_fail(problem, 0);
	w->options.nr_cpus = m->nr_guests + 1;
	make_report(w);
	lay_fill(w);
	w->pattern = pattern_make(w->options.seed, (uint32_t)w->options.compress_percent);
	for (uint32_t i = 0; i <= m->nr_guests; i++)
		make_cpu(w, i);
	w->report->magic = GUEST_REPORT_MAGIC;
	out32(GUEST_REPORT_PORT, (uint32_t)(pointer_gpa(w->report) / PAGE_SIZE));
}

_Noreturn void l1_work(struct l1 *m)
{
	struct workload *w = m->workload;

	prepare(m);
	console_text(&w->console, "l1: ");
	console_text(&w->console, m->cpu->name);
	console_key(&w->console, "guests", m->nr_guests);
	console_text(&w->console, " filling\n");
	w->report->state = GUEST_STATE_FILLING;
	cpu_fill_slice(&w->cpu[0]);
	w->report->cpu[0].state = GUEST_STATE_RUNNING;
	for (uint32_t i = 0; i < m->nr_guests; i++)
		l1_new_guest(m, &m->guest[i],
			     m->options.npt == 1 || (m->options.npt == 2 && i % 2 == 0), l2_work,
			     &w->cpu[i + 1]);
	share_out(m);
}
