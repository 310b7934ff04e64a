/* From the first instruction in ring 3 to a machine ready to fill. */
#include "experiments/guest/workload/machine.h"
#include "experiments/guest/workload/tsc.h"
#include "experiments/guest/workload/workload.h"

#define NR_VECTORS 32u
#define STUB_BYTES 16u

extern char bss_start[], bss_end[];
extern char fault_stubs[];
extern uint64_t fault_info[4];

_Noreturn void boot_main(uint64_t start_info_gpa);
_Noreturn void ap_main(uint64_t index);
_Noreturn void fault_main(void);

/* boot.S points the IDT register here. */
uint64_t idt[NR_VECTORS][2];

/* All there is; every vCPU finds its own part through it. */
static struct workload workload;

void *memset(void *s, int c, size_t n)
{
	void *to = s;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
	return s;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *d = to;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(n) : : "memory");
	return to;
}

_Noreturn static void fail(const char *what, const char *word)
{
	struct console *c = &workload.console;

	console_text(c, "workload: FAILED: ");
	for (; word != NULL && *word != '\0' && *word != ' '; word++)
		console_text(c, (const char[]){*word, '\0'});
	console_text(c, word != NULL ? ": " : "");
	console_text(c, what);
	console_text(c, "\n");
	console_flush(c);
	if (workload.report != NULL)
		workload.report->state = GUEST_STATE_FAILED;
	cpu_halt();
}

/* A vCPU took an exception: a bug here, or a machine that lost its memory or registers. */
_Noreturn void fault_main(void)
{
	struct console *c = &workload.console;

	console_text(c, "\nworkload: FAULT");
	console_key(c, "vector", fault_info[0]);
	console_key_hex(c, "error", fault_info[1]);
	console_key_hex(c, "rip", fault_info[2]);
	console_key_hex(c, "cr2", fault_info[3]);
	fail("unexpected exception", NULL);
}

static void set_gate(unsigned int vector, const char *handler)
{
	uint64_t address = pointer_gpa(handler);

	idt[vector][0] = (address & 0xffff) | 0x08ull << 16 | 0x8e00ull << 32 |
			 (address >> 16 & 0xffff) << 48;
	idt[vector][1] = address >> 32;
}

static void set_gates(void)
{
	for (unsigned int v = 0; v < NR_VECTORS; v++)
		set_gate(v, fault_stubs + v * STUB_BYTES);
}

static void find_tsc_khz(struct workload *w, volatile struct guest_report *r)
{
	enum guest_tsc_source source = GUEST_TSC_OPTION;
	uint64_t khz = w->options.tsc_khz != 0 ? w->options.tsc_khz : tsc_find_khz(&source);

	if (khz == 0)
		fail("no CPUID leaf or PIT tells the TSC frequency: pass tsc_khz=", NULL);
	r->tsc_khz = khz;
	r->tsc_source = source;
	r->long_gap_threshold_ns = w->options.longgap_us * 1000;
	r->gap_threshold_ns = w->options.gap_us * 1000;
	w->gap_threshold_cycles = w->options.gap_us * khz / 1000;
	w->ns_per_cycle_q32 = (1000000ull << 32) / khz;
}

/* The report goes lowest, then page tables, stacks and the version table; the fill is above. */
static void make_report(struct workload *w, uint64_t tsc_entry)
{
	uint64_t bytes = PAGE_SIZE * (1 + w->options.nr_cpus);
	uint64_t gpa = memory_take(&w->memory, bytes);
	volatile struct guest_report *r = gpa_pointer(gpa);

	if (gpa == 0)
		fail("no memory for the report", NULL);
	memset(gpa_pointer(gpa), 0, bytes);
	r->abi = GUEST_REPORT_ABI;
	r->size = bytes;
	r->nr_cpus = (uint32_t)w->options.nr_cpus;
	r->state = GUEST_STATE_BOOTING;
	r->tsc_entry = tsc_entry;
	r->seed = w->options.seed;
	r->compress_percent = (uint32_t)w->options.compress_percent;
	r->rate_pages = w->options.rate;
	w->report = r;
}

static void make_cpu(struct workload *w, unsigned int i)
{
	uint64_t fill = w->report->nr_fill_pages, n = w->options.nr_cpus;
	struct cpu *c = &w->cpu[i];

	c->w = w;
	c->report = &w->report->cpu[i];
	c->report->cpu = i;
	c->report->first_index = fill * i / n;
	c->report->nr_pages = fill * (i + 1) / n - c->report->first_index;
	c->report->nr_ws_pages = w->report->nr_ws_pages / n;
	if (c->report->nr_ws_pages > c->report->nr_pages)
		c->report->nr_ws_pages = c->report->nr_pages;
	c->report->inflight_gfn = GUEST_NO_GFN;
	cpu_seed_random(c);
}

static void lay_fill(struct workload *w)
{
	volatile struct guest_report *r = w->report;
	struct guest_extent extent[GUEST_REPORT_MAX_EXTENTS];
	uint64_t wanted = w->options.fill_bytes / PAGE_SIZE, room;
	uint32_t nr_extents;

	r->version_table_gpa = memory_take(&w->memory, wanted * sizeof(uint32_t));
	if (r->version_table_gpa == 0)
		fail("no memory for the version table: lower fill=", NULL);
	w->version = gpa_pointer(r->version_table_gpa);
	room = memory_lay_extents(&w->memory, wanted, extent, &nr_extents);
	if (room < wanted) {
		console_text(&w->console, "workload: room for");
		console_key(&w->console, "fill_mib", room / 256);
		console_text(&w->console, "\n");
		fail("fill= is larger than the memory there is: lower it or raise -m", NULL);
	}
	for (uint32_t i = 0; i < nr_extents; i++)
		r->extent[i] = extent[i];
	r->nr_extents = nr_extents;
	r->nr_fill_pages = wanted;
	r->nr_ws_pages = w->options.ws_bytes / PAGE_SIZE;
}

static void start_cpus(struct workload *w)
{
	for (unsigned int i = 1; i < w->options.nr_cpus; i++) {
		if (smp_start_cpu(w, i))
			continue;
		console_key(&w->console, "cpu", i);
		fail(" did not start: does the machine have as many vCPUs as cpus= says?", NULL);
	}
}

static void announce(struct workload *w)
{
	uint64_t gpa = pointer_gpa(w->report);
	struct console *c = &w->console;

	w->report->magic = GUEST_REPORT_MAGIC;
	out32(GUEST_REPORT_PORT, (uint32_t)(gpa / PAGE_SIZE));
	console_text(c, "workload: filling");
	console_key_hex(c, "report", gpa);
	console_key(c, "tsc_khz", w->report->tsc_khz);
	console_key(c, "tsc_source", w->report->tsc_source);
	console_key(c, "cpus", w->options.nr_cpus);
	console_key(c, "fill_pages", w->report->nr_fill_pages);
	console_text(c, "\n");
}

static void prepare(struct workload *w, uint64_t start_info_gpa, uint64_t tsc_entry)
{
	const char *bad = NULL;
	const char *problem = memory_read_start_info(&w->memory, start_info_gpa);

	if (problem == NULL)
		problem = options_parse(&w->options, w->memory.cmdline, &bad);
	if (problem != NULL)
		fail(problem, bad);
	make_report(w, tsc_entry);
	find_tsc_khz(w, w->report);
	problem = memory_map_high(&w->memory);
	if (problem != NULL)
		fail(problem, NULL);
	w->pattern = pattern_make(w->options.seed, (uint32_t)w->options.compress_percent);
	start_cpus(w);
	lay_fill(w);
	for (unsigned int i = 0; i < w->options.nr_cpus; i++)
		make_cpu(w, i);
}

_Noreturn void boot_main(uint64_t start_info_gpa)
{
	uint64_t tsc_entry = rdtsc();
	struct workload *w = &workload;

	memset(bss_start, 0, (size_t)(bss_end - bss_start)); /* after a reset it is not clear */
	set_gates();
	console_init(&w->console);
	prepare(w, start_info_gpa, tsc_entry);
	announce(w);
	w->report->tsc_fill = rdtsc();
	w->report->state = GUEST_STATE_FILLING;
	cpu_run(&w->cpu[0]);
}

/* Tells the boot vCPU that it is up, then waits for everybody to be. */
_Noreturn void ap_main(uint64_t index)
{
	struct workload *w = &workload;

	w->report->cpu[index].state = GUEST_STATE_BOOTING;
	while (w->report->state < GUEST_STATE_FILLING)
		cpu_pause();
	cpu_run(&w->cpu[index]);
}
