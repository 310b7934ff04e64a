/* The privileged instructions L1 and L2 need beyond experiments/guest/workload/machine.h. */
#ifndef GODWIT_NESTED_L1_CPU_H
#define GODWIT_NESTED_L1_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "experiments/guest/workload/machine.h"

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_PAT          0x277u
#define MSR_EFER         0xc0000080u

#define X2APIC_EOI   0x80bu
#define X2APIC_SVR   0x80fu
#define X2APIC_ICR   0x830u
#define X2APIC_TIMER 0x832u

static inline uint64_t rdmsr(uint32_t index)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index) : "memory");
	return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t index, uint64_t value)
{
	__asm__ volatile("wrmsr"
			 :
			 : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
			 : "memory");
}

#define CPU_READ_CR(n)                                                     \
	static inline uint64_t read_cr##n(void)                            \
	{                                                                  \
		uint64_t v;                                                \
		__asm__ volatile("mov %%cr" #n ", %0" : "=r"(v));          \
		return v;                                                  \
	}                                                                  \
	static inline void write_cr##n(uint64_t v)                         \
	{                                                                  \
		__asm__ volatile("mov %0, %%cr" #n : : "r"(v) : "memory"); \
	}

CPU_READ_CR(0)
CPU_READ_CR(3)
CPU_READ_CR(4)

static inline void interrupts_on(void)
{
	__asm__ volatile("sti" ::: "memory");
}

static inline void interrupts_off(void)
{
	__asm__ volatile("cli" ::: "memory");
}

/*
 * Interrupts on, and asleep until one comes: nothing is lost between the two (boot.S). The shadow
 * of STI should see to that. Once, under load in the emulated host, L1 was found asleep behind this
 * HLT with its tick taken; a shadow lost at an exit of L0's would look like that, but was not seen
 * itself. So l1_trap() does not rely on it, and looks for l1_sleep_hlt.
 */
void l1_sleep(void);
extern const char l1_sleep_hlt[], l1_sleep_end[];

/*
 * Instructions of L2 that L1 intercepts. rbx says where L2 goes on: without NRIPS, SVM does not
 * tell how long an instruction was, and this way neither vendor's front end has to know.
 */
/* Version 14 breaks the strings. */
/* clang-format off */
#define L2_ASK(instruction, ...) \
	__asm__ volatile("lea 1f(%%rip), %%rbx; " instruction "; 1:" __VA_ARGS__ : "rbx", "memory")
/* clang-format on */

static inline void l2_cpuid(uint64_t *a, uint64_t *c, uint64_t *d)
{
	L2_ASK("cpuid", : "+a"(*a), "+c"(*c), "+d"(*d) :);
}

static inline void l2_rdmsr(uint64_t *a, uint64_t *c, uint64_t *d)
{
	L2_ASK("rdmsr", : "+a"(*a), "+c"(*c), "+d"(*d) :);
}

static inline void l2_wrmsr(uint32_t index, uint64_t value)
{
	L2_ASK("wrmsr", : : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static inline void l2_out(uint8_t port, uint8_t value)
{
	L2_ASK("outb %0, %1", : : "a"(value), "Nd"((uint16_t)port));
}

static inline void l2_hlt(void)
{
	L2_ASK("hlt", : :);
}

static inline void l2_hypercall(uint64_t *a, bool vmcall)
{
	if (vmcall)
		L2_ASK("vmcall", : "+a"(*a) :);
	else
		L2_ASK("vmmcall", : "+a"(*a) :);
}

#endif
