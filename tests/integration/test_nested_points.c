/*
 * A hypervisor stopped at every awkward moment, saved, destroyed, made anew, loaded, compared
 * register by register, and sent on: L2 and L1 both check what they must not lose
 * (nested/l1/points.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "nested/l1/l1.h"
#include "tests/rig/bare.h"

#define MEMORY_BYTES (8u << 20)
#define NR_ROUNDS    2u
#define NO_INJECTION 0
#define IRQ          1
#define EXCEPTION    2

struct scenario {
	unsigned int marks; /* where to stop and move */
	unsigned int nr_guests;
	unsigned int inject;
	bool run_pending; /* from L1_MARK_ENTRY on to the entry itself, and move there */
	bool smi;         /* at each mark one comes; move before it is taken, and in its handler */
	unsigned int timer_ms; /* L2's preemption timer runs at the mark (VMX) */
	bool late;             /* and is overdue when the move is over */
	bool step;             /* at the mark, L1 is owed an exit for L2's instruction */
};

struct paging {
	unsigned int npt; /* l1.npt */
	const char *name;
};

static const struct paging nested_paging = {1, "nested paging"};
static const struct paging shadow_paging = {0, "shadow paging"};
static const struct paging mixed_paging = {2, "both kinds of paging"};

/* System management mode has no guests; VMX remembers where it interrupted. */
static void check_smm(const struct scenario *s, const struct nested_view *v)
{
	assert_true(s->smi);
	assert_false(v->in_l2);
	assert_int_equal(v->smm, v->vendor == NESTED_VMX && s->marks == L1_MARK_L2);
}

/* Is the machine where the mark says it is? */
static void check_place(const struct scenario *s, uint8_t mark, const struct nested_view *v)
{
	bool svm = v->vendor == NESTED_SVM;

	if (mark == BARE_MARK_SMM) {
		check_smm(s, v);
		return;
	}
	assert_int_equal(v->in_l2, mark == L1_MARK_L2);
	if (svm && (mark == L1_MARK_ENTRY || mark == L1_MARK_EXIT))
		assert_false(v->gif);
	if (mark == L1_MARK_L1 || mark == L1_MARK_L2)
		assert_true(v->gif);
	assert_int_equal(v->timer, s->timer_ms != 0);
	assert_true(s->marks & mark);
}

/* VMRUN or VMLAUNCH has been executed, and L2 has not begun. */
static void go_to_entry(struct bare *b, const struct scenario *s)
{
	struct nested_view v;

	bare_run_to_entry(b);
	v = bare_view(b);
	assert_true(v.run_pending);
	assert_true(v.in_l2);
	assert_int_equal(v.injected >> 31, s->inject != NO_INJECTION);
}

/* SVM: L1 intercepts the #DB of L2's TF, which is pending now. */
static void owe_step(struct bare *b, enum nested_vendor vendor)
{
	if (vendor == NESTED_SVM) {
		assert_true(bare_trap_pending(b));
		return;
	}
	bare_owe_step(b);
	assert_true(bare_view(b).step_pending);
}

static void need_timer(struct bare *b)
{
	if (bare_view(b).vendor == NESTED_VMX)
		return;
	bare_free(b);
	print_message("SKIPPED: only VMX has a preemption timer\n");
	skip();
}

static unsigned int run_to_end(struct bare *b, const struct scenario *s, unsigned int npt)
{
	unsigned int nr_moves = 0;

	while (bare_run(b) == BARE_MARK) {
		struct nested_view v = bare_view(b);

		check_place(s, bare_value(b), &v);
		if (s->smi && bare_value(b) != BARE_MARK_SMM)
			bare_smi(b);
		if (s->step)
			owe_step(b, v.vendor);
		if (v.in_l2 && npt != mixed_paging.npt)
			assert_int_equal(v.nested_paging, npt);
		if (s->run_pending)
			go_to_entry(b, s);
		(s->late ? bare_move_late : bare_move)(b);
		nr_moves++;
	}
	return nr_moves;
}

static void play(const struct scenario *s, const struct paging *p)
{
	unsigned int nr_moves, expected = 0;
	char append[160];
	struct bare *b;

	snprintf(append, sizeof(append),
		 "l1.mode=points l1.npt=%u l1.marks=%u l1.guests=%u l1.inject=%u l1.rounds=%u "
		 "l1.step=%u l1.timer=%u",
		 p->npt, s->marks, s->nr_guests, s->inject, NR_ROUNDS, s->step, s->timer_ms);
	b = bare_boot(L1_ELF, append, MEMORY_BYTES);
	if (s->timer_ms != 0)
		need_timer(b);
	nr_moves = run_to_end(b, s, p->npt);
	for (unsigned int bits = s->marks; bits; bits &= bits - 1)
		expected += NR_ROUNDS * s->nr_guests * (s->smi ? 2 : 1);
	assert_int_equal(bare_value(b), 0);
	/* An interrupt of L1's own may add an exit, never take one away. */
	assert_true(nr_moves >= expected);
	bare_free(b);
}

/* One test for each kind of paging. */
#define SCENARIO(name, ...)                                         \
	static const struct scenario name##_scenario = __VA_ARGS__; \
	static void name##_with_nested_paging(void **state)         \
	{                                                           \
		(void)state;                                        \
		play(&name##_scenario, &nested_paging);             \
	}                                                           \
	static void name##_with_shadow_paging(void **state)         \
	{                                                           \
		(void)state;                                        \
		play(&name##_scenario, &shadow_paging);             \
	}

SCENARIO(in_l1, {.marks = L1_MARK_L1, .nr_guests = 1})
SCENARIO(in_l2, {.marks = L1_MARK_L2, .nr_guests = 1})
SCENARIO(entry_pending, {.marks = L1_MARK_ENTRY, .nr_guests = 1, .run_pending = true})
SCENARIO(interrupt_to_inject,
	 {.marks = L1_MARK_ENTRY, .nr_guests = 1, .inject = IRQ, .run_pending = true})
SCENARIO(exception_to_inject,
	 {.marks = L1_MARK_ENTRY, .nr_guests = 1, .inject = EXCEPTION, .run_pending = true})
SCENARIO(gif_clear, {.marks = L1_MARK_ENTRY, .nr_guests = 1})
SCENARIO(smi_in_l1, {.marks = L1_MARK_L1, .nr_guests = 1, .smi = true})
SCENARIO(smi_in_l2, {.marks = L1_MARK_L2, .nr_guests = 1, .smi = true})
SCENARIO(step_pending, {.marks = L1_MARK_L2, .nr_guests = 1, .step = true})
SCENARIO(timer_running, {.marks = L1_MARK_L2, .nr_guests = 1, .timer_ms = 2000})
SCENARIO(timer_overdue, {.marks = L1_MARK_L2, .nr_guests = 1, .timer_ms = 50, .late = true})
SCENARIO(intercepted_instruction, {.marks = L1_MARK_EXIT, .nr_guests = 1})
SCENARIO(several_control_blocks, {.marks = L1_MARK_L1 | L1_MARK_L2 | L1_MARK_ENTRY | L1_MARK_EXIT,
				  .nr_guests = 4,
				  .inject = IRQ})

static void everywhere_with_both_kinds_of_paging(void **state)
{
	(void)state;
	play(&several_control_blocks_scenario, &mixed_paging);
}

#define BOTH(name) \
	cmocka_unit_test(name##_with_nested_paging), cmocka_unit_test(name##_with_shadow_paging)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(in_l1),
		BOTH(in_l2),
		BOTH(entry_pending),
		BOTH(interrupt_to_inject),
		BOTH(exception_to_inject),
		BOTH(gif_clear),
		BOTH(smi_in_l1),
		BOTH(smi_in_l2),
		BOTH(step_pending),
		BOTH(timer_running),
		BOTH(timer_overdue),
		BOTH(intercepted_instruction),
		BOTH(several_control_blocks),
		cmocka_unit_test(everywhere_with_both_kinds_of_paging),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
