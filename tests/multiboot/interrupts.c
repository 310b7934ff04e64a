#include "tests/multiboot/machine.h"

#define FIRST_EXTERNAL  32u
#define IDT_ENTRY_BYTES 16    /* of interrupt_entries */
#define TRY_TICKS       3580u /* 1 ms */
#define NR_TRIES        500

struct gate {
	uint16_t offset_low, selector;
	uint16_t flags, offset_high;
};
_Static_assert(sizeof(struct gate) == 8, "Intel SDM volume 3, 6.11");

extern const char interrupt_entries[];

static struct gate idt[256];
struct idt_pointer first_idt;
static volatile uint32_t taken[256];

void interrupts_init(void)
{
	struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint32_t)(uintptr_t)idt};

	for (uint32_t i = 0; i < 256; i++) {
		uint32_t entry = (uint32_t)(uintptr_t)interrupt_entries + i * IDT_ENTRY_BYTES;

		idt[i] = (struct gate){(uint16_t)entry, 8, 0x8e00, (uint16_t)(entry >> 16)};
	}
	__asm__ volatile("sidt %0" : "=m"(first_idt));
	__asm__ volatile("lidt %0" ::"m"(pointer));
}

uint32_t interrupts_taken(uint8_t vector)
{
	return taken[vector];
}

void interrupts_forget(void)
{
	for (uint32_t i = 0; i < 256; i++)
		taken[i] = 0;
}

void on_interrupt(uint32_t vector)
{
	taken[vector]++;
	if (vector < FIRST_EXTERNAL) {
		print("FAIL exception\n");
		outl(0xf4, 2);
	}
	mmio_write(LAPIC + LAPIC_EOI, 0);
}

bool interrupts_arrive(uint8_t vector, uint32_t count)
{
	__asm__ volatile("sti");
	for (int i = 0; taken[vector] < count && i < NR_TRIES; i++)
		pm_timer_wait(TRY_TICKS);
	__asm__ volatile("cli");
	return taken[vector] == count;
}
