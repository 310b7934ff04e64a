/* From boot to one of three things to do; traps; the little that L1 and L2 share. */
#include "experiments/guest/workload/tsc.h"
#include "nested/l1/cpu.h"
#include "nested/l1/l1.h"
#include "nested/l1/marks.h"

_Static_assert(MARK_PORT == L1_MARK_PORT && MARK_L2 == L1_MARK_L2 && MARK_ENTRY == L1_MARK_ENTRY &&
		       MARK_EXIT == L1_MARK_EXIT,
	       "assembly knows the same marks");

extern char bss_start[], bss_end[];
extern char l1_traps[], l2_traps[];

void l1_main(uint64_t start_info_gpa);
void l1_trap(struct trap *t);
void l2_trap(struct trap *t);

uint64_t l1_idt[256][2];
uint64_t l2_idt[256][2];
volatile uint64_t l2_trap_count[256];
volatile uint64_t l2_trap_error;
volatile uint8_t l1_marks;
volatile uint8_t l1_uses_vmcall;

static struct workload workload;
static struct l1 machine = {.workload = &workload};
static uint8_t l2_stack[L1_MAX_GUESTS][L1_STACK_BYTES] __attribute__((aligned(16)));

void *memset(void *s, int c, size_t n)
{
	void *to = s;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
	return s;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *d = to;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(n) : : "memory");
	return to;
}

_Noreturn void l1_done(uint8_t code)
{
	console_flush(&workload.console);
	out8(L1_DONE_PORT, code);
	interrupts_off();
	for (;;)
		__asm__ volatile("hlt");
}

_Noreturn void l1_fail(const char *what, uint64_t value)
{
	struct console *c = &workload.console;

	interrupts_off();
	console_text(c, "\nl1: FAILED: ");
	console_text(c, what);
	console_key_hex(c, "value", value);
	console_text(c, "\n");
	if (workload.report != NULL)
		workload.report->state = GUEST_STATE_FAILED;
	l1_done(1);
}

/* ---- Traps ---- */

/* An interrupt right before the HLT it was to end has ended it. */
static void end_sleep(struct trap *t)
{
	if (t->rip == (uint64_t)(uintptr_t)l1_sleep_hlt)
		t->rip = (uint64_t)(uintptr_t)l1_sleep_end;
}

void l1_trap(struct trap *t)
{
	end_sleep(t);
	switch (t->vector) {
	case L1_TIMER_VECTOR:
		machine.timer_tsc = rdtsc();
		machine.ticks++;
		wrmsr(X2APIC_EOI, 0);
		return;
	case L1_IPI_VECTOR:
		machine.ipis++;
		wrmsr(X2APIC_EOI, 0);
		return;
	default:
		console_key(&workload.console, "trap in L1: vector", t->vector);
		l1_fail("trap at", t->rip);
	}
}

/* On L2's stack, in L2. There is no interrupt controller to answer. */
void l2_trap(struct trap *t)
{
	l2_trap_count[t->vector]++;
	l2_trap_error = t->error;
}

static void set_gates(uint64_t idt[256][2], const char *entries)
{
	for (unsigned int v = 0; v < 256; v++) {
		uint64_t address = pointer_gpa(entries + v * 16);

		idt[v][0] = (address & 0xffff) | 0x08ull << 16 | 0x8e00ull << 32 |
			    (address >> 16 & 0xffff) << 48;
		idt[v][1] = address >> 32;
	}
}

static void load_idt(void)
{
	struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} pointer = {sizeof(l1_idt) - 1, pointer_gpa(l1_idt)};

	__asm__ volatile("lidt %0" : : "m"(pointer));
}

/* x2APIC mode: registers are MSRs, and L2's accesses are MSR exits. */
static void enable_apic(void)
{
	if ((cpuid(1).ecx & 1u << 21) == 0 || (cpuid(1).ecx & 1u << 24) == 0)
		l1_fail("no x2APIC with TSC deadline on this CPU; CPUID 1 ECX", cpuid(1).ecx);
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 3u << 10);
	wrmsr(X2APIC_SVR, 0x1ff);
	wrmsr(X2APIC_TIMER, 2u << 17 | L1_TIMER_VECTOR);
}

/* ---- Options: "l1.NAME=VALUE" words are L1's, the rest the workload's ---- */

static uint64_t number(const char *s)
{
	uint64_t n = 0;

	while (*s >= '0' && *s <= '9')
		n = n * 10 + (uint64_t)(*s++ - '0');
	return n;
}

static const char *match(const char *word, const char *name)
{
	while (*name != '\0')
		if (*word++ != *name++)
			return NULL;
	return word;
}

static void take_word(struct l1_options *o, const char *word)
{
	const struct {
		const char *name;
		uint64_t *value;
	} numbers[] = {
		{"l1.guests=", &o->nr_guests}, {"l1.npt=", &o->npt},       {"l1.marks=", &o->marks},
		{"l1.inject=", &o->inject},    {"l1.rounds=", &o->rounds}, {"l1.exits=", &o->exits},
		{"l1.step=", &o->step},        {"l1.timer=", &o->timer},
	};
	const char *value = match(word, "l1.mode=");

	if (value != NULL) {
		o->mode = *value;
		return;
	}
	for (unsigned int i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		value = match(word, numbers[i].name);
		if (value != NULL) {
			*numbers[i].value = number(value);
			return;
		}
	}
	l1_fail("unknown l1. option", (uint64_t)word[3]);
}

/* Words that were taken become blanks. */
static void take_options(struct l1_options *o, char *cmdline)
{
	*o = (struct l1_options){.mode = 'w', .nr_guests = 2, .npt = 2, .rounds = 3};
	for (char *p = cmdline; *p != '\0';) {
		bool ours = match(p, "l1.") != NULL;

		if (ours)
			take_word(o, p);
		for (; *p != '\0' && *p != ' '; p++)
			if (ours)
				*p = ' ';
		while (*p == ' ')
			p++;
	}
	if (o->nr_guests < 1 || o->nr_guests > L1_MAX_GUESTS)
		l1_fail("l1.guests: 1 to 4, not", o->nr_guests);
}

/* ---- What the three modes share ---- */

void l1_mark(struct l1 *m, enum l1_mark mark)
{
	if (m->options.marks & (uint64_t)mark)
		out8(L1_MARK_PORT, (uint8_t)mark);
}

void l1_new_guest(struct l1 *m, struct guest *g, bool nested_paging, void (*entry)(void *),
		  void *argument)
{
	const char *problem;

	*g = (struct guest){.id = (uint32_t)(g - m->guest), .nested_paging = nested_paging};
	g->rip = (uint64_t)(uintptr_t)entry;
	/* As after a call: 8 below a multiple of 16. */
	g->rsp = pointer_gpa(l2_stack[g->id] + L1_STACK_BYTES - 8);
	g->rflags = 0x202;
	g->regs.rdi = pointer_gpa(argument);
	problem = m->cpu->prepare(g);
	if (problem != NULL)
		l1_fail(problem, g->id);
}

static void find_cpu(struct l1 *m)
{
	const struct front_end *all[] = {&svm_front_end, &vmx_front_end};
	const char *problem;

	for (unsigned int i = 0; i < 2 && m->cpu == NULL; i++)
		if (all[i]->is_here())
			m->cpu = all[i];
	if (m->cpu == NULL)
		l1_fail("neither SVM nor VMX here: --nested on; CPUID 1 ECX", cpuid(1).ecx);
	l1_uses_vmcall = m->cpu->vmcall;
	problem = m->cpu->enable();
	if (problem != NULL)
		l1_fail(problem, 0);
}

void l1_main(uint64_t start_info_gpa)
{
	struct l1 *m = &machine;
	const char *problem;

	memset(bss_start, 0, (size_t)(bss_end - bss_start)); /* after a reset it is not clear */
	console_init(&workload.console);
	set_gates(l1_idt, l1_traps);
	set_gates(l2_idt, l2_traps);
	load_idt();
	problem = memory_read_start_info(&workload.memory, start_info_gpa);
	if (problem != NULL)
		l1_fail(problem, 0);
	take_options(&m->options, workload.memory.cmdline);
	m->nr_guests = (uint32_t)m->options.nr_guests;
	find_cpu(m);
	enable_apic();
	interrupts_on();
	switch (m->options.mode) {
	case 'p':
		l1_points(m);
	case 'b':
		l1_bench(m);
	default:
		l1_work(m);
	}
}
