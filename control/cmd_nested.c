/* godwit nested: what this host can do for hypervisors as guests, and whether it does it well. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/command.h"
#include "control/fold.h"
#include "control/nested_commands.h"
#include "control/options.h"
#include "control/suggest.h"
#include "nested/caps.h"
#include "vmm/kvm.h"

struct probe_options {
	bool json;
};

static const struct option_spec probe_specs[] = {
	{"json", NULL, "print the findings as JSON", OPTION_FLAG,
	 offsetof(struct probe_options, json), 0, 0},
};

static const char *const no_positional[] = {NULL};

static const struct syntax probe_syntax = {
	.command = "nested probe",
	.synopsis = "[--json]",
	.about = "Say whether guests on this host can be hypervisors, what they get, and if not, "
		 "why\n"
		 "not and what to do. Changes nothing.",
	.options = probe_specs,
	.nr_options = 1,
	.positional = no_positional,
	.epilogue = "Exit status: 0 they can, 1 they cannot.",
};

static json_t *svm_json(const struct nested_caps *c)
{
	json_t *names = json_array();

	for (unsigned int i = 0; i < 32; i++)
		if (c->svm_features >> i & 1 && nested_svm_features[i])
			json_array_append_new(names, json_string(nested_svm_features[i]));
	return json_pack("{s:i,s:I,s:I,s:o}", "revision", (int)c->svm_revision, "asids",
			 (json_int_t)c->svm_asids, "features_edx", (json_int_t)c->svm_features,
			 "features", names);
}

static json_t *vmx_json(const struct nested_caps *c)
{
	json_t *msrs = json_object();
	char name[16], value[24];

	for (uint32_t i = 0; i < c->nr_vmx; i++) {
		snprintf(name, sizeof(name), "0x%x", c->vmx[i].index);
		snprintf(value, sizeof(value), "0x%llx", (unsigned long long)c->vmx[i].value);
		json_object_set_new(msrs, name, json_string(value));
	}
	return msrs;
}

static void print_json(const struct nested_caps *c, const char *why)
{
	json_t *j = json_pack("{s:b,s:s}", "possible", c->vendor != NESTED_NONE, "vendor",
			      nested_vendor_name(c->vendor));

	if (c->vendor == NESTED_NONE) {
		json_object_set_new(j, "why", json_string(why));
	} else {
		json_object_set_new(j, "state_bytes", json_integer(c->state_bytes));
		json_object_set_new(j, "exception_payload", json_boolean(c->exception_payload));
		json_object_set_new(j, "triple_fault_event", json_boolean(c->triple_fault_event));
	}
	if (c->vendor == NESTED_SVM)
		json_object_set_new(j, "svm", svm_json(c));
	if (c->vendor == NESTED_VMX)
		json_object_set_new(j, "vmx_msrs", vmx_json(c));
	json_dumpf(j, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(j);
}

static void print_row(const char *name, const char *text)
{
	printf("%-20s ", name);
	fold_print(stdout, text, 21);
}

static void print_svm(const struct nested_caps *c)
{
	char text[400];
	int used = snprintf(text, sizeof(text), "revision %u, %u address space ids;",
			    c->svm_revision, c->svm_asids);

	for (unsigned int i = 0; i < 32; i++)
		if (c->svm_features >> i & 1 && nested_svm_features[i])
			used += snprintf(text + used, sizeof(text) - (size_t)used, " %s",
					 nested_svm_features[i]);
	print_row("SVM features", text);
}

static void print_vmx(const struct nested_caps *c)
{
	char text[40];

	for (uint32_t i = 0; i < c->nr_vmx; i++) {
		snprintf(text, sizeof(text), "MSR 0x%x", c->vmx[i].index);
		printf("%-20s 0x%016llx\n", text, (unsigned long long)c->vmx[i].value);
	}
}

static void print_text(const struct nested_caps *c, const char *why)
{
	char text[200];

	if (c->vendor == NESTED_NONE) {
		print_row("hypervisors", "cannot be guests here");
		print_row("why", why);
		return;
	}
	snprintf(text, sizeof(text), "can be guests here (%s): --nested on",
		 nested_vendor_name(c->vendor));
	print_row("hypervisors", text);
	snprintf(text, sizeof(text), "up to %u bytes for each vCPU", c->state_bytes);
	print_row("state that moves", text);
	print_row("pending exceptions",
		  c->exception_payload ? "told from injected ones"
				       : "look like injected ones: one that L1 intercepts "
					 "may reach L2 after a migration; use Linux 5.1 or "
					 "later");
	print_row("triple fault of L2", c->triple_fault_event
						? "moves while pending"
						: "is lost while pending: use Linux 6.1 or later");
	if (c->vendor == NESTED_SVM)
		print_svm(c);
	else
		print_vmx(c);
}

int nested_probe(int argc, char **argv)
{
	struct probe_options o = {.json = false};
	struct nested_caps caps;
	struct positionals p;
	struct err e = ERR_INIT;
	char why[240];
	int fd, ret;
	int status = options_parse_or_exit(&probe_syntax, argc, argv, &o, &p);

	if (status >= 0)
		return status;
	if (kvm_open(&fd, &e) < 0)
		return command_fail(&e);
	ret = nested_caps_probe(fd, &caps, why, sizeof(why), &e);
	close(fd);
	if (ret < 0)
		return command_fail(&e);
	if (o.json)
		print_json(&caps, why);
	else
		print_text(&caps, why);
	return caps.vendor == NESTED_NONE ? EXIT_FAILED : EXIT_OK;
}

/* ---- All of them ---- */

static const struct command commands[] = {
	{"probe", "whether guests can be hypervisors here, and why not", nested_probe},
	{"soak", "move a hypervisor with live guests again and again", nested_soak},
	{"bench", "what an exit costs at L1 and at L2", nested_bench},
	{"view", "what a running guest does as a hypervisor", nested_view_command},
};

#define NR_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int usage(FILE *out, int status)
{
	fputs("usage: godwit nested COMMAND [OPTION]...\n\n", out);
	for (size_t i = 0; i < NR_COMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
	fputs("\nL1 is the guest that is a hypervisor, L2 its guest, L0 this host. "
	      "docs/nested.md\n",
	      out);
	return status;
}

int cmd_nested(int argc, char **argv)
{
	const char *nearest;
	struct err e = ERR_INIT;

	if (argc < 2)
		return usage(stderr, EXIT_USAGE);
	if (!strcmp(argv[1], "help") && argc > 2)
		command_turn_help(argc, argv);
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return usage(stdout, EXIT_OK);
	for (size_t i = 0; i < NR_COMMANDS; i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	nearest = suggest_name(argv[1], &commands[0].name, NR_COMMANDS, sizeof(commands[0]));
	err_set(&e, ERR_USAGE, EINVAL, "there is no command 'nested %s'%s%s%s", argv[1],
		nearest ? "; did you mean '" : "; see 'godwit nested --help'",
		nearest ? nearest : "", nearest ? "'?" : "");
	return command_fail(&e);
}
