#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "control/nested_bench.h"

/* ---- Reading ---- */

/* The number behind " KEY=" in @line. */
static bool field(const char *line, const char *key, uint64_t *value)
{
	char pattern[24];
	const char *at;

	snprintf(pattern, sizeof(pattern), " %s=", key);
	at = strstr(line, pattern);
	if (at)
		*value = strtoull(at + strlen(pattern), NULL, 10);
	return at != NULL;
}

static struct bench_cell *cell_of(struct bench_run *r, const char *name, uint64_t level)
{
	uint32_t i = 0;

	while (i < r->nr_kinds && strcmp(r->kind[i].name, name))
		i++;
	if (level < 1 || level > 2 || i == BENCH_MAX_KINDS)
		return NULL;
	if (i == r->nr_kinds)
		snprintf(r->kind[r->nr_kinds++].name, sizeof(r->kind[i].name), "%s", name);
	return &r->kind[i].level[level - 1];
}

static void parse_line(const char *line, struct bench_run *r)
{
	char name[16];
	uint64_t level = 0, exits_milli = 0;
	struct bench_cell *c;

	field(line, "tsc_khz", &r->tsc_khz);
	if (sscanf(line, "bench kind=%15s", name) != 1 || !field(line, "level", &level))
		return;
	c = cell_of(r, name, level);
	if (!c)
		return;
	c->measured = field(line, "cycles", &c->cycles);
	c->counted = field(line, "exits_milli", &exits_milli);
	c->exits = (double)exits_milli / 1000;
}

int bench_parse(const char *serial, struct bench_run *out, struct err *e)
{
	const char *begin = NULL, *end = NULL;

	for (const char *p = serial; (p = strstr(p, "bench begin")) != NULL; p++)
		begin = p;
	for (const char *p = begin; p && (p = strstr(p, "bench end")) != NULL; p++)
		end = p;
	if (!end)
		return err_set(e, ERR_STATE, EBADMSG, "L1 printed no whole table");
	while (begin < end) {
		char line[160];
		size_t len = strcspn(begin, "\r\n");

		snprintf(line, sizeof(line), "%.*s", (int)len, begin);
		parse_line(line, out);
		begin += len + strspn(begin + len, "\r\n");
	}
	return 0;
}

/* ---- Showing ---- */

static void print_exits(FILE *out, const struct bench_cell *c)
{
	if (c->counted)
		fprintf(out, " %7.2f", c->exits);
	else
		fprintf(out, " %7s", "-");
}

static void print_row(FILE *out, const char *name, const struct bench_cell level[2])
{
	fprintf(out, "  %-12s", name);
	for (int i = 0; i < 2; i++)
		if (level[i].measured)
			fprintf(out, " %12" PRIu64, level[i].cycles);
		else
			fprintf(out, " %12s", "-");
	if (level[0].measured && level[1].measured && level[0].cycles)
		fprintf(out, " %8.1f", (double)level[1].cycles / (double)level[0].cycles);
	else
		fprintf(out, " %8s", "-");
	print_exits(out, &level[0]);
	print_exits(out, &level[1]);
	fputc('\n', out);
}

void bench_print_text(FILE *out, const struct bench_run *runs, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++) {
		const struct bench_run *r = &runs[i];

		fprintf(out, "%s%s (cycles of %.3f GHz; exits of L0 for each operation)\n",
			i ? "\n" : "", r->name, (double)r->tsc_khz / 1e6);
		fprintf(out, "  %-12s %12s %12s %8s %7s %7s\n", "", "at L1", "at L2", "ratio",
			"L1 ex.", "L2 ex.");
		for (uint32_t k = 0; k < r->nr_kinds; k++)
			print_row(out, r->kind[k].name, r->kind[k].level);
	}
}

static json_t *cell_json(const struct bench_cell *c)
{
	json_t *j;

	if (!c->measured)
		return json_null();
	j = json_pack("{s:I}", "cycles", (json_int_t)c->cycles);
	if (c->counted)
		json_object_set_new(j, "l0_exits", json_real(c->exits));
	return j;
}

void bench_print_json(FILE *out, const struct bench_run *runs, uint32_t nr)
{
	json_t *all = json_array();

	for (uint32_t i = 0; i < nr; i++) {
		json_t *kinds = json_object();

		for (uint32_t k = 0; k < runs[i].nr_kinds; k++)
			json_object_set_new(kinds, runs[i].kind[k].name,
					    json_pack("{s:o,s:o}", "l1",
						      cell_json(&runs[i].kind[k].level[0]), "l2",
						      cell_json(&runs[i].kind[k].level[1])));
		json_array_append_new(all,
				      json_pack("{s:s,s:I,s:o}", "name", runs[i].name, "tsc_khz",
						(json_int_t)runs[i].tsc_khz, "kinds", kinds));
	}
	json_dumpf(all, out, JSON_INDENT(2));
	fputc('\n', out);
	json_decref(all);
}

/* One block of bars a run and level: "kind cycles". */
static void plot_data(FILE *out, const struct bench_run *runs, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		for (int level = 0; level < 2; level++) {
			for (uint32_t k = 0; k < runs[i].nr_kinds; k++) {
				const struct bench_cell *c = &runs[i].kind[k].level[level];

				if (c->measured)
					fprintf(out, "%s %" PRIu64 "\n", runs[i].kind[k].name,
						c->cycles);
				else
					fprintf(out, "%s NaN\n", runs[i].kind[k].name);
			}
			fputs("e\n", out);
		}
}

int bench_plot(const char *path, const struct bench_run *runs, uint32_t nr, struct err *e)
{
	/* A hue for each run: light for L1, dark for L2. */
	static const char *const colour[BENCH_MAX_RUNS][2] = {{"#9ecae1", "#2171b5"},
							      {"#a1d99b", "#238b45"},
							      {"#fdae6b", "#d94801"},
							      {"#bcbddc", "#6a51a3"}};
	FILE *out = popen("gnuplot", "we");

	if (!out)
		return err_sys(e, "--plot: cannot start gnuplot");
	fprintf(out,
		"set terminal svg size 900,480\nset output '%s'\nset style data histograms\n"
		"set style fill solid\nset logscale y\nset format y '10^{%%L}'\nset ylabel 'cycles "
		"for one operation'\n"
		"set grid ytics\n"
		"set xtics rotate by -30\nset key outside top center horizontal\nplot ",
		path);
	for (uint32_t i = 0; i < nr; i++)
		for (int level = 1; level <= 2; level++)
			fprintf(out, "%s'-' using 2:xtic(1) title '%s, L%d' linecolor rgb '%s'",
				i || level > 1 ? ", " : "", runs[i].name, level,
				colour[i][level - 1]);
	fputc('\n', out);
	plot_data(out, runs, nr);
	return pclose(out) ? err_set(e, ERR_SYS, EIO,
				     "--plot: gnuplot failed; is it installed (apt-get install "
				     "gnuplot-nox)?")
			   : 0;
}
