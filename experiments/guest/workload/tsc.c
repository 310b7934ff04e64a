#include "experiments/guest/workload/tsc.h"

#include <stdbool.h>

#include "experiments/guest/workload/machine.h"

#define PIT_HZ            1193182u
#define PIT_CHANNEL0      0x40
#define PIT_CONTROL       0x43
#define PIT_MEASURE_TICKS 11932u /* 10 ms */
#define PIT_READS         16
#define PIT_STUCK_READS   200000
#define PIT_MEASURES      50

struct pit_sample {
	uint64_t tsc;
	uint16_t count;
};

static uint16_t pit_read(void)
{
	uint8_t low;

	out8(PIT_CONTROL, 0x00); /* latch channel 0 */
	low = in8(PIT_CHANNEL0);
	return (uint16_t)(low | in8(PIT_CHANNEL0) << 8);
}

/* Latching costs an exit of varying length: of several readings, the quickest is the exact one. */
static struct pit_sample pit_sample(void)
{
	struct pit_sample best = {0};
	uint64_t shortest = UINT64_MAX;

	for (int i = 0; i < PIT_READS; i++) {
		uint64_t before = rdtsc();
		uint16_t count = pit_read();
		uint64_t took = rdtsc() - before;

		if (took < shortest) {
			shortest = took;
			best.tsc = before + took / 2;
			best.count = count;
		}
	}
	return best;
}

/* False: it does not count. @khz is 0 where it went round. */
static bool pit_measure_once(uint64_t *khz)
{
	struct pit_sample start, end;
	uint32_t ticks = 0;

	out8(PIT_CONTROL, 0x34); /* channel 0, both bytes, mode 2, counts down from 65536 */
	out8(PIT_CHANNEL0, 0);
	out8(PIT_CHANNEL0, 0);
	start = pit_sample();
	for (int reads = 0; ticks < PIT_MEASURE_TICKS; reads++) {
		ticks = (uint16_t)(start.count - pit_read());
		if (reads == PIT_STUCK_READS)
			return false;
	}
	end = pit_sample();
	ticks = (uint16_t)(start.count - end.count);
	/* else it went round, or there is no PIT and the port reads noise */
	*khz = ticks < PIT_MEASURE_TICKS ? 0 : (end.tsc - start.tsc) * PIT_HZ / (ticks * 1000ull);
	return true;
}

static bool agree(uint64_t a, uint64_t b)
{
	return (a < b ? b - a : a - b) < b / 64;
}

/* The PIT goes round in 55 ms. A host that stands still for longer in mid-measurement has it do so
 * unseen, and the TSC would seem many times too fast: what two in a row agree on is believed. */
static uint64_t pit_measure_khz(void)
{
	uint64_t last = 0, khz;

	for (int i = 0; i < PIT_MEASURES && pit_measure_once(&khz); i++) {
		if (agree(last, khz))
			return khz;
		last = khz;
	}
	return 0;
}

static uint64_t hypervisor_khz(void)
{
	if ((cpuid(1).ecx & 1u << 31) == 0 || cpuid(0x40000000).eax < 0x40000010)
		return 0;
	return cpuid(0x40000010).eax;
}

static uint64_t crystal_khz(void)
{
	struct cpuid_regs r;

	if (cpuid(0).eax < 0x15)
		return 0;
	r = cpuid(0x15);
	if (r.eax == 0 || r.ebx == 0 || r.ecx == 0)
		return 0;
	return (uint64_t)r.ecx * r.ebx / r.eax / 1000;
}

static uint64_t nominal_khz(void)
{
	return cpuid(0).eax < 0x16 ? 0 : (cpuid(0x16).eax & 0xffff) * 1000ull;
}

uint64_t tsc_find_khz(enum guest_tsc_source *source)
{
	static const struct {
		uint64_t (*find)(void);
		enum guest_tsc_source source;
	} ways[] = {
		{hypervisor_khz, GUEST_TSC_CPUID_HV},
		{crystal_khz, GUEST_TSC_CPUID_15},
		{pit_measure_khz, GUEST_TSC_PIT},
		{nominal_khz, GUEST_TSC_CPUID_16},
	};

	for (unsigned int i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		uint64_t khz = ways[i].find();

		*source = ways[i].source;
		if (khz != 0)
			return khz;
	}
	return 0;
}
