/* godwit nested bench: what an exit costs at L1 and at L2, before and after a migration, here and
 * in QEMU. */
#include "control/nested_bench.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/command.h"
#include "control/ending_signals.h"
#include "control/nested_commands.h"
#include "control/nested_lab.h"
#include "control/nested_qemu.h"
#include "control/options.h"
#include "vmm/base/clock.h"
#include "vmm/guest_report.h"
#include "vmm/vcpu.h"

#define BENCH_MEMORY (512ull << 20)
#define BENCH_END    "bench end"

struct bench_options {
	uint64_t rounds;
	const char *kernel, *qemu, *plot, *save;
	uint64_t patience_ns;
	bool shadow, no_migration, json;
};

#define AT(member) offsetof(struct bench_options, member)

static const struct option_spec specs[] = {
	{"rounds", "N", "operations of each kind, default 1000; 64 of those that are slow",
	 OPTION_COUNT, AT(rounds), 64, 10000000},
	{"shadow", NULL, "L1 without nested paging", OPTION_FLAG, AT(shadow), 0, 0},
	{"no-migration", NULL, "measure once, not again after a migration", OPTION_FLAG,
	 AT(no_migration), 0, 0},
	{"qemu", "PROGRAM", "the same L1 in this QEMU as well", OPTION_STRING, AT(qemu), 0, 0},
	{"kernel", "FILE", "the bare-metal L1, default: beside this program", OPTION_STRING,
	 AT(kernel), 0, 0},
	{"patience", "TIME", "for one table, default 300s", OPTION_NS, AT(patience_ns), 0, 0},
	{"plot", "FILE", "an SVG of the tables, by gnuplot", OPTION_STRING, AT(plot), 0, 0},
	{"json", NULL, "print the tables as JSON", OPTION_FLAG, AT(json), 0, 0},
	{"save", "FILE", "the same JSON into FILE", OPTION_STRING, AT(save), 0, 0},
};

static const char *const no_positional[] = {NULL};

static const struct syntax syntax = {
	.command = "nested bench",
	.synopsis = "[OPTION]...",
	.about = "Measure what each kind of exit costs a guest (L1) and a guest's guest (L2), in "
		 "TSC\n"
		 "cycles (of the fastest eighth), and how many exits this host (L0) has for each, "
		 "by\n"
		 "KVM's statistics (of QEMU's VM by debugfs, as root).\n"
		 "Latencies of hlt-wake and timer are from the deadline to the handler.",
	.options = specs,
	.nr_options = sizeof(specs) / sizeof(specs[0]),
	.positional = no_positional,
	.epilogue =
		"Exit status: 0 all was measured, 1 not, 2 wrong usage, 4 interrupted. What was\n"
		"measured until then is shown.",
};

struct bench {
	struct bench_options o;
	char kernel[PATH_MAX];
	char append[96];
	int signals;
	struct bench_run runs[BENCH_MAX_RUNS];
	uint32_t nr_runs;
};

static int take_table(struct bench *b, const char *serial, const char *name, struct err *e)
{
	struct bench_run *r = &b->runs[b->nr_runs];
	int ret = bench_parse(serial, r, e);

	snprintf(r->name, sizeof(r->name), "%s", name);
	if (ret == 0)
		b->nr_runs++;
	return ret;
}

/* A table takes its time: on a terminal, say what is on. */
static void announce(const char *what)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "measuring: %s\n", what);
}

/* ---- What would fail after all the measuring ---- */

static bool is_program(const char *name)
{
	const char *at = getenv("PATH");
	char path[PATH_MAX];

	if (strchr(name, '/'))
		return access(name, X_OK) == 0;
	for (; at && *at; at += *at == ':') {
		size_t len = strcspn(at, ":");

		snprintf(path, sizeof(path), "%.*s/%s", (int)len, at, name);
		if (access(path, X_OK) == 0)
			return true;
		at += len;
	}
	return false;
}

static int check_options(const struct bench_options *o, struct err *e)
{
	if (o->qemu && !is_program(o->qemu))
		return err_set(e, ERR_USAGE, ENOENT, "--qemu %s: no such program", o->qemu);
	if (o->plot && strchr(o->plot, '\''))
		return err_set(e, ERR_USAGE, EINVAL, "--plot %s: gnuplot takes no name with a '",
			       o->plot);
	if (o->plot && !is_program("gnuplot"))
		return err_set(e, ERR_USAGE, ENOENT,
			       "--plot needs gnuplot: apt-get install gnuplot-nox");
	if (options_check_writable("plot", o->plot, e) < 0)
		return -e->code;
	return options_check_writable("save", o->save, e);
}

/* ---- Here ---- */

static int measure(struct bench *b, struct lab *lab, const char *name, struct err *e)
{
	int ret = lab_await(lab, BENCH_END, e);
	char *serial = lab_serial(lab);

	if (ret == 0)
		ret = take_table(b, serial, name, e);
	free(serial);
	return ret;
}

/* L1 waits for this word of its report to change (nested/l1/bench.c). */
static int ask_for_more(struct vm *vm, struct err *e)
{
	uint64_t gpa = vm_guest_report_gpa(vm) + offsetof(struct guest_report, tsc_running);
	uint64_t word = clock_now_ns();

	return guest_mem_write(vm_mem(vm), gpa, &word, sizeof(word), e);
}

static int migrate_and_measure(struct bench *b, struct lab *lab, struct err *e)
{
	struct migration_params params;
	struct lab_move m;
	int ret;

	announce("godwit, migrated");
	migration_params_init(&params);
	ret = lab_move(lab, &params, &m, e);
	if (ret == 0)
		ret = ask_for_more(lab_vm(lab), e);
	return ret < 0 ? ret : measure(b, lab, "godwit, migrated", e);
}

static int bench_godwit(struct bench *b, struct err *e)
{
	struct lab_config config = {.vm = {.memory_bytes = BENCH_MEMORY,
					   .nr_cpus = 1,
					   .nested = NESTED_REQUIRE,
					   .exit_counter = true,
					   .kernel = b->kernel,
					   .append = b->append},
				    .ready = BENCH_END,
				    .alive = "", /* it waits, silently */
				    .bad = "FAILED",
				    .patience_ns = b->o.patience_ns,
				    .signals = b->signals};
	struct lab *lab;
	int ret;

	announce("godwit");
	ret = lab_new(&config, &lab, e);
	if (ret < 0)
		return ret;
	ret = measure(b, lab, "godwit", e);
	if (ret == 0 && !b->o.no_migration)
		ret = migrate_and_measure(b, lab, e);
	lab_free(lab);
	return ret;
}

/* ---- There ---- */

static int bench_qemu(struct bench *b, struct err *e)
{
	const struct nested_qemu qemu = {.program = b->o.qemu,
					 .kernel = b->kernel,
					 .append = b->append,
					 .memory_bytes = BENCH_MEMORY,
					 .end = BENCH_END,
					 .patience_ns = b->o.patience_ns,
					 .signals = b->signals};
	char *serial = NULL;
	int ret;

	announce("qemu");
	ret = nested_qemu_run(&qemu, &serial, e);
	if (ret == 0)
		ret = take_table(b, serial, "qemu", e);
	free(serial);
	return ret;
}

static int bench(struct bench *b, struct err *e)
{
	int ret = check_options(&b->o, e);

	if (ret < 0)
		return ret;
	if (b->o.kernel)
		snprintf(b->kernel, sizeof(b->kernel), "%s", b->o.kernel);
	else
		ret = lab_l1_path(b->kernel, sizeof(b->kernel), e);
	snprintf(b->append, sizeof(b->append), "l1.mode=bench l1.guests=1 l1.npt=%d l1.rounds=%llu",
		 !b->o.shadow, (unsigned long long)b->o.rounds);
	if (ret == 0)
		ret = b->signals = ending_signals_open(e);
	if (ret >= 0)
		ret = bench_godwit(b, e);
	if (ret == 0 && b->o.qemu)
		ret = bench_qemu(b, e);
	return ret;
}

static int save(const struct bench *b, struct err *e)
{
	FILE *out = fopen(b->o.save, "we");

	if (!out)
		return err_sys(e, "--save %s", b->o.save);
	bench_print_json(out, b->runs, b->nr_runs);
	return fclose(out) ? err_sys(e, "--save %s", b->o.save) : 0;
}

/* What was measured before anything failed is shown, too. */
static int show(const struct bench *b, struct err *e)
{
	int ret = b->o.save ? save(b, e) : 0;

	if (b->o.json)
		bench_print_json(stdout, b->runs, b->nr_runs);
	else
		bench_print_text(stdout, b->runs, b->nr_runs);
	if (ret == 0 && b->o.plot)
		ret = bench_plot(b->o.plot, b->runs, b->nr_runs, e);
	return ret;
}

int nested_bench(int argc, char **argv)
{
	struct bench *b = calloc(1, sizeof(*b));
	struct positionals p;
	struct err e = ERR_INIT;
	int status;

	if (!b)
		return EXIT_FAILED;
	b->signals = -1;
	b->o = (struct bench_options){.rounds = 1000, .patience_ns = 300 * NS_PER_S};
	status = options_parse_or_exit(&syntax, argc, argv, &b->o, &p);
	if (status < 0) {
		status = bench(b, &e) < 0 ? command_fail(&e) : EXIT_OK;
		e = (struct err)ERR_INIT;
		if (b->nr_runs && show(b, &e) < 0)
			status = command_fail(&e);
	}
	if (b->signals >= 0)
		close(b->signals);
	free(b);
	return status;
}
