/* Starting the other vCPUs: INIT and SIPI through the local APIC, one at a time. */
#include "experiments/guest/workload/machine.h"
#include "experiments/guest/workload/workload.h"

#define TRAMPOLINE_GPA 0x8000ull /* conventional memory, free after start_info has been read */
#define APIC_GPA       0xfee00000ull
#define APIC_ICR_LOW   0x300
#define APIC_ICR_HIGH  0x310
#define ICR_INIT       0x4500u
#define ICR_SIPI       0x4600u
#define STACK_BYTES    8192ull
#define WAIT_INIT_US   100
#define WAIT_SIPI_US   20000
#define NR_SIPIS       50 /* a second in all: patience for slow hosts */

extern char ap_trampoline[], ap_trampoline_end[];
extern volatile uint32_t ap_index, ap_stack;

static void apic_write(uint32_t reg, uint32_t value)
{
	*(volatile uint32_t *)gpa_pointer(APIC_GPA + reg) = value;
}

static void send_ipi(unsigned int index, uint32_t command)
{
	apic_write(APIC_ICR_HIGH, index << 24);
	apic_write(APIC_ICR_LOW, command);
}

static void wait_us(const struct workload *w, uint64_t us)
{
	uint64_t end = rdtsc() + us * w->report->tsc_khz / 1000;

	while (rdtsc() < end)
		cpu_pause();
}

static bool is_up(const struct workload *w, unsigned int index, uint64_t us)
{
	uint64_t end = rdtsc() + us * w->report->tsc_khz / 1000;

	while (w->report->cpu[index].state == 0 && rdtsc() < end)
		cpu_pause();
	return w->report->cpu[index].state != 0;
}

/* APIC ids are taken to be 0, 1, 2, ... as every VMM hands them out to one socket of single cores.
 */
bool smp_start_cpu(struct workload *w, unsigned int index)
{
	uint64_t stack = memory_take(&w->memory, STACK_BYTES);

	if (stack == 0)
		return false;
	memcpy(gpa_pointer(TRAMPOLINE_GPA), ap_trampoline,
	       (size_t)(ap_trampoline_end - ap_trampoline));
	ap_index = index;
	ap_stack = (uint32_t)(stack + STACK_BYTES);
	send_ipi(index, ICR_INIT);
	wait_us(w, WAIT_INIT_US);
	for (int i = 0; i < NR_SIPIS; i++) {
		send_ipi(index, ICR_SIPI | (uint32_t)(TRAMPOLINE_GPA >> 12));
		if (is_up(w, index, WAIT_SIPI_US))
			return true;
	}
	return false;
}
