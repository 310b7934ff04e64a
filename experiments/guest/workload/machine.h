/*
 * The instructions the workload guest needs beyond C, all usable in ring 3, and the
 * compiler barrier that orders stores (the hardware, being TSO, keeps that order).
 */
#ifndef GODWIT_EXPERIMENTS_GUEST_WORKLOAD_MACHINE_H
#define GODWIT_EXPERIMENTS_GUEST_WORKLOAD_MACHINE_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE 4096ull
#define barrier() __asm__ volatile("" ::: "memory")

static inline void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static inline void cpu_pause(void)
{
	__asm__ volatile("pause" ::: "memory");
}

struct cpuid_regs {
	uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid_regs cpuid(uint32_t leaf)
{
	struct cpuid_regs r;

	__asm__ volatile("cpuid"
			 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
			 : "a"(leaf), "c"(0));
	return r;
}

extern volatile uint32_t halt_wanted;

/* Stops this vCPU for good: the exception leads to ring 0, which sees the flag (boot.S). */
_Noreturn static inline void cpu_halt(void)
{
	halt_wanted = 1;
	for (;;)
		__asm__ volatile("ud2" ::: "memory");
}

/* Identity mapped: a guest-physical address is a pointer. */
static inline void *gpa_pointer(uint64_t gpa)
{
	return (void *)(uintptr_t)gpa;
}

static inline uint64_t pointer_gpa(const volatile void *p)
{
	return (uint64_t)(uintptr_t)p;
}

/* The compiler emits calls to these. */
void *memset(void *s, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);

#endif
