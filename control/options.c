#include "control/options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/command.h"
#include "control/suggest.h"
#include "vmm/base/units.h"

#define HELP_COLUMN 26

static const struct option_spec *find(const struct syntax *syntax, const char *name, size_t len)
{
	for (size_t i = 0; i < syntax->nr_options; i++) {
		const char *candidate = syntax->options[i].name;

		if (strlen(candidate) == len && !memcmp(candidate, name, len))
			return &syntax->options[i];
	}
	return NULL;
}

static int unknown(const struct syntax *syntax, const char *name, size_t len, struct err *e)
{
	char wrong[64];
	const char *nearest = NULL;

	snprintf(wrong, sizeof(wrong), "%.*s", (int)(len < 63 ? len : 63), name);
	if (syntax->nr_options)
		nearest = suggest_name(wrong, &syntax->options[0].name, syntax->nr_options,
				       sizeof(syntax->options[0]));
	if (nearest)
		return err_set(e, ERR_USAGE, EINVAL, "%s has no option --%s; did you mean --%s?",
			       syntax->command, wrong, nearest);
	return err_set(e, ERR_USAGE, EINVAL, "%s has no option --%s; see 'godwit %s --help'",
		       syntax->command, wrong, syntax->command);
}

static int append(struct option_list *list, const char *text, struct err *e)
{
	if (list->nr == OPTION_MAX_LIST)
		return err_set(e, ERR_USAGE, E2BIG, "given more than %d times", OPTION_MAX_LIST);
	list->at[list->nr++] = text;
	return 0;
}

static int store(const struct option_spec *spec, const char *text, void *target, struct err *e)
{
	void *member = (char *)target + spec->offset;

	switch (spec->kind) {
	case OPTION_STRING:
		*(const char **)member = text;
		return 0;
	case OPTION_LIST:
		return append(member, text, e);
	case OPTION_FLAG:
		*(bool *)member = true;
		return 0;
	case OPTION_BYTES:
		return units_parse_bytes(text, member, e);
	case OPTION_NS:
		return units_parse_ns(text, member, e);
	case OPTION_RATE:
		return units_parse_rate(text, member, e);
	case OPTION_COUNT:
		return units_parse_u64(text, spec->min, spec->max, member, e);
	}
	return -EINVAL;
}

/* argv[*i] is an option; *i is left at the last word it took. */
static int parse_option(const struct syntax *syntax, int argc, char **argv, int *i, void *target,
			struct err *e)
{
	const char *name = argv[*i] + 2;
	size_t len = strcspn(name, "=");
	const struct option_spec *spec = find(syntax, name, len);
	const char *value = name[len] == '=' ? name + len + 1 : NULL;

	if (!spec)
		return unknown(syntax, name, len, e);
	if (spec->kind == OPTION_FLAG && value)
		return err_set(e, ERR_USAGE, EINVAL, "--%s takes no value", spec->name);
	if (spec->kind != OPTION_FLAG && !value) {
		if (*i + 1 >= argc)
			return err_set(e, ERR_USAGE, EINVAL, "--%s needs a value: --%s %s",
				       spec->name, spec->name, spec->value);
		value = argv[++*i];
	}
	if (store(spec, value, target, e) < 0)
		return err_prefix(e, "--%s", spec->name);
	return 0;
}

static int add_positional(const struct syntax *syntax, char *word, struct positionals *out,
			  struct err *e)
{
	bool expected = syntax->more_positional;

	for (size_t i = 0; !expected && syntax->positional[i]; i++)
		expected = i >= out->nr;
	if (!expected)
		return err_set(e, ERR_USAGE, EINVAL, "unexpected '%s'; see 'godwit %s --help'",
			       word, syntax->command);
	if (out->nr == OPTION_MAX_POSITIONAL)
		return err_set(e, ERR_USAGE, E2BIG, "too many arguments at '%s'", word);
	out->at[out->nr++] = word;
	return 0;
}

static int check_positionals(const struct syntax *syntax, const struct positionals *p,
			     struct err *e)
{
	for (size_t i = 0; syntax->positional[i]; i++)
		if (i >= p->nr)
			return err_set(e, ERR_USAGE, EINVAL, "%s is missing: godwit %s %s",
				       syntax->positional[i], syntax->command, syntax->synopsis);
	return 0;
}

static bool wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return true;
	return false;
}

enum options_result options_parse(const struct syntax *syntax, int argc, char **argv, void *target,
				  struct positionals *positionals, struct err *e)
{
	bool only_words = false;
	int ret = 0;

	positionals->nr = 0;
	if (wants_help(argc, argv))
		return OPTIONS_HELP;
	for (int i = 1; i < argc && !ret; i++) {
		if (!only_words && !strcmp(argv[i], "--"))
			only_words = true;
		else if (!only_words && !strncmp(argv[i], "--", 2))
			ret = parse_option(syntax, argc, argv, &i, target, e);
		else if (!only_words && argv[i][0] == '-' && argv[i][1])
			ret = err_set(e, ERR_USAGE, EINVAL,
				      "unknown option '%s'; options are long: --name", argv[i]);
		else
			ret = add_positional(syntax, argv[i], positionals, e);
	}
	if (!ret)
		ret = check_positionals(syntax, positionals, e);
	return ret ? OPTIONS_ERROR : OPTIONS_OK;
}

int options_check_writable(const char *option, const char *path, struct err *e)
{
	FILE *f = path ? fopen(path, "ae") : NULL;

	if (f)
		fclose(f);
	if (f || !path)
		return 0;
	return err_set(e, ERR_USAGE, errno, "--%s %s: %s", option, path, strerrordesc_np(errno));
}

static void print_option(FILE *out, const char *name, const char *value, const char *help)
{
	char left[64];
	int used = snprintf(left, sizeof(left), "  --%s%s%s", name, value ? " " : "",
			    value ? value : "");

	fputs(left, out);
	if (used >= HELP_COLUMN) {
		fputc('\n', out);
		used = 0;
	}
	fprintf(out, "%*s", HELP_COLUMN - used, "");
	for (; *help; help++) {
		fputc(*help, out);
		if (*help == '\n')
			fprintf(out, "%*s", HELP_COLUMN, "");
	}
	fputc('\n', out);
}

static void print_help(FILE *out, const struct syntax *syntax)
{
	fprintf(out, "usage: godwit %s %s\n\n%s\n\n", syntax->command, syntax->synopsis,
		syntax->about);
	for (size_t i = 0; i < syntax->nr_options; i++)
		print_option(out, syntax->options[i].name, syntax->options[i].value,
			     syntax->options[i].help);
	print_option(out, "help", NULL, "this text");
	if (syntax->epilogue)
		fprintf(out, "\n%s\n", syntax->epilogue);
}

int options_parse_or_exit(const struct syntax *syntax, int argc, char **argv, void *target,
			  struct positionals *positionals)
{
	struct err e = ERR_INIT;

	switch (options_parse(syntax, argc, argv, target, positionals, &e)) {
	case OPTIONS_OK:
		return -1;
	case OPTIONS_HELP:
		print_help(stdout, syntax);
		return EXIT_OK;
	case OPTIONS_ERROR:
		break;
	}
	return command_fail(&e);
}
