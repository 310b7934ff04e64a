#include "control/nested_lines.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/base/clock.h"

/* The last field is what tells a whole line from one that a reset or a mixed-in message cut short.
 */
struct speaker {
	const char *name;
	const char *gap;
	const char *error[2];
	const char *last;
};

static const struct speaker l1 = {
	"L1: busy ", "late_us", {"mem_bad", "mono_back"}, "real_drift_us"};
static const struct speaker l2 = {"L2: t=", "maxgap_us", {"errors", NULL}, "cpus"};

/* The number behind " KEY=" in the line of @len bytes. */
static bool field(const char *line, size_t len, const char *key, uint64_t *value)
{
	char pattern[24];
	size_t width = (size_t)snprintf(pattern, sizeof(pattern), " %s=", key);
	const char *at = memmem(line, len, pattern, width);

	if (at)
		*value = strtoull(at + width, NULL, 10);
	return at != NULL;
}

static void read_line(const struct speaker *s, const char *line, size_t len,
		      struct lines_pulse *out)
{
	uint64_t gap_us = 0, errors = 0, last = 0, value;

	if (len < strlen(s->name) || strncmp(line, s->name, strlen(s->name)) ||
	    !field(line, len, s->gap, &gap_us) || !field(line, len, s->last, &last))
		return;
	for (int i = 0; i < 2 && s->error[i]; i++)
		if (field(line, len, s->error[i], &value))
			errors += value;
	out->nr++;
	out->nr_errors = errors;
	if (gap_us * NS_PER_US > out->gap_ns)
		out->gap_ns = gap_us * NS_PER_US;
}

void lines_read(const char *text, struct lines *out)
{
	const char *end;

	memset(out, 0, sizeof(*out));
	for (; (end = strchr(text, '\n')) != NULL; text = end + 1) {
		read_line(&l1, text, (size_t)(end - text), &out->l1);
		read_line(&l2, text, (size_t)(end - text), &out->l2);
	}
}
