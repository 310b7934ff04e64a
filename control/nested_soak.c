/* godwit nested soak: migrations of a hypervisor with live guests, stopped at random points. */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/command.h"
#include "control/ending_signals.h"
#include "control/nested_commands.h"
#include "control/nested_lab.h"
#include "control/options.h"
#include "vmm/base/clock.h"
#include "vmm/base/units.h"

#define MAX_PAUSE_MS 200u
#define L1_MEMORY    (64ull << 20)

struct soak_options {
	uint64_t count;
	uint64_t seed;
	const char *kernel, *initrd, *append, *ready, *alive, *bad, *serial, *tracker, *over;
	uint64_t memory_bytes;
	uint64_t downtime_limit_ns;
	uint64_t patience_ns;
	bool lines, no_verify, json;
};

#define AT(member) offsetof(struct soak_options, member)

static const struct option_spec specs[] = {
	{"count", "N", "migrations, default 100", OPTION_COUNT, AT(count), 1, 1000000},
	{"seed", "N", "of the pauses between them, default 1", OPTION_COUNT, AT(seed), 0,
	 UINT32_MAX},
	{"kernel", "FILE", "L1, default: the bare-metal one beside this program", OPTION_STRING,
	 AT(kernel), 0, 0},
	{"initrd", "FILE", "its initial RAM disk", OPTION_STRING, AT(initrd), 0, 0},
	{"append", "TEXT", "its command line", OPTION_STRING, AT(append), 0, 0},
	{"memory", "SIZE", "its memory, default 64M", OPTION_BYTES, AT(memory_bytes), 0, 0},
	{"ready", "TEXT", "what it says on the serial port when its guests run", OPTION_STRING,
	 AT(ready), 0, 0},
	{"alive", "TEXT", "what it must say again after each migration", OPTION_STRING, AT(alive),
	 0, 0},
	{"bad", "TEXT", "what it must never say", OPTION_STRING, AT(bad), 0, 0},
	{"lines", NULL, "instead: L1 and L2 tell how they are, by lines (docs/nested.md)",
	 OPTION_FLAG, AT(lines), 0, 0},
	{"serial", "FILE", "append what it says to FILE", OPTION_STRING, AT(serial), 0, 0},
	{"over", "HOW", "what it moves over: tcp (default), unix or rdma:HOST", OPTION_STRING,
	 AT(over), 0, 0},
	{"dirty", "TRACKER", "default bitmap", OPTION_STRING, AT(tracker), 0, 0},
	{"downtime-limit", "TIME", "default 300ms", OPTION_NS, AT(downtime_limit_ns), 0, 0},
	{"patience", "TIME", "to show life after a migration, default 60s", OPTION_NS,
	 AT(patience_ns), 0, 0},
	{"no-verify", NULL, "do not compare digests: blackouts as they would be", OPTION_FLAG,
	 AT(no_verify), 0, 0},
	{"json", NULL, "print the result as JSON", OPTION_FLAG, AT(json), 0, 0},
};

static const char *const no_positional[] = {NULL};

static const struct syntax syntax = {
	.command = "nested soak",
	.synopsis = "[--count N] [OPTION]...",
	.about =
		"Run a hypervisor (L1) with live guests (L2) and migrate it N times, from one VM "
		"of\n"
		"this process to the next, stopped wherever it happens to be. After each "
		"migration\n"
		"L1 and every L2 must go on; L2 checks its memory all the time, and all of memory\n"
		"and state is compared by digests before the guest may run.\n"
		"Any other L1 can be named: say with --ready and --alive how it shows its life.",
	.options = specs,
	.nr_options = sizeof(specs) / sizeof(specs[0]),
	.positional = no_positional,
	.epilogue = "Exit status: 0 all went well, 1 not, 2 wrong usage, 4 interrupted.",
};

/* Smallest, largest and all of one duration. */
struct spread {
	uint64_t min, max, sum, nr;
};

static void spread_add(struct spread *s, uint64_t value)
{
	s->min = s->nr == 0 || value < s->min ? value : s->min;
	s->max = value > s->max ? value : s->max;
	s->sum += value;
	s->nr++;
}

struct soak {
	struct soak_options o;
	char kernel[PATH_MAX];
	struct migration_params params;
	uint64_t random;
	int signals;
	uint32_t done;
	uint32_t in_l1, in_l2, pending, gif_clear;
	struct spread total, downtime, l1_gap, l2_gap;
};

static uint64_t next_random(struct soak *s)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return s->random;
}

static void account(struct soak *s, const struct lab_move *m)
{
	const struct nested_view *v = &m->stopped;

	s->done++;
	s->in_l2 += v->in_l2;
	s->in_l1 += !v->in_l2;
	s->pending += v->run_pending;
	s->gif_clear += !v->gif;
	spread_add(&s->total, m->report.total_ns);
	spread_add(&s->downtime, m->report.downtime_ns);
	if (m->felt) {
		spread_add(&s->l1_gap, m->l1_gap_ns);
		spread_add(&s->l2_gap, m->l2_gap_ns);
	}
}

static void show(const struct soak *s, const struct lab_move *m)
{
	char stopped[160], total[24], downtime[24];

	if (s->o.json)
		return;
	nested_view_text(&m->stopped, stopped, sizeof(stopped));
	printf("%4u  %9s  %9s  %s\n", s->done,
	       units_format_ns(total, sizeof(total), m->report.total_ns),
	       units_format_ns(downtime, sizeof(downtime), m->report.downtime_ns), stopped);
	fflush(stdout);
}

static int move_once(struct soak *s, struct lab *lab, struct err *e)
{
	struct lab_move m;
	uint64_t pause_ns = next_random(s) % (MAX_PAUSE_MS * NS_PER_MS);
	int ret;

	clock_sleep_until_ns(clock_now_ns() + pause_ns);
	ret = lab_move(lab, &s->params, &m, e);
	if (ret < 0)
		return err_prefix(e, "migration %u", s->done + 1);
	account(s, &m);
	show(s, &m);
	return 0;
}

static void print_spread(const char *name, const struct spread *s)
{
	char min[24], mean[24], max[24];

	if (s->nr)
		printf("  %-24s %9s %9s %9s\n", name, units_format_ns(min, sizeof(min), s->min),
		       units_format_ns(mean, sizeof(mean), s->sum / s->nr),
		       units_format_ns(max, sizeof(max), s->max));
}

static void print_text(const struct soak *s)
{
	printf("\n%u migration%s: stopped in L1 %u times, in L2 %u; entry pending %u, GIF clear "
	       "%u\n",
	       s->done, s->done == 1 ? "" : "s", s->in_l1, s->in_l2, s->pending, s->gif_clear);
	printf("  %-24s %9s %9s %9s\n", "", "least", "mean", "most");
	print_spread("total", &s->total);
	print_spread("downtime (claimed)", &s->downtime);
	print_spread("longest gap L1 felt", &s->l1_gap);
	print_spread("longest gap L2 felt", &s->l2_gap);
}

static json_t *spread_json(const struct spread *s)
{
	return json_pack("{s:I,s:I,s:I}", "min_ns", (json_int_t)s->min, "mean_ns",
			 (json_int_t)(s->nr ? s->sum / s->nr : 0), "max_ns", (json_int_t)s->max);
}

static void print_json(const struct soak *s)
{
	json_t *j = json_pack("{s:i,s:i,s:i,s:i,s:i,s:o,s:o}", "migrations", (int)s->done, "in_l1",
			      (int)s->in_l1, "in_l2", (int)s->in_l2, "entry_pending",
			      (int)s->pending, "gif_clear", (int)s->gif_clear, "total",
			      spread_json(&s->total), "downtime", spread_json(&s->downtime));

	if (s->l1_gap.nr) {
		json_object_set_new(j, "l1_felt", spread_json(&s->l1_gap));
		json_object_set_new(j, "l2_felt", spread_json(&s->l2_gap));
	}
	json_dumpf(j, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(j);
}

static int soak(struct soak *s, struct err *e)
{
	struct lab_config config = {
		.vm = {.memory_bytes = s->o.memory_bytes,
		       .nr_cpus = 1,
		       .nested = NESTED_REQUIRE,
		       .kernel = s->o.kernel ? s->o.kernel : s->kernel,
		       .initrd = s->o.initrd,
		       .append = s->o.append},
		.ready = s->o.ready,
		.alive = s->o.alive ? s->o.alive : s->o.ready,
		.bad = s->o.bad,
		.lines = s->o.lines,
		.over = s->o.over && strcmp(s->o.over, "tcp") ? s->o.over : NULL,
		.serial_copy = s->o.serial,
		.patience_ns = s->o.patience_ns,
		.signals = s->signals,
	};
	struct lab *lab;
	int ret = lab_new(&config, &lab, e);

	if (ret < 0)
		return ret;
	if (!s->o.json)
		printf("   N      total   downtime  stopped at\n");
	while (ret == 0 && s->done < s->o.count)
		ret = move_once(s, lab, e);
	lab_free(lab);
	return ret;
}

static int check_over(const char *over, struct err *e)
{
	if (!over || !strcmp(over, "tcp") || !strcmp(over, "unix") ||
	    (!strncmp(over, "rdma:", 5) && over[5]))
		return 0;
	return err_set(e, ERR_USAGE, EINVAL, "--over %s: tcp, unix and rdma:HOST exist", over);
}

static int check_options(const struct soak_options *o, struct err *e)
{
	if (o->kernel && !o->ready && !o->lines)
		return err_set(
			e, ERR_USAGE, EINVAL,
			"--kernel needs --ready: what L1 says when its guests run; or --lines");
	if (!o->kernel && (o->initrd || o->lines))
		return err_set(e, ERR_USAGE, EINVAL,
			       "%s needs --kernel: the bare-metal L1 has no use for it",
			       o->lines ? "--lines" : "--initrd");
	if (check_over(o->over, e) < 0)
		return -e->code;
	return options_check_writable("serial", o->serial, e);
}

static int prepare(struct soak *s, struct err *e)
{
	int ret = check_options(&s->o, e);

	if (ret == 0 && !s->o.kernel)
		ret = lab_l1_path(s->kernel, sizeof(s->kernel), e);
	migration_params_init(&s->params);
	s->params.verify = !s->o.no_verify;
	s->params.downtime_limit_ns = s->o.downtime_limit_ns;
	if (s->o.tracker)
		snprintf(s->params.tracker, sizeof(s->params.tracker), "%s", s->o.tracker);
	if (ret == 0)
		ret = migration_params_check(&s->params, e);
	if (ret == 0)
		ret = s->signals = ending_signals_open(e);
	s->random = s->o.seed * 0x9e3779b97f4a7c15ull + 1;
	return ret < 0 ? ret : 0;
}

int nested_soak(int argc, char **argv)
{
	static const char l1_append[] = "l1.mode=work l1.guests=2 l1.npt=2 fill=8M ws=1M rate=500 "
					"gap=1000 longgap=5000 quiet=1";
	struct soak *s = calloc(1, sizeof(*s));
	struct positionals p;
	struct err e = ERR_INIT;
	int status;

	if (!s)
		return EXIT_FAILED;
	s->signals = -1;
	s->o = (struct soak_options){.count = 100,
				     .seed = 1,
				     .append = l1_append,
				     .memory_bytes = L1_MEMORY,
				     .downtime_limit_ns = 300 * NS_PER_MS,
				     .patience_ns = 60 * NS_PER_S};
	status = options_parse_or_exit(&syntax, argc, argv, &s->o, &p);
	if (status < 0) {
		status = prepare(s, &e) < 0 || soak(s, &e) < 0 ? command_fail(&e) : EXIT_OK;
		if (s->done && s->o.json)
			print_json(s);
		else if (s->done)
			print_text(s);
	}
	if (s->signals >= 0)
		close(s->signals);
	free(s);
	return status;
}
