/*
 * The awkward moments. Each round runs every guest once: L2 puts a pattern into all its registers,
 * says where it is (L1_MARK_L2), checks that nothing changed, and asks L1 for the next round. With
 * l1.marks, L1 says where it is too; with l1.inject, an event goes in with each entry; with
 * l1.step, L1 steps through L2 and must be told when L2 has said where it is; with l1.timer, L2
 * waits there for L1's timer. Whoever runs this may stop it at any mark, move it, and let it go on:
 * if anything was lost, it ends with an error.
 */
#include "experiments/guest/workload/tsc.h"
#include "nested/l1/cpu.h"
#include "nested/l1/l1.h"

#define REPLY_GOOD  0x600dull
#define ERROR_CODE  0x5au
#define INJECT_IRQ  1u
#define INJECT_TRAP 2u
#define PATIENCE_MS 20000u /* that L2 has with a timer that does not come */

/* points_l2.S: never returns; hypercalls with rax = REPLY_GOOD or the number of a bad register. */
void l2_point(void *ignored);
extern const char l2_after_mark[], l2_waited[];

extern volatile uint64_t l2_patience;
volatile uint64_t l2_patience; /* until when, by the TSC, L2 waits behind its mark; 0: not at all */

/* What L1 itself must not lose over an L2: the compiler keeps some of it in registers. */
struct books {
	uint64_t rounds[L1_MAX_GUESTS];
	uint64_t sum;
};

static struct injection event_of(uint64_t inject)
{
	if (inject == INJECT_IRQ)
		return (struct injection){.vector = L1_TIMER_VECTOR};
	return (struct injection){
		.vector = 14, .exception = true, .has_error = true, .error = ERROR_CODE};
}

static void check_injection(const struct l1 *m, uint64_t nr)
{
	struct injection event = event_of(m->options.inject);

	if (m->options.inject == 0)
		return;
	if (l2_trap_count[event.vector] != nr)
		l1_fail("L2 missed an injected event; it saw", l2_trap_count[event.vector]);
	if (event.has_error && l2_trap_error != event.error)
		l1_fail("L2 saw another error code", l2_trap_error);
}

/* What L2 was taken out of, on the way to its next hypercall. */
struct seen {
	bool step;  /* right behind its mark */
	bool timer; /* while it waited there */
	uint64_t due;
};

static void set_timer(struct l1 *m, struct guest *g, struct seen *seen)
{
	uint64_t khz;

	if (m->options.timer == 0)
		return;
	khz = m->workload->report->tsc_khz;
	seen->due = rdtsc() + m->options.timer * khz;
	l2_patience = seen->due + PATIENCE_MS * khz;
	m->cpu->timer(g, m->options.timer * khz);
}

/* Where L2 waits it goes on; on a slow host it may not have come so far. */
static void take_timer(struct l1 *m, struct guest *g, struct seen *seen)
{
	/* KVM counts in nanoseconds. */
	if (rdtsc() + m->workload->report->tsc_khz < seen->due)
		l1_fail("L2's timer came early; cycles", seen->due - rdtsc());
	if (g->rip < pointer_gpa(l2_after_mark) || g->rip >= pointer_gpa(l2_waited)) {
		set_timer(m, g, seen);
		return;
	}
	seen->timer = true;
	g->rip = pointer_gpa(l2_waited);
	m->cpu->timer(g, 0);
}

static void check_seen(const struct l1 *m, const struct guest *g, const struct seen *seen)
{
	if (m->options.step != 0 && !seen->step)
		l1_fail("L2 was not stopped right behind its mark; guest", g->id);
	if (m->options.timer != 0 && !seen->timer)
		l1_fail("L2's timer did not come; guest", g->id);
}

/* Until the guest's next hypercall; its reply. */
static uint64_t run_to_reply(struct l1 *m, struct guest *g)
{
	struct seen seen = {.step = false};

	set_timer(m, g, &seen);
	if (m->options.inject != 0) {
		struct injection event = event_of(m->options.inject);

		m->cpu->inject(g, &event);
	}
	do {
		m->cpu->run(g);
		seen.step |= g->exit.kind == EXIT_STEP && g->rip == pointer_gpa(l2_after_mark);
		if (g->exit.kind == EXIT_TIMER)
			take_timer(m, g, &seen);
	} while (g->exit.kind == EXIT_INTERRUPT || g->exit.kind == EXIT_STEP ||
		 g->exit.kind == EXIT_TIMER);
	if (g->exit.kind != EXIT_HYPERCALL)
		l1_fail("L2 left for another reason; code", g->exit.code);
	check_seen(m, g, &seen);
	g->rip = g->regs.rbx;
	return g->rax;
}

static void do_round(struct l1 *m, struct books *b, uint64_t round)
{
	for (uint32_t i = 0; i < m->nr_guests; i++) {
		uint64_t reply;

		l1_mark(m, L1_MARK_L1);
		reply = run_to_reply(m, &m->guest[i]);
		if (reply != REPLY_GOOD)
			l1_fail("L2 found a register changed: number", reply);
		b->rounds[i]++;
		b->sum += round * (i + 1);
		check_injection(m, round * m->nr_guests + i + 1);
	}
}

static void check_books(const struct l1 *m, const struct books *b)
{
	uint64_t n = m->options.rounds, weights = (uint64_t)m->nr_guests * (m->nr_guests + 1) / 2;

	for (uint32_t i = 0; i < m->nr_guests; i++)
		if (b->rounds[i] != n)
			l1_fail("L1 lost count of a guest's rounds", b->rounds[i]);
	if (b->sum != weights * n * (n - 1) / 2)
		l1_fail("L1's sum is wrong", b->sum);
}

static void new_guest(struct l1 *m, struct guest *g)
{
	uint64_t i = (uint64_t)(g - m->guest);

	l1_new_guest(m, g, m->options.npt == 1 || (m->options.npt == 2 && i % 2 == 0), l2_point,
		     NULL);
	if (m->options.step != 0 && m->cpu->step != NULL)
		m->cpu->step(g);
}

static void find_timer(struct l1 *m)
{
	static struct guest_report report; /* only for its TSC frequency */
	enum guest_tsc_source source;

	if (m->options.timer == 0)
		return;
	if (m->cpu->timer == NULL)
		l1_fail("this CPU has no preemption timer; l1.timer", m->options.timer);
	m->workload->report = &report;
	report.tsc_khz = tsc_find_khz(&source);
}

_Noreturn void l1_points(struct l1 *m)
{
	struct books books = {.sum = 0};

	find_timer(m);
	l1_marks = (uint8_t)m->options.marks;
	out32(L1_MSR_MAP_PORT, (uint32_t)(pointer_gpa(m->cpu->msr_map) / PAGE_SIZE));
	for (uint32_t i = 0; i < m->nr_guests; i++)
		new_guest(m, &m->guest[i]);
	for (uint64_t round = 0; round < m->options.rounds; round++)
		do_round(m, &books, round);
	check_books(m, &books);
	console_text(&m->workload->console, "l1: points done\n");
	l1_done(0);
}
