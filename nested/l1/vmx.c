/* Intel VMX (SDM vol. 3C, chapters 24 to 30): the VMCS, EPT, and what exit reasons mean. */
#include "nested/l1/cpu.h"
#include "nested/l1/l1.h"

#define MSR_FEATURE_CONTROL 0x3au
#define MSR_VMX_BASIC       0x480u
#define MSR_VMX_PIN         0x481u
#define MSR_VMX_PROC        0x482u
#define MSR_VMX_EXIT        0x483u
#define MSR_VMX_ENTRY       0x484u
#define MSR_VMX_MISC        0x485u
#define MSR_VMX_CR0_FIXED0  0x486u
#define MSR_VMX_CR4_FIXED0  0x488u
#define MSR_VMX_SECONDARY   0x48bu
#define MSR_VMX_EPT         0x48cu
#define FEATURE_LOCKED      1ull
#define FEATURE_VMXON       4ull
#define CR4_VMXE            (1ull << 13)
#define BASIC_TRUE_CONTROLS (1ull << 55)
#define TRUE_CONTROLS       12u /* 0x48d is the "true" 0x481, and so on */

#define PIN_INTERRUPTS  (1u << 0)
#define PIN_NMI         (1u << 3)
#define PIN_TIMER       (1u << 6)
#define PROC_HLT        (1u << 7)
#define PROC_ALL_PORTS  (1u << 24)
#define PROC_PORT_MAPS  (1u << 25)
#define PROC_MSR_MAPS   (1u << 28)
#define PROC_SECONDARY  (1u << 31)
#define SECONDARY_EPT   (1u << 1)
#define EXIT_HOST_64BIT (1u << 9)
#define EXIT_SAVE_TIMER (1u << 22)
#define ENTRY_64BIT     (1u << 9)

#define EPT_TABLE_FLAGS 0x7ull
#define EPT_PAGE_FLAGS  0xb7ull /* read, write, execute, write-back, large */
#define EPT_POINTER     0x1eull /* write-back, four levels */

#define RIGHTS_CODE     0xa09bu
#define RIGHTS_DATA     0xc093u
#define RIGHTS_TSS      0x008bu
#define RIGHTS_UNUSABLE 0x10000u

#define EVENT_VALID     (1u << 31)
#define EVENT_HAS_ERROR (1u << 11)
#define EVENT_EXCEPTION (3u << 8)

/* VMCS fields (SDM vol. 3D, appendix B). */
enum field {
	GUEST_ES = 0x800,
	GUEST_CS = 0x802,
	GUEST_SS = 0x804,
	GUEST_DS = 0x806,
	GUEST_FS = 0x808,
	GUEST_GS = 0x80a,
	GUEST_LDTR = 0x80c,
	GUEST_TR = 0x80e,
	HOST_ES = 0xc00,
	HOST_CS = 0xc02,
	HOST_SS = 0xc04,
	HOST_DS = 0xc06,
	HOST_TR = 0xc0c,
	PORT_MAP_A = 0x2000,
	PORT_MAP_B = 0x2002,
	MSR_MAP = 0x2004,
	EPT_POINTER_FIELD = 0x201a,
	EXIT_GPA = 0x2400,
	LINK_POINTER = 0x2800,
	GUEST_DEBUGCTL = 0x2802,
	PIN_CONTROLS = 0x4000,
	PROC_CONTROLS = 0x4002,
	EXCEPTION_BITMAP = 0x4004,
	EXIT_CONTROLS = 0x400c,
	ENTRY_CONTROLS = 0x4012,
	ENTRY_EVENT = 0x4016,
	ENTRY_ERROR = 0x4018,
	SECONDARY_CONTROLS = 0x401e,
	INSTRUCTION_ERROR = 0x4400,
	EXIT_REASON = 0x4402,
	VECTORING_EVENT = 0x4408,
	VECTORING_ERROR = 0x440a,
	GUEST_LIMITS = 0x4800, /* ES, CS, SS, DS, FS, GS, LDTR, TR: two apart */
	GUEST_GDTR_LIMIT = 0x4810,
	GUEST_IDTR_LIMIT = 0x4812,
	GUEST_RIGHTS = 0x4814, /* the same eight */
	GUEST_BLOCKING = 0x4824,
	GUEST_TIMER = 0x482e,
	HOST_SYSENTER_CS = 0x4c00,
	GUEST_CR0 = 0x6800,
	GUEST_CR3 = 0x6802,
	GUEST_CR4 = 0x6804,
	GUEST_TR_BASE = 0x6814,
	GUEST_GDTR_BASE = 0x6816,
	GUEST_IDTR_BASE = 0x6818,
	GUEST_DR7 = 0x681a,
	GUEST_RSP = 0x681c,
	GUEST_RIP = 0x681e,
	GUEST_RFLAGS = 0x6820,
	HOST_CR0 = 0x6c00,
	HOST_CR3 = 0x6c02,
	HOST_CR4 = 0x6c04,
	HOST_TR_BASE = 0x6c0a,
	HOST_GDTR_BASE = 0x6c0c,
	HOST_IDTR_BASE = 0x6c0e,
	HOST_RIP = 0x6c16
};

bool vmx_enter(struct l2_regs *regs, bool launched);

extern char vmx_exit[];
extern uint64_t l2_pml4[512];
extern uint64_t gdt[5];
extern uint8_t tss[104];
extern uint64_t l1_idt[256][2], l2_idt[256][2];

#define PAGES(name, n) static uint8_t name[(n)*PAGE_SIZE] __attribute__((aligned(4096)))

PAGES(vmxon_region, 1);
PAGES(vmcs, L1_MAX_GUESTS);
PAGES(port_map, 2);
PAGES(msr_map, 1);
static uint64_t ept_root[512] __attribute__((aligned(4096)));
static uint64_t ept_pdpt[512] __attribute__((aligned(4096)));
static uint64_t ept_pd[4][512] __attribute__((aligned(4096)));

static void write_field(enum field field, uint64_t value)
{
	uint8_t failed;

	__asm__ volatile("vmwrite %2, %1; setbe %0"
			 : "=qm"(failed)
			 : "r"((uint64_t)field), "rm"(value)
			 : "cc", "memory");
	if (failed)
		l1_fail("VMWRITE of field", field);
}

static uint64_t read_field(enum field field)
{
	uint64_t value;

	__asm__ volatile("vmread %1, %0" : "=rm"(value) : "r"((uint64_t)field) : "cc", "memory");
	return value;
}

static bool is_here(void)
{
	return (cpuid(1).ecx & 1u << 5) != 0;
}

static void make_ept(void)
{
	ept_root[0] = pointer_gpa(ept_pdpt) | EPT_TABLE_FLAGS;
	for (unsigned int i = 0; i < 4; i++) {
		ept_pdpt[i] = pointer_gpa(ept_pd[i]) | EPT_TABLE_FLAGS;
		for (unsigned int k = 0; k < 512; k++)
			ept_pd[i][k] = ((uint64_t)i << 30 | (uint64_t)k << 21) | EPT_PAGE_FLAGS;
	}
}

static const char *enable(void)
{
	uint64_t control = rdmsr(MSR_FEATURE_CONTROL);
	uint64_t gpa = pointer_gpa(vmxon_region);
	uint8_t failed;

	if ((control & FEATURE_LOCKED) == 0)
		wrmsr(MSR_FEATURE_CONTROL, control | FEATURE_LOCKED | FEATURE_VMXON);
	else if ((control & FEATURE_VMXON) == 0)
		return "the firmware has locked VMX off (IA32_FEATURE_CONTROL)";
	write_cr0(read_cr0() | rdmsr(MSR_VMX_CR0_FIXED0));
	write_cr4(read_cr4() | rdmsr(MSR_VMX_CR4_FIXED0) | CR4_VMXE);
	*(uint32_t *)vmxon_region = (uint32_t)rdmsr(MSR_VMX_BASIC) & 0x7fffffff;
	__asm__ volatile("vmxon %1; setbe %0" : "=qm"(failed) : "m"(gpa) : "cc", "memory");
	if (failed)
		return "VMXON failed";
	memset(port_map, 0xff, sizeof(port_map));
	port_map[L1_MARK_PORT / 8] &= (uint8_t) ~(1u << L1_MARK_PORT % 8);
	memset(msr_map, 0xff, sizeof(msr_map)); /* every MSR exits */
	make_ept();
	return NULL;
}

static void make_current(struct guest *g)
{
	uint64_t gpa = pointer_gpa(g->control);
	uint8_t failed;

	__asm__ volatile("vmptrld %1; setbe %0" : "=qm"(failed) : "m"(gpa) : "cc", "memory");
	if (failed)
		l1_fail("VMPTRLD of guest", g->id);
}

/* What we want, what must be, and nothing that may not be. */
static uint32_t controls(uint32_t msr, uint32_t wanted)
{
	bool has_true = (rdmsr(MSR_VMX_BASIC) & BASIC_TRUE_CONTROLS) != 0 && msr <= MSR_VMX_ENTRY;
	uint64_t allowed = rdmsr(has_true ? msr + TRUE_CONTROLS : msr);
	uint32_t value = (wanted | (uint32_t)allowed) & (uint32_t)(allowed >> 32);

	if ((value & wanted) != wanted)
		l1_fail("VMX lacks a control of MSR", msr);
	return value;
}

static void set_controls(struct guest *g)
{
	uint32_t proc =
		PROC_HLT | PROC_PORT_MAPS | PROC_MSR_MAPS | (g->nested_paging ? PROC_SECONDARY : 0);

	write_field(PIN_CONTROLS, controls(MSR_VMX_PIN, PIN_INTERRUPTS | PIN_NMI));
	write_field(PROC_CONTROLS, controls(MSR_VMX_PROC, proc));
	if (g->nested_paging) {
		write_field(SECONDARY_CONTROLS, controls(MSR_VMX_SECONDARY, SECONDARY_EPT));
		write_field(EPT_POINTER_FIELD, pointer_gpa(ept_root) | EPT_POINTER);
	}
	write_field(EXIT_CONTROLS, controls(MSR_VMX_EXIT, EXIT_HOST_64BIT));
	write_field(ENTRY_CONTROLS, controls(MSR_VMX_ENTRY, ENTRY_64BIT));
	write_field(EXCEPTION_BITMAP, 0);
	write_field(PORT_MAP_A, pointer_gpa(port_map));
	write_field(PORT_MAP_B, pointer_gpa(port_map + PAGE_SIZE));
	write_field(MSR_MAP, pointer_gpa(msr_map));
	write_field(LINK_POINTER, UINT64_MAX);
}

static void set_host(void)
{
	write_field(HOST_CR0, read_cr0());
	write_field(HOST_CR3, read_cr3());
	write_field(HOST_CR4, read_cr4());
	write_field(HOST_CS, 0x08);
	write_field(HOST_SS, 0x10);
	write_field(HOST_DS, 0x10);
	write_field(HOST_ES, 0x10);
	write_field(HOST_TR, 0x18);
	write_field(HOST_TR_BASE, pointer_gpa(tss));
	write_field(HOST_GDTR_BASE, pointer_gpa(gdt));
	write_field(HOST_IDTR_BASE, pointer_gpa(l1_idt));
	write_field(HOST_RIP, pointer_gpa(vmx_exit));
}

static void set_segments(void)
{
	static const struct {
		uint16_t selector, limit_and_rights; /* index of the eight */
		uint32_t limit, rights;
	} segments[] = {
		{0x10, 0, 0xffffffff, RIGHTS_DATA}, {0x08, 1, 0xffffffff, RIGHTS_CODE},
		{0x10, 2, 0xffffffff, RIGHTS_DATA}, {0x10, 3, 0xffffffff, RIGHTS_DATA},
		{0, 4, 0xffff, RIGHTS_UNUSABLE},    {0, 5, 0xffff, RIGHTS_UNUSABLE},
		{0, 6, 0xffff, RIGHTS_UNUSABLE},    {0x18, 7, 103, RIGHTS_TSS},
	};

	for (unsigned int i = 0; i < 8; i++) {
		unsigned int at = 2u * segments[i].limit_and_rights;

		write_field((enum field)(GUEST_ES + at), segments[i].selector);
		write_field((enum field)(GUEST_LIMITS + at), segments[i].limit);
		write_field((enum field)(GUEST_RIGHTS + at), segments[i].rights);
	}
	write_field(GUEST_TR_BASE, pointer_gpa(tss));
	write_field(GUEST_GDTR_BASE, pointer_gpa(gdt));
	write_field(GUEST_GDTR_LIMIT, sizeof(gdt) - 1);
	write_field(GUEST_IDTR_BASE, pointer_gpa(l2_idt));
	write_field(GUEST_IDTR_LIMIT, sizeof(l2_idt) - 1);
}

static bool has_ept(void)
{
	if ((rdmsr(MSR_VMX_PROC) >> 32 & PROC_SECONDARY) == 0)
		return false;
	/* Four levels, write-back, 2 MiB pages. */
	return (rdmsr(MSR_VMX_SECONDARY) >> 32 & SECONDARY_EPT) != 0 &&
	       (~rdmsr(MSR_VMX_EPT) & (1ull << 6 | 1ull << 14 | 1ull << 16)) == 0;
}

static const char *prepare(struct guest *g)
{
	uint64_t gpa;

	if (g->nested_paging && !has_ept())
		return "no EPT on this CPU: npt=0";
	g->control = vmcs + g->id * PAGE_SIZE;
	memset(g->control, 0, PAGE_SIZE);
	*(uint32_t *)g->control = (uint32_t)rdmsr(MSR_VMX_BASIC) & 0x7fffffff;
	gpa = pointer_gpa(g->control);
	__asm__ volatile("vmclear %0" : : "m"(gpa) : "cc", "memory");
	make_current(g);
	set_controls(g);
	set_host();
	set_segments();
	write_field(GUEST_CR0, read_cr0());
	write_field(GUEST_CR3, pointer_gpa(l2_pml4));
	write_field(GUEST_CR4, read_cr4());
	write_field(GUEST_DR7, 0x400);
	write_field(GUEST_DEBUGCTL, 0);
	return NULL;
}

static enum exit_kind kind_of(uint64_t reason)
{
	switch (reason) {
	case 0: /* an NMI: for L1 as well */
	case 1:
		return EXIT_INTERRUPT;
	case 10:
		return EXIT_CPUID;
	case 12:
		return EXIT_HLT;
	case 18:
		return EXIT_HYPERCALL;
	case 30:
		return EXIT_PORT;
	case 31:
	case 32:
		return EXIT_MSR;
	case 37:
		return EXIT_STEP;
	case 48:
		return EXIT_PAGE_FAULT;
	case 52:
		return EXIT_TIMER;
	default:
		return EXIT_FAILED;
	}
}

/* An event whose delivery the exit interrupted goes in again. */
static void keep_event(struct guest *g)
{
	uint64_t event = read_field(VECTORING_EVENT);

	g->interruptible = (g->rflags & 1u << 9) != 0 && (read_field(GUEST_BLOCKING) & 3) == 0 &&
			   (event & EVENT_VALID) == 0;
	if ((event & EVENT_VALID) == 0)
		return;
	write_field(ENTRY_EVENT, event & ~(1ull << 12));
	if (event & EVENT_HAS_ERROR)
		write_field(ENTRY_ERROR, read_field(VECTORING_ERROR));
}

static void run(struct guest *g)
{
	make_current(g);
	write_field(GUEST_RSP, g->rsp);
	write_field(GUEST_RIP, g->rip);
	write_field(GUEST_RFLAGS, g->rflags);
	g->regs.rax = g->rax;
	if (!vmx_enter(&g->regs, g->launched))
		l1_fail("VM entry refused; error", read_field(INSTRUCTION_ERROR));
	g->launched = true;
	g->rax = g->regs.rax;
	g->rsp = read_field(GUEST_RSP);
	g->rip = read_field(GUEST_RIP);
	g->rflags = read_field(GUEST_RFLAGS);
	g->exit.code = read_field(EXIT_REASON);
	g->exit.kind = kind_of(g->exit.code);
	g->exit.gpa = read_field(EXIT_GPA);
	g->exit.write = g->exit.code == 32;
	keep_event(g);
}

static void inject(struct guest *g, const struct injection *event)
{
	make_current(g);
	write_field(ENTRY_EVENT, event->vector | EVENT_VALID |
					 (event->exception ? EVENT_EXCEPTION : 0) |
					 (event->has_error ? EVENT_HAS_ERROR : 0));
	write_field(ENTRY_ERROR, event->error);
}

/* Each exit saves what is left of it, for the next entry. */
static void set_timer(struct guest *g, uint64_t cycles)
{
	uint32_t pin = cycles != 0 ? PIN_TIMER : 0, exit = cycles != 0 ? EXIT_SAVE_TIMER : 0;

	make_current(g);
	write_field(PIN_CONTROLS, controls(MSR_VMX_PIN, PIN_INTERRUPTS | PIN_NMI | pin));
	write_field(EXIT_CONTROLS, controls(MSR_VMX_EXIT, EXIT_HOST_64BIT | exit));
	write_field(GUEST_TIMER, cycles >> (rdmsr(MSR_VMX_MISC) & 31));
}

static void map(struct guest *g, uint64_t gpa, bool present)
{
	const struct {
		uint64_t root, zero;
	} context = {pointer_gpa(ept_root) | EPT_POINTER, 0};

	(void)g;
	ept_pd[gpa >> 30 & 3][gpa >> 21 & 511] =
		present ? (gpa & ~0x1fffffull) | EPT_PAGE_FLAGS : 0;
	__asm__ volatile("invept %0, %1" : : "m"(context), "r"(1ull) : "cc", "memory");
}

const struct front_end vmx_front_end = {
	.name = "vmx",
	.vmcall = true,
	.msr_map = msr_map,
	.is_here = is_here,
	.enable = enable,
	.prepare = prepare,
	.run = run,
	.inject = inject,
	.timer = set_timer,
	.map = map,
};
