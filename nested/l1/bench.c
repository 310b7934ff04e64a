/*
 * What an exit costs, at L1 and at L2: the same operations, first done by L1 (an exit to L0), then
 * by L2 (an exit to L1, which is several to L0). One line of text for each, in TSC cycles per
 * operation; and from L1_EXITS_PORT, where the VMM offers it, how many exits L0 had.
 */
#include "experiments/guest/workload/tsc.h"
#include "nested/l1/cpu.h"
#include "nested/l1/l1.h"
#include "nested/l1/l1_exits.h"

#define MMIO_GPA       0xd0000000ull /* nothing is there */
#define DELAY_US       200           /* how far ahead a timer is set at least */
#define DELAY_EXITS    3             /* ... in exits of L2 */
#define FEW            64
#define BATCHES        8 /* of the operations: what runs beside us spoils some, the fastest counts */
#define HYPERCALL_DONE 3
#define LARGE_PAGE     (2ull << 20)

/* One operation, @n times; the cycles it took. In L1 and in L2 alike, but for what is asked of
 * whom. */
typedef uint64_t (*bench_fn)(struct l1 *m, uint64_t n);

struct kind {
	const char *name;
	bench_fn l1, l2;
	bool few; /* slow: each waits for a timer, or takes memory for good */
	bool needs_npt;
};

/* What L2 is to do next, and what came of it: L1 writes, L2 obeys. */
static struct {
	bench_fn fn;
	struct l1 *m;
	uint64_t n;
	volatile uint64_t cycles;
	volatile uint64_t due; /* a timer set for L2 by L1 */
} order;

/* ---- Operations ---- */

#define REPEAT(operation)                        \
	do {                                     \
		uint64_t start = rdtsc();        \
		for (uint64_t i = 0; i < n; i++) \
			operation;               \
		return rdtsc() - start;          \
	} while (0)

static uint64_t cpuid_l1(struct l1 *m, uint64_t n)
{
	(void)m;
	REPEAT(cpuid(0));
}

static uint64_t cpuid_l2(struct l1 *m, uint64_t n)
{
	uint64_t a = 0, c = 0, d = 0;

	(void)m;
	REPEAT(l2_cpuid(&a, &c, &d));
}

static uint64_t hypercall(struct l1 *m, uint64_t n)
{
	uint64_t a;

	REPEAT((a = 1000, l2_hypercall(&a, m->cpu->vmcall)));
}

static uint64_t port_l1(struct l1 *m, uint64_t n)
{
	(void)m;
	REPEAT(out8(0x80, 0));
}

static uint64_t port_l2(struct l1 *m, uint64_t n)
{
	(void)m;
	REPEAT(l2_out(0x80, 0));
}

static uint64_t msr_l1(struct l1 *m, uint64_t n)
{
	(void)m;
	REPEAT(rdmsr(MSR_APIC_BASE));
}

static uint64_t msr_l2(struct l1 *m, uint64_t n)
{
	uint64_t a = 0, c = MSR_APIC_BASE, d = 0;

	(void)m;
	REPEAT(l2_rdmsr(&a, &c, &d));
}

static void touch(uint64_t gpa)
{
	__asm__ volatile("lea 1f(%%rip), %%rbx; movl (%0), %%eax; 1:"
			 :
			 : "r"(gpa)
			 : "rax", "rbx", "memory");
}

static uint64_t mmio(struct l1 *m, uint64_t n)
{
	(void)m;
	REPEAT(touch(MMIO_GPA));
}

/* L0's: the first touch of a page the guest has never had. */
static uint64_t fault_l1(struct l1 *m, uint64_t n)
{
	uint64_t gpa = memory_take(&m->workload->memory, (n + 1) * LARGE_PAGE);
	uint64_t start = rdtsc();

	if (gpa == 0)
		return 0;
	for (uint64_t i = 0; i < n; i++)
		*(volatile uint64_t *)gpa_pointer(gpa + i * LARGE_PAGE) = i;
	return rdtsc() - start;
}

/* L1's: of two pages L2 has only the one it touched last. */
static uint64_t fault_l2(struct l1 *m, uint64_t n)
{
	uint64_t window = m->workload->report->version_table_gpa;

	REPEAT(touch(window + i % 2 * LARGE_PAGE));
}

/* From the deadline to the handler, awake. */
static uint64_t timer_l1(struct l1 *m, uint64_t n)
{
	uint64_t late = 0;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t ticks = m->ticks, due = rdtsc() + m->delay;

		wrmsr(MSR_TSC_DEADLINE, due);
		while (m->ticks == ticks)
			cpu_pause();
		late += m->timer_tsc - due;
	}
	return late;
}

static uint64_t timer_l2(struct l1 *m, uint64_t n)
{
	uint64_t late = 0;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t ticks = l2_trap_count[L1_TIMER_VECTOR], due = rdtsc() + m->delay;

		l2_wrmsr(MSR_TSC_DEADLINE, due);
		while (l2_trap_count[L1_TIMER_VECTOR] == ticks)
			cpu_pause();
		late += rdtsc() - due;
	}
	return late;
}

/* The same, asleep. */
static uint64_t halt_l1(struct l1 *m, uint64_t n)
{
	uint64_t late = 0;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t ticks = m->ticks, due = rdtsc() + m->delay;

		wrmsr(MSR_TSC_DEADLINE, due);
		interrupts_off();
		while (m->ticks == ticks) {
			l1_sleep();
			interrupts_off();
		}
		interrupts_on();
		late += m->timer_tsc - due;
	}
	return late;
}

static uint64_t halt_l2(struct l1 *m, uint64_t n)
{
	uint64_t late = 0;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t ticks = l2_trap_count[L1_TIMER_VECTOR], due = rdtsc() + m->delay;

		l2_wrmsr(MSR_TSC_DEADLINE, due);
		while (l2_trap_count[L1_TIMER_VECTOR] == ticks)
			l2_hlt();
		late += rdtsc() - due;
	}
	return late;
}

#define ICR_SELF (1ull << 18 | L1_IPI_VECTOR)

static uint64_t ipi_l1(struct l1 *m, uint64_t n)
{
	uint64_t start = rdtsc();

	for (uint64_t i = 0; i < n; i++) {
		uint64_t ipis = m->ipis;

		wrmsr(X2APIC_ICR, ICR_SELF);
		while (m->ipis == ipis)
			cpu_pause();
	}
	return rdtsc() - start;
}

static uint64_t ipi_l2(struct l1 *m, uint64_t n)
{
	uint64_t start = rdtsc();

	(void)m;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t ipis = l2_trap_count[L1_IPI_VECTOR];

		l2_wrmsr(X2APIC_ICR, ICR_SELF);
		while (l2_trap_count[L1_IPI_VECTOR] == ipis)
			cpu_pause();
	}
	return rdtsc() - start;
}

static const struct kind kinds[] = {
	{"cpuid", cpuid_l1, cpuid_l2, false, false},
	{"hypercall", hypercall, hypercall, false, false},
	{"port", port_l1, port_l2, false, false},
	{"mmio", mmio, mmio, false, true},
	{"msr", msr_l1, msr_l2, false, false},
	{"npt-fault", fault_l1, fault_l2, true, true},
	{"hlt-wake", halt_l1, halt_l2, true, false},
	{"ipi", ipi_l1, ipi_l2, false, false},
	{"timer", timer_l1, timer_l2, true, false},
};

/* Cycles for one operation of @n, in L1 or in L2. */
static uint64_t fastest(bench_fn fn, struct l1 *m, uint64_t n)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < BATCHES; i++) {
		uint64_t cycles = fn(m, n / BATCHES);

		if (cycles < best)
			best = cycles;
	}
	return best / (n / BATCHES);
}

/* ---- L1's part for L2 ---- */

static void l2_bench(void *ignored)
{
	uint64_t a;

	(void)ignored;
	for (;;) {
		order.cycles = fastest(order.fn, order.m, order.n);
		a = HYPERCALL_DONE;
		l2_hypercall(&a, order.m->cpu->vmcall);
	}
}

static void do_wrmsr(struct l1 *m, struct guest *g)
{
	const struct injection ipi = {.vector = L1_IPI_VECTOR};

	if ((uint32_t)g->regs.rcx == MSR_TSC_DEADLINE) {
		/* First: a deadline that has passed by now ticks at once. */
		order.due = m->ticks + 1;
		g->tick_pending = false;
		wrmsr(MSR_TSC_DEADLINE, g->regs.rdx << 32 | (uint32_t)g->rax);
	} else {
		m->cpu->inject(g, &ipi);
		g->interruptible = false; /* one event an entry: a tick has to wait */
	}
}

static void sleep_for(struct l1 *m)
{
	interrupts_off();
	while (m->ticks < order.due) {
		l1_sleep();
		interrupts_off();
	}
	interrupts_on();
}

/* See fault_l2(). False when L2 touched something else: nothing is there, and nothing comes. */
static bool give_page(struct l1 *m, struct guest *g)
{
	uint64_t page = g->exit.gpa & ~(LARGE_PAGE - 1);
	uint64_t window = m->workload->report->version_table_gpa;

	if (page != window && page != window + LARGE_PAGE)
		return false;
	m->cpu->map(g, page, true);
	m->cpu->map(g, 2 * window + LARGE_PAGE - page, false);
	return true;
}

/* Returns true when L2 is done with its order. */
static bool serve(struct l1 *m, struct guest *g)
{
	switch (g->exit.kind) {
	case EXIT_INTERRUPT:
		return false;
	case EXIT_PAGE_FAULT:
		if (give_page(m, g))
			return false; /* and L2 tries again */
		break;
	case EXIT_HLT:
		sleep_for(m);
		break;
	case EXIT_MSR:
		if (g->exit.write)
			do_wrmsr(m, g);
		break;
	case EXIT_HYPERCALL:
	case EXIT_CPUID:
	case EXIT_PORT:
		break;
	case EXIT_STEP: /* nobody has asked for these */
	case EXIT_TIMER:
	case EXIT_FAILED:
		l1_fail("L2 left for another reason; code", g->exit.code);
	}
	g->rip = g->regs.rbx;
	return g->exit.kind == EXIT_HYPERCALL && g->rax == HYPERCALL_DONE;
}

static uint64_t run_order(struct l1 *m, struct guest *g, bench_fn fn, uint64_t n)
{
	const struct injection tick = {.vector = L1_TIMER_VECTOR};
	uint64_t ticks = m->ticks;

	order.fn = fn;
	order.n = n;
	do {
		/* Until run(): a tick after the look would go unseen, and L2 may wait for it. */
		interrupts_off();
		if (m->ticks != ticks && g->interruptible) {
			ticks = m->ticks;
			m->cpu->inject(g, &tick);
		} else if (m->ticks != ticks) {
			/* L2 cannot take it now and may not leave again by itself. */
			wrmsr(MSR_TSC_DEADLINE, rdtsc() + m->delay);
		}
		m->cpu->run(g);
	} while (!serve(m, g));
	return order.cycles;
}

/*
 * A deadline is to find L2 at work, or L1 asleep for it. Where an exit of L2 takes longer than
 * DELAY_US, as on an emulated CPU, it would often pass while L1 still brings L2 back from setting
 * it: the tick then goes in with that very entry, and whether it costs an exit of its own is a
 * matter of luck.
 */
static void find_delay(struct l1 *m)
{
	uint64_t exits;

	m->delay = m->workload->report->tsc_khz * DELAY_US / 1000;
	exits = DELAY_EXITS * run_order(m, &m->guest[0], cpuid_l2, BATCHES);
	if (m->delay < exits)
		m->delay = exits;
}

/* ---- The table ---- */

static volatile struct l1_exits answer __attribute__((aligned(64)));

static uint32_t ask_for_exits(void)
{
	uint64_t nr = answer.nr_answers;

	out8(CONSOLE_PORT, L1_EXITS_ENQUIRY);
	/* No PAUSE: many of them are an exit. */
	while (answer.nr_answers == nr)
		;
	return (uint32_t)answer.exits;
}

/* Either way, the reading itself is one exit. */
static uint32_t l0_exits(const struct l1 *m)
{
	uint32_t value;

	if (m->options.exits != 0)
		return ask_for_exits();
	__asm__ volatile("inl %1, %0" : "=a"(value) : "d"((uint16_t)L1_EXITS_PORT));
	return value;
}

static void print(struct l1 *m, const struct kind *k, unsigned int level, uint64_t n,
		  uint64_t cycles, uint32_t exits)
{
	struct console *c = &m->workload->console;

	console_text(c, "bench");
	console_text(c, " kind=");
	console_text(c, k->name);
	console_key(c, "level", level);
	console_key(c, "n", n);
	console_key(c, "cycles", cycles);
	if (exits != UINT32_MAX)
		console_key(c, "exits_milli", exits * 1000ull / n);
	console_text(c, "\n");
	console_flush(c);
}

static void measure(struct l1 *m, const struct kind *k)
{
	uint64_t n = k->few ? FEW : m->options.rounds / BATCHES * BATCHES;
	struct guest *g = &m->guest[0];
	uint32_t before = l0_exits(m);
	uint64_t cycles = fastest(k->l1, m, n);
	uint32_t after = l0_exits(m);

	print(m, k, 1, n, cycles, before == UINT32_MAX ? UINT32_MAX : after - before - 1);
	if (k->needs_npt && !g->nested_paging)
		return;
	run_order(m, g, k->l2, BATCHES); /* warm */
	before = l0_exits(m);
	cycles = run_order(m, g, k->l2, n);
	after = l0_exits(m);
	print(m, k, 2, n, cycles, before == UINT32_MAX ? UINT32_MAX : after - before - 1);
}

static void announce(struct l1 *m)
{
	struct console *c = &m->workload->console;

	console_text(c, "bench begin");
	console_key(c, "tsc_khz", m->workload->report->tsc_khz);
	console_key(c, "npt", m->options.npt != 0);
	console_text(c, "\nbench");
	console_key_hex(c, "exits_gpa", pointer_gpa(&answer));
	console_text(c, "\n");
	console_flush(c); /* an enquiry is not to stand behind it */
}

/* A key, or another number in the report than the last one served, which a VMM can write without a
 * serial line, and before L1 begins to wait. */
static void wait_for_request(struct l1 *m, uint64_t *served)
{
	volatile struct guest_report *r = m->workload->report;

	while (console_input() < 0 && r->tsc_running == *served)
		cpu_pause();
	*served = r->tsc_running;
}

_Noreturn void l1_bench(struct l1 *m)
{
	struct workload *w = m->workload;
	/* Only for its TSC frequency, a page to take away and wait_for_request(). */
	static struct guest_report report __attribute__((aligned(4096)));
	enum guest_tsc_source source = GUEST_TSC_OPTION;
	uint64_t served = 0;

	w->report = &report;
	report.tsc_khz = tsc_find_khz(&source);
	if (m->options.rounds < FEW)
		m->options.rounds = FEW;
	report.version_table_gpa = memory_take(&w->memory, 3 * LARGE_PAGE);
	report.version_table_gpa = (report.version_table_gpa + LARGE_PAGE - 1) & ~(LARGE_PAGE - 1);
	report.magic = GUEST_REPORT_MAGIC;
	report.abi = GUEST_REPORT_ABI;
	out32(GUEST_REPORT_PORT, (uint32_t)(pointer_gpa(&report) / PAGE_SIZE));
	order.m = m;
	l1_new_guest(m, &m->guest[0], m->options.npt != 0, l2_bench, NULL);
	if (m->options.npt != 0) {
		m->cpu->map(&m->guest[0], MMIO_GPA, false);
		m->cpu->map(&m->guest[0], report.version_table_gpa + LARGE_PAGE, false);
	}
	for (;;) {
		announce(m);
		find_delay(m);
		for (unsigned int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
			measure(m, &kinds[i]);
		console_text(&w->console, "bench end\n");
		console_flush(&w->console);
		l1_mark(m, L1_MARK_L1);
		wait_for_request(m, &served);
	}
}
