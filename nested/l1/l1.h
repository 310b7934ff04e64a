/*
 * A hypervisor small enough to read in one sitting: it runs up to L1_MAX_GUESTS guests (L2) on one
 * CPU, on AMD's SVM or Intel's VMX. L1 and L2 share one image and one identity mapped address
 * space; what separates them is what each may do without an exit.
 *
 * It exists to be stopped, saved and moved at awkward moments (points.c), to compute while it moves
 * (work.c), and to measure what an exit costs (bench.c). Ring 0, one thread, general registers
 * only.
 */
#ifndef GODWIT_NESTED_L1_L1_H
#define GODWIT_NESTED_L1_L1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "experiments/guest/workload/workload.h"
#include "nested/l1/l1_ports.h"

#define L1_MAX_GUESTS   4
#define L1_STACK_BYTES  16384
#define L1_TIMER_VECTOR 0x40
#define L1_IPI_VECTOR   0x41
#define L1_ANSWER       0x11a5u /* what L2 gets for whatever it asks */

enum l1_mark {
	L1_MARK_L1 = 1,    /* in L1, between two runs of L2 */
	L1_MARK_L2 = 2,    /* in L2, every general register holds a pattern */
	L1_MARK_ENTRY = 4, /* a few instructions before the entry into L2; SVM: GIF clear */
	L1_MARK_EXIT = 8,  /* right after an exit of L2, before L1 looked at it; SVM: GIF clear */
};

/* L2's registers but for those the hardware switches: rax (SVM), rsp, rip, rflags. The order is
 * known to svm_entry.S and vmx_entry.S. */
struct l2_regs {
	uint64_t rbx, rcx, rdx, rsi, rdi, rbp;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rax; /* VMX only: SVM keeps it in the VMCB */
};

/* Why L2 stopped, in words that both vendors' codes are translated to. */
enum exit_kind {
	EXIT_INTERRUPT, /* for L1: taken by L1's handler before the front end returns */
	EXIT_CPUID,
	EXIT_HYPERCALL,
	EXIT_PORT,
	EXIT_MSR,
	EXIT_HLT,
	EXIT_STEP,       /* #DB or the monitor trap flag: L2 has executed one instruction */
	EXIT_TIMER,      /* VMX: the preemption timer that L1 has set */
	EXIT_PAGE_FAULT, /* of the second level: L2 touched what L1 has not mapped */
	EXIT_FAILED      /* anything else, and entries that the CPU refused */
};

struct l2_exit {
	enum exit_kind kind;
	uint64_t code; /* the vendor's */
	uint64_t gpa;  /* EXIT_PAGE_FAULT */
	bool write;    /* EXIT_MSR */
};

/* One L2. */
struct guest {
	struct l2_regs regs; /* first: the entry code finds it here */
	uint64_t rax, rsp, rip, rflags;
	void *control; /* a page: VMCB or VMCS */
	uint32_t id;   /* from 0 */
	bool nested_paging;
	bool launched;      /* VMX */
	bool interruptible; /* as of the last exit */
	struct l2_exit exit;
	bool tick_pending; /* L1 owes it a timer interrupt */
};

/* An event to go in with the next entry. */
struct injection {
	uint8_t vector;
	bool exception;
	bool has_error;
	uint32_t error;
};

struct front_end {
	const char *name;
	bool vmcall;         /* VMCALL is its hypercall instruction; else VMMCALL */
	const void *msr_map; /* whole pages that only the CPU reads */
	bool (*is_here)(void);
	/* NULL, or what is wrong with this CPU. */
	const char *(*enable)(void);
	/* A control block for a guest that begins at g->rip with g->rsp, in long mode. NULL, or
	 * what the CPU lacks. */
	const char *(*prepare)(struct guest *g);
	/* Until L2's next exit. Interrupts may be off before, and are on afterwards: what comes
	 * while they are off ends L2 at once. */
	void (*run)(struct guest *g);
	void (*inject)(struct guest *g, const struct injection *event);
	/* Each instruction of L2 that does not exit itself is followed by EXIT_STEP from now on.
	 * NULL (VMX, as not every CPU has the monitor trap flag): only those that somebody else
	 * makes KVM owe. */
	void (*step)(struct guest *g);
	/* From the next entry on L2 has @cycles (of L1's TSC) until EXIT_TIMER; 0: no such end.
	 * NULL: SVM has no timer of this kind. */
	void (*timer)(struct guest *g, uint64_t cycles);
	/* Map, or unmap, the 2 MiB of L2's memory around @gpa (nested paging). */
	void (*map)(struct guest *g, uint64_t gpa, bool present);
};

extern const struct front_end svm_front_end, vmx_front_end;

struct l1_options {
	char mode; /* 'w'ork, 'p'oints, 'b'ench */
	uint64_t nr_guests;
	uint64_t npt; /* 0 off, 1 on, 2 every other guest */
	uint64_t marks;
	uint64_t inject; /* points: 0 nothing, 1 an interrupt, 2 an exception */
	uint64_t step;   /* points: L2's marks end by EXIT_STEP */
	uint64_t timer;  /* points: L2 waits behind its mark for EXIT_TIMER, so many ms from its
			    entry */
	uint64_t rounds;
	uint64_t exits; /* bench: ask for the number of L0's exits (nested/l1/l1_exits.h) */
};

struct l1 {
	const struct front_end *cpu;
	struct l1_options options;
	uint32_t nr_guests;
	struct guest guest[L1_MAX_GUESTS];
	struct workload *workload;
	uint64_t delay; /* bench: how far ahead timers are set, in cycles */
	/* written by interrupt handlers */
	volatile uint64_t ticks;
	volatile uint64_t ipis;
	volatile uint64_t timer_tsc; /* when the last timer interrupt was taken */
};

/* What the trap entries hand over (boot.S). */
struct trap {
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* main.c */
_Noreturn void l1_fail(const char *what, uint64_t value);
_Noreturn void l1_done(uint8_t code);
/* A guest that begins at @entry(@argument). */
void l1_new_guest(struct l1 *m, struct guest *g, bool nested_paging, void (*entry)(void *),
		  void *argument);
void l1_mark(struct l1 *m, enum l1_mark mark);
/* In L2's traps: how many of each vector came, and the last error code. */
extern volatile uint64_t l2_trap_count[256];
extern volatile uint64_t l2_trap_error;
extern volatile uint8_t l1_uses_vmcall; /* L2 asks by VMCALL, else by VMMCALL */
extern volatile uint8_t l1_marks;       /* enum l1_mark bits the entry code looks at */

/* work.c, points.c, bench.c */
_Noreturn void l1_work(struct l1 *m);
_Noreturn void l1_points(struct l1 *m);
_Noreturn void l1_bench(struct l1 *m);

#endif
