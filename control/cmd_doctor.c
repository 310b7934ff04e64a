/* godwit doctor: what this host can do, and how to get what it lacks. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "control/command.h"
#include "control/doctor.h"
#include "control/fold.h"
#include "control/json_text.h"
#include "control/options.h"

struct doctor_options {
	bool json;
};

static const struct option_spec specs[] = {
	{"json", NULL, "print the findings as JSON", OPTION_FLAG,
	 offsetof(struct doctor_options, json), 0, 0},
};

static const char *const positional[] = {NULL};

static const struct syntax syntax = {
	.command = "doctor",
	.synopsis = "[--json]",
	.about = "Look at this host and say, feature by feature, what works and how to get what "
		 "does\n"
		 "not. Changes nothing.",
	.options = specs,
	.nr_options = sizeof(specs) / sizeof(specs[0]),
	.positional = positional,
	.epilogue =
		"Exit status: 0 guests can run here and migrate to and from here, 1 they cannot.",
};

struct doctor {
	struct host host;
	bool colour;
	bool possible;  /* nothing is missing so far */
	json_t *checks; /* NULL: print as it goes */
};

void finding_set(struct finding *f, enum verdict verdict, const char *fmt, ...)
{
	va_list ap;

	f->verdict = verdict;
	f->remedy[0] = '\0';
	va_start(ap, fmt);
	vsnprintf(f->detail, sizeof(f->detail), fmt, ap);
	va_end(ap);
}

void finding_remedy(struct finding *f, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f->remedy, sizeof(f->remedy), fmt, ap);
	va_end(ap);
}

static const char *verdict_name(enum verdict verdict)
{
	static const char *const names[] = {"ok", "note", "absent", "MISSING"};

	return names[verdict];
}

static const char *verdict_colour(enum verdict verdict)
{
	static const char *const codes[] = {"\033[32m", "\033[33m", "\033[2m", "\033[1;31m"};

	return codes[verdict];
}

static void print_finding(const struct doctor *d, const char *name, const struct finding *f)
{
	printf("%s%-8s%s%-24s ", d->colour ? verdict_colour(f->verdict) : "",
	       verdict_name(f->verdict), d->colour ? "\033[0m" : "", name);
	fold_print(stdout, f->detail, 33);
	if (f->remedy[0]) {
		printf("%*s", 33, "");
		fputs("-> ", stdout);
		fold_print(stdout, f->remedy, 36);
	}
}

static void add_json(json_t *checks, const char *name, const struct finding *f)
{
	static const char *const names[] = {"ok", "note", "absent", "missing"};
	json_t *json = json_pack("{s:s,s:s,s:o}", "name", name, "verdict", names[f->verdict],
				 "detail", json_text(f->detail));

	if (f->remedy[0])
		json_object_set_new(json, "remedy", json_text(f->remedy));
	json_array_append_new(checks, json);
}

static void examine(struct doctor *d, const struct check *checks)
{
	for (; checks->name; checks++) {
		struct finding f = {.verdict = VERDICT_OK};

		if (checks->needs_kvm && d->host.vm_fd < 0)
			continue;
		checks->probe(&d->host, &f);
		if (!f.detail[0])
			continue;
		if (f.verdict == VERDICT_MISSING)
			d->possible = false;
		if (d->checks)
			add_json(d->checks, checks->name, &f);
		else
			print_finding(d, checks->name, &f);
	}
}

static void print_json(struct doctor *d)
{
	json_t *json =
		json_pack("{s:b,s:O}", "migration_possible", d->possible, "checks", d->checks);

	json_dumpf(json, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(json);
	json_decref(d->checks);
}

int cmd_doctor(int argc, char **argv)
{
	struct doctor_options o = {.json = false};
	struct doctor d = {.possible = true, .colour = isatty(STDOUT_FILENO)};
	struct positionals p;
	int status = options_parse_or_exit(&syntax, argc, argv, &o, &p);

	if (status >= 0)
		return status;
	d.checks = o.json ? json_array() : NULL;
	host_open(&d.host);
	examine(&d, doctor_kvm_checks);
	examine(&d, doctor_host_checks);
	examine(&d, doctor_net_checks);
	examine(&d, doctor_rdma_checks);
	host_close(&d.host);
	if (d.checks)
		print_json(&d);
	else
		printf("\n%s\n", d.possible ? "Guests can run here and migrate to and from here."
					    : "Guests cannot run or migrate here: see MISSING.");
	return d.possible ? EXIT_OK : EXIT_FAILED;
}
