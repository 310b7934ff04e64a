/* AMD SVM (APM vol. 2, chapter 15): the VMCB, nested page tables, and what #VMEXIT codes mean. */
#include "nested/l1/cpu.h"
#include "nested/l1/l1.h"
#include "nested/vmcb.h"

#define MSR_VM_HSAVE_PA 0xc0010117u
#define EFER_SVME       (1ull << 12)

#define INTERCEPT_DEBUG     (1u << 1) /* of the exceptions: #DB */
#define INTERCEPT1_INTR     (1u << 0)
#define INTERCEPT1_NMI      (1u << 1)
#define INTERCEPT1_CPUID    (1u << 18)
#define INTERCEPT1_HLT      (1u << 24)
#define INTERCEPT1_PORTS    (1u << 27)
#define INTERCEPT1_MSRS     (1u << 28)
#define INTERCEPT1_SHUTDOWN (1u << 31)
#define INTERCEPT2_VMRUN    (1u << 0)
#define INTERCEPT2_VMMCALL  (1u << 1)

#define INT_CTL_MASKING (1u << 24) /* L1's IF, not L2's, holds real interrupts back */
#define TLB_FLUSH_ASID  1u

#define EVENT_VALID     (1ull << 31)
#define EVENT_HAS_ERROR (1ull << 11)
#define EVENT_EXCEPTION (3ull << 8)

#define RFLAGS_TF (1ull << 8)

#define SEGMENT_CODE (0x0a9bull << 16) /* attributes: long mode code, accessed */
#define SEGMENT_DATA (0x0c93ull << 16)

#define PAGE_TABLE_FLAGS 0x67ull
#define LARGE_PAGE_FLAGS 0xe7ull

void svm_enter(uint64_t guest_vmcb, struct l2_regs *regs, uint64_t l1_vmcb);

extern uint64_t l2_pml4[512];
extern uint64_t gdt[5];
extern uint64_t l2_idt[256][2];

#define PAGES(name, n) static uint8_t name[(n)*PAGE_SIZE] __attribute__((aligned(4096)))

PAGES(host_save, 1);
PAGES(l1_vmcb, 1);
PAGES(vmcb, L1_MAX_GUESTS);
PAGES(port_map, 3);
PAGES(msr_map, 2);
static uint64_t npt_root[512] __attribute__((aligned(4096)));
static uint64_t npt_pdpt[512] __attribute__((aligned(4096)));
static uint64_t npt_pd[4][512] __attribute__((aligned(4096)));

static volatile uint64_t *q(struct guest *g, unsigned int offset)
{
	return (volatile uint64_t *)((uint8_t *)g->control + offset);
}

static volatile uint32_t *d(struct guest *g, unsigned int offset)
{
	return (volatile uint32_t *)((uint8_t *)g->control + offset);
}

static bool is_here(void)
{
	return cpuid(0x80000000).eax >= 0x8000000a && (cpuid(0x80000001).ecx & 1u << 2) != 0;
}

/* Nested tables map what L1 has to where L1 has it. The user bit: the CPU walks them as a user. */
static void make_nested_tables(void)
{
	npt_root[0] = pointer_gpa(npt_pdpt) | PAGE_TABLE_FLAGS;
	for (unsigned int i = 0; i < 4; i++) {
		npt_pdpt[i] = pointer_gpa(npt_pd[i]) | PAGE_TABLE_FLAGS;
		for (unsigned int k = 0; k < 512; k++)
			npt_pd[i][k] = ((uint64_t)i << 30 | (uint64_t)k << 21) | LARGE_PAGE_FLAGS;
	}
}

static const char *enable(void)
{
	if (cpuid(0x8000000a).ebx < L1_MAX_GUESTS + 1)
		return "too few address space ids";
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	wrmsr(MSR_VM_HSAVE_PA, pointer_gpa(host_save));
	memset(port_map, 0xff, sizeof(port_map));
	port_map[L1_MARK_PORT / 8] &= (uint8_t) ~(1u << L1_MARK_PORT % 8);
	memset(msr_map, 0xff, sizeof(msr_map));
	make_nested_tables();
	return NULL;
}

static void set_segment(struct guest *g, unsigned int offset, uint64_t selector,
			uint64_t attributes)
{
	*q(g, offset) = selector | attributes | 0xffffffffull << 32;
	*q(g, offset + 8) = 0;
}

static void set_table(struct guest *g, unsigned int offset, const void *table, uint64_t bytes)
{
	*q(g, offset) = (bytes - 1) << 32;
	*q(g, offset + 8) = pointer_gpa(table);
}

static void set_controls(struct guest *g)
{
	*d(g, VMCB_INTERCEPT_MISC1) = INTERCEPT1_INTR | INTERCEPT1_NMI | INTERCEPT1_CPUID |
				      INTERCEPT1_HLT | INTERCEPT1_PORTS | INTERCEPT1_MSRS |
				      INTERCEPT1_SHUTDOWN;
	*d(g, VMCB_INTERCEPT_MISC2) = INTERCEPT2_VMRUN | INTERCEPT2_VMMCALL;
	*q(g, VMCB_IOPM_PA) = pointer_gpa(port_map);
	*q(g, VMCB_MSRPM_PA) = pointer_gpa(msr_map);
	*d(g, VMCB_ASID) = g->id + 1;
	*d(g, VMCB_INT_CTL) = INT_CTL_MASKING;
	*q(g, VMCB_NESTED_CTL) = g->nested_paging;
	*q(g, VMCB_NESTED_CR3) = g->nested_paging ? pointer_gpa(npt_root) : 0;
}

static const char *prepare(struct guest *g)
{
	if (g->nested_paging && (cpuid(0x8000000a).edx & 1) == 0)
		return "no nested paging on this CPU: npt=0";
	g->control = vmcb + g->id * PAGE_SIZE;
	memset(g->control, 0, PAGE_SIZE);
	set_controls(g);
	set_segment(g, VMCB_SAVE_CS, 0x08, SEGMENT_CODE);
	set_segment(g, VMCB_SAVE_DS, 0x10, SEGMENT_DATA);
	set_segment(g, VMCB_SAVE_ES, 0x10, SEGMENT_DATA);
	set_segment(g, VMCB_SAVE_SS, 0x10, SEGMENT_DATA);
	set_table(g, VMCB_SAVE_GDTR, gdt, sizeof(gdt));
	set_table(g, VMCB_SAVE_IDTR, l2_idt, sizeof(l2_idt));
	*q(g, VMCB_SAVE_EFER) = rdmsr(MSR_EFER);
	*q(g, VMCB_SAVE_CR0) = read_cr0();
	*q(g, VMCB_SAVE_CR3) = pointer_gpa(l2_pml4);
	*q(g, VMCB_SAVE_CR4) = read_cr4();
	*q(g, VMCB_SAVE_DR6) = 0xffff0ff0;
	*q(g, VMCB_SAVE_DR7) = 0x400;
	*q(g, VMCB_SAVE_G_PAT) = rdmsr(MSR_PAT);
	return NULL;
}

static enum exit_kind kind_of(uint64_t code)
{
	switch (code) {
	case 0x41: /* #DB */
		return EXIT_STEP;
	case 0x60:
	case 0x61:
		return EXIT_INTERRUPT;
	case 0x72:
		return EXIT_CPUID;
	case 0x78:
		return EXIT_HLT;
	case 0x7b:
		return EXIT_PORT;
	case 0x7c:
		return EXIT_MSR;
	case 0x81:
		return EXIT_HYPERCALL;
	case 0x400:
		return EXIT_PAGE_FAULT;
	default:
		return EXIT_FAILED;
	}
}

static void run(struct guest *g)
{
	*q(g, VMCB_SAVE_RAX) = g->rax;
	*q(g, VMCB_SAVE_RSP) = g->rsp;
	*q(g, VMCB_SAVE_RIP) = g->rip;
	*q(g, VMCB_SAVE_RFLAGS) = g->rflags;
	svm_enter(pointer_gpa(g->control), &g->regs, pointer_gpa(l1_vmcb));
	g->rax = *q(g, VMCB_SAVE_RAX);
	g->rsp = *q(g, VMCB_SAVE_RSP);
	g->rip = *q(g, VMCB_SAVE_RIP);
	g->rflags = *q(g, VMCB_SAVE_RFLAGS);
	g->interruptible = (g->rflags & 1u << 9) != 0 && (*q(g, VMCB_INT_STATE) & 1) == 0 &&
			   (*q(g, VMCB_EXIT_INT_INFO) & EVENT_VALID) == 0;
	/* An event whose delivery the exit interrupted goes in again. */
	*q(g, VMCB_EVENT_INJ) =
		*q(g, VMCB_EXIT_INT_INFO) & EVENT_VALID ? *q(g, VMCB_EXIT_INT_INFO) : 0;
	*d(g, VMCB_TLB_CONTROL) = 0;
	g->exit.code = *q(g, VMCB_EXIT_CODE);
	g->exit.kind = kind_of(g->exit.code);
	g->exit.gpa = *q(g, VMCB_EXIT_INFO2);
	g->exit.write = *q(g, VMCB_EXIT_INFO1) & 1;
}

static void inject(struct guest *g, const struct injection *event)
{
	*q(g, VMCB_EVENT_INJ) =
		event->vector | EVENT_VALID | (event->exception ? EVENT_EXCEPTION : 0) |
		(event->has_error ? EVENT_HAS_ERROR : 0) | (uint64_t)event->error << 32;
}

static void step(struct guest *g)
{
	*d(g, VMCB_INTERCEPT_EXCEPTION) |= INTERCEPT_DEBUG;
	g->rflags |= RFLAGS_TF;
}

static void map(struct guest *g, uint64_t gpa, bool present)
{
	npt_pd[gpa >> 30 & 3][gpa >> 21 & 511] =
		present ? (gpa & ~0x1fffffull) | LARGE_PAGE_FLAGS : 0;
	*d(g, VMCB_TLB_CONTROL) = TLB_FLUSH_ASID;
}

const struct front_end svm_front_end = {
	.name = "svm",
	.msr_map = msr_map,
	.is_here = is_here,
	.enable = enable,
	.prepare = prepare,
	.run = run,
	.inject = inject,
	.step = step,
	.map = map,
};
