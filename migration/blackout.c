#include "migration/blackout.h"

#include <string.h>

#include "migration/migration.h"

/* The report, checked: everything in it is the guest's word. */
static const struct guest_report *report_of(struct vm *vm)
{
	uint64_t gpa = vm_guest_report_gpa(vm);
	const struct guest_mem *mem = vm_mem(vm);
	const struct guest_report *r = gpa ? guest_mem_at(mem, gpa, sizeof(*r)) : NULL;

	if (!r || r->magic != GUEST_REPORT_MAGIC || r->abi != GUEST_REPORT_ABI || !r->tsc_khz ||
	    r->nr_cpus < 1 || r->nr_cpus > GUEST_REPORT_MAX_CPUS)
		return NULL;
	return guest_mem_at(mem, gpa, sizeof(*r) + r->nr_cpus * sizeof(r->cpu[0]));
}

static uint64_t load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

void blackout_mark(struct vm *vm, struct blackout_mark *mark)
{
	const struct guest_report *r = report_of(vm);

	memset(mark, 0, sizeof(*mark));
	if (!r)
		return;
	mark->nr_cpus = r->nr_cpus;
	for (uint32_t i = 0; i < r->nr_cpus; i++) {
		mark->gap_seq[i] = load(&r->cpu[i].gap_seq);
		mark->last_tsc[i] = load(&r->cpu[i].last_tsc);
	}
}

static uint64_t cycles_to_ns(uint64_t cycles, uint64_t tsc_khz)
{
	return (uint64_t)((double)cycles * 1e6 / (double)tsc_khz);
}

/* The first entry of the ring that was recorded since the mark and is still there. */
static uint64_t first_new(const struct guest_cpu_report *cpu, uint64_t marked_seq)
{
	uint64_t seq = load(&cpu->gap_seq);

	return seq - marked_seq > GUEST_REPORT_NR_GAPS ? seq - GUEST_REPORT_NR_GAPS : marked_seq;
}

uint64_t blackout_largest_since_ns(struct vm *vm, const struct blackout_mark *mark)
{
	const struct guest_report *r = report_of(vm);
	uint64_t largest = 0;

	if (!r || r->nr_cpus != mark->nr_cpus)
		return 0;
	for (uint32_t i = 0; i < mark->nr_cpus; i++) {
		const struct guest_cpu_report *cpu = &r->cpu[i];
		uint64_t end = load(&cpu->gap_seq);

		for (uint64_t n = first_new(cpu, mark->gap_seq[i]); n < end; n++) {
			uint64_t cycles = load(&cpu->gap[n % GUEST_REPORT_NR_GAPS].tsc_cycles);

			if (cycles > largest)
				largest = cycles;
		}
	}
	return cycles_to_ns(largest, r->tsc_khz);
}

/* A vCPU may be stopped between reading its TSC and storing it: then the gap it records begins one
 * sample after the stored one. Samples are microseconds apart. */
#define SAMPLE_SLACK_NS 50000

/* Cycles of the gap of @cpu that spans the mark; 0 when there is none yet. Gaps that ended before
 * it but were recorded after it (stopped between the two) are not it. */
static uint64_t spanning_cycles(const struct guest_cpu_report *cpu, uint64_t marked_seq,
				uint64_t marked_tsc, uint64_t slack_cycles)
{
	uint64_t end = load(&cpu->gap_seq);

	for (uint64_t n = first_new(cpu, marked_seq); n < end; n++) {
		const struct guest_gap *gap = &cpu->gap[n % GUEST_REPORT_NR_GAPS];
		uint64_t start = load(&gap->tsc_start);
		uint64_t cycles = load(&gap->tsc_cycles);

		if (start <= marked_tsc + slack_cycles &&
		    start + cycles > marked_tsc + slack_cycles)
			return cycles;
	}
	return 0;
}

bool blackout_spanning_ns(struct vm *vm, const struct blackout_mark *mark, uint64_t *gap_ns)
{
	const struct guest_report *r = report_of(vm);
	uint64_t longest = 0;

	if (!r || !mark->nr_cpus || r->nr_cpus != mark->nr_cpus)
		return false;
	for (uint32_t i = 0; i < mark->nr_cpus; i++) {
		uint64_t cycles = spanning_cycles(&r->cpu[i], mark->gap_seq[i], mark->last_tsc[i],
						  r->tsc_khz * SAMPLE_SLACK_NS / 1000000);

		if (!cycles)
			return false;
		if (cycles > longest)
			longest = cycles;
	}
	*gap_ns = cycles_to_ns(longest, r->tsc_khz);
	return true;
}

int migration_read_blackout(struct vm *vm, struct guest_blackout *out)
{
	struct blackout_mark everything = {0};
	const struct guest_report *r = report_of(vm);

	*out = (struct guest_blackout){.present = r != NULL};
	if (!r)
		return 0;
	everything.nr_cpus = r->nr_cpus;
	out->gap_ns = blackout_largest_since_ns(vm, &everything);
	return 0;
}
