#include "migration/blackout.h"

#include <string.h>

#include "migration/migration.h"

static uint64_t load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Everything in it is the guest's word. */
void blackout_view(struct vm *vm, struct blackout_view *out)
{
	uint64_t gpa = vm_guest_report_gpa(vm);
	const struct guest_report *r = gpa ? guest_mem_at(vm_mem(vm), gpa, sizeof(*r)) : NULL;
	uint32_t nr_cpus;
	uint64_t tsc_khz;

	*out = (struct blackout_view){.report = NULL};
	if (!r || r->magic != GUEST_REPORT_MAGIC || r->abi != GUEST_REPORT_ABI)
		return;
	nr_cpus = __atomic_load_n(&r->nr_cpus, __ATOMIC_RELAXED);
	tsc_khz = load(&r->tsc_khz);
	if (!tsc_khz || nr_cpus < 1 || nr_cpus > GUEST_REPORT_MAX_CPUS ||
	    !guest_mem_at(vm_mem(vm), gpa, sizeof(*r) + nr_cpus * sizeof(r->cpu[0])))
		return;
	*out = (struct blackout_view){r, nr_cpus, tsc_khz, load(&r->long_gap_threshold_ns)};
}

void blackout_mark(const struct blackout_view *view, struct blackout_mark *mark)
{
	memset(mark, 0, sizeof(*mark));
	mark->nr_cpus = view->nr_cpus;
	for (uint32_t i = 0; i < view->nr_cpus; i++) {
		const struct guest_cpu_report *cpu = &view->report->cpu[i];

		mark->gap_seq[i] = load(&cpu->gap_seq);
		mark->last_tsc[i] = load(&cpu->last_tsc);
		mark->tsc_backwards[i] = load(&cpu->tsc_backwards);
	}
}

/* A guest may say what it likes: a year at most. */
#define MOST_NS 3.2e16

static uint64_t cycles_to_ns(uint64_t cycles, uint64_t tsc_khz)
{
	double ns = (double)cycles * 1e6 / (double)tsc_khz;

	return (uint64_t)(ns < MOST_NS ? ns : MOST_NS);
}

/* Of the entries before @end the first that was recorded since the mark and is still in the ring.
 * The guest may be at it: whoever walks from here to @end has read that once. */
static uint64_t first_new(uint64_t end, uint64_t marked_seq)
{
	return end - marked_seq > GUEST_REPORT_NR_GAPS ? end - GUEST_REPORT_NR_GAPS : marked_seq;
}

uint64_t blackout_largest_of_ns(const struct blackout_view *view, const struct blackout_mark *mark,
				uint32_t i)
{
	const struct guest_cpu_report *cpu = &view->report->cpu[i];
	uint64_t end = load(&cpu->gap_seq);
	uint64_t largest = 0;

	for (uint64_t n = first_new(end, mark->gap_seq[i]); n < end; n++) {
		uint64_t cycles = load(&cpu->gap[n % GUEST_REPORT_NR_GAPS].tsc_cycles);

		if (cycles > largest)
			largest = cycles;
	}
	return cycles_to_ns(largest, view->tsc_khz);
}

uint64_t blackout_largest_since_ns(const struct blackout_view *view,
				   const struct blackout_mark *mark)
{
	uint64_t largest = 0;

	if (view->nr_cpus != mark->nr_cpus)
		return 0;
	for (uint32_t i = 0; i < mark->nr_cpus; i++) {
		uint64_t one = blackout_largest_of_ns(view, mark, i);

		if (one > largest)
			largest = one;
	}
	return largest;
}

/* A vCPU may be stopped between reading its TSC and storing it: then the gap it records begins one
 * sample after the stored one. Samples are microseconds apart. */
#define SAMPLE_SLACK_NS 50000

/* Cycles of the gap of @cpu that spans @instant; 0 when there is none yet. Gaps that ended before
 * it but were recorded after it (stopped between the two) are not it. */
static uint64_t spanning_cycles(const struct guest_cpu_report *cpu, uint64_t marked_seq,
				uint64_t instant)
{
	uint64_t end = load(&cpu->gap_seq);

	for (uint64_t n = first_new(end, marked_seq); n < end; n++) {
		const struct guest_gap *gap = &cpu->gap[n % GUEST_REPORT_NR_GAPS];
		uint64_t start = load(&gap->tsc_start);
		uint64_t cycles = load(&gap->tsc_cycles);

		if (start <= instant && start + cycles > instant)
			return cycles;
	}
	return 0;
}

/* Has this vCPU recorded all that it ever will of a gap at @instant? It stores a sample first and
 * records the gap before it afterwards, so one sample that is newer is not enough; when that one
 * has been followed by another, it is. */
static bool has_told(const struct guest_cpu_report *cpu, uint32_t i, uint64_t instant,
		     struct blackout_mark *mark)
{
	uint64_t last = load(&cpu->last_tsc);
	bool newer = last > instant || load(&cpu->tsc_backwards) != mark->tsc_backwards[i];

	if (newer && mark->seen_tsc[i] && mark->seen_tsc[i] != last)
		return true;
	if (newer && !mark->seen_tsc[i])
		mark->seen_tsc[i] = last;
	return false;
}

enum blackout_answer blackout_spanning_ns(const struct blackout_view *view,
					  struct blackout_mark *mark, uint64_t *gap_ns)
{
	uint64_t slack_cycles = view->tsc_khz * SAMPLE_SLACK_NS / 1000000;
	bool comparable = view->noted_from_ns != 0;
	uint64_t longest = 0;
	bool pending = false;

	if (!mark->nr_cpus || view->nr_cpus != mark->nr_cpus)
		return BLACKOUT_UNTOLD;
	for (uint32_t i = 0; i < mark->nr_cpus; i++) {
		const struct guest_cpu_report *cpu = &view->report->cpu[i];
		uint64_t instant = mark->last_tsc[i] + slack_cycles;
		bool told = has_told(cpu, i, instant, mark); /* before the ring is read */
		uint64_t cycles = spanning_cycles(cpu, mark->gap_seq[i], instant);

		pending = pending || (!cycles && !told);
		comparable = comparable && load(&cpu->tsc_backwards) == mark->tsc_backwards[i];
		if (cycles > longest)
			longest = cycles;
	}
	if (pending)
		return BLACKOUT_PENDING;
	*gap_ns = longest ? cycles_to_ns(longest, view->tsc_khz) : view->noted_from_ns;
	if (longest)
		return BLACKOUT_FELT;
	return comparable ? BLACKOUT_BELOW : BLACKOUT_UNTOLD;
}

void blackout_take(const Godwit__Blackout *m, struct guest_blackout *out)
{
	out->present = m->has_gap_ns || m->has_below_ns;
	out->below = !m->has_gap_ns && m->has_below_ns;
	out->gap_ns = m->has_gap_ns ? m->gap_ns : m->below_ns;
}

int migration_read_blackout(struct vm *vm, struct guest_blackout *out)
{
	struct blackout_mark everything = {0};
	struct blackout_view view;

	blackout_view(vm, &view);
	*out = (struct guest_blackout){.present = view.nr_cpus != 0};
	everything.nr_cpus = view.nr_cpus;
	out->gap_ns = blackout_largest_since_ns(&view, &everything);
	return 0;
}
