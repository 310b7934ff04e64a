/*
 * What checks.c needs of the bare machine: ports, registers of the interrupt controllers, polled
 * serial output, fw_cfg, ACPI's fixed table. One CPU runs all of this; the others only count
 * themselves. Addresses are those of QEMU's "pc" board.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FW_CFG_SIGNATURE 0x00
#define FW_CFG_RAM_SIZE  0x03
#define FW_CFG_NR_CPUS   0x05

#define IOAPIC      0xfec00000u
#define LAPIC       0xfee00000u
#define HPET        0xfed00000u
#define TEST_MEMORY 0xff000000u

#define LAPIC_ID       0x020
#define LAPIC_VERSION  0x030
#define LAPIC_EOI      0x0b0
#define LAPIC_SPURIOUS 0x0f0
#define LAPIC_ICR_LOW  0x300
#define LAPIC_ICR_HIGH 0x310

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint16_t inw(uint16_t port)
{
	uint16_t value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint32_t mmio_read(uint32_t address)
{
	return *(volatile uint32_t *)(uintptr_t)address;
}

static inline void mmio_write(uint32_t address, uint32_t value)
{
	*(volatile uint32_t *)(uintptr_t)address = value;
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint64_t value;

	__asm__ volatile("rdmsr" : "=A"(value) : "c"(msr));
	return value;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" ::"c"(msr), "A"(value));
}

static inline uint32_t cpuid_ecx(uint32_t leaf)
{
	uint32_t a = leaf, b, c = 0, d;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return c;
}

/* The serial port at 0x3f8, waiting for each character to be taken. */
void serial_init(void);
void print(const char *text);

bool equal(const char *a, const char *b, size_t n);
uint64_t fw_cfg(uint16_t key, uint32_t bytes);
uint8_t cmos(uint8_t reg);
void set_cmos(uint8_t reg, uint8_t value);

/* The I/O port of the PM timer as the FADT has it; 0: no FADT was found. */
uint32_t acpi_pm_timer_port(void);
/* What sleeping takes: the FACS's waking vector and the PM1a blocks. The machine has a FADT. */
struct acpi_sleep {
	uint32_t *waking_vector;
	uint16_t event_port, control_port;
};
struct acpi_sleep acpi_find_sleep(void);
/* Let @ticks of the PM timer (3.579545 MHz) pass. */
void pm_timer_wait(uint32_t ticks);

/* interrupts.c: an IDT in which every vector counts itself and, if it came through the LAPIC,
 * acknowledges. */
void interrupts_init(void);

/* The interrupt table that this machine began with. */
struct idt_pointer {
	uint16_t limit;
	uint32_t base;
} __attribute__((packed));
extern struct idt_pointer first_idt;
uint32_t interrupts_taken(uint8_t vector);
void interrupts_forget(void);
/* Whether @count interrupts of @vector arrive, with interrupts on, within half a second. */
bool interrupts_arrive(uint8_t vector, uint32_t count);
void on_interrupt(uint32_t vector);
