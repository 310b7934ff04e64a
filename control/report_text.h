/* A migration for people: the report at the end and the line while it runs. 79 columns. */
#pragma once

#include <stdio.h>

#include "migration/report.h"

/* @arrived: told from the destination's side. */
void report_print(FILE *out, const struct migration_report *report, bool arrived);

/* One line without a newline: "round 3  62 %  9.41 Gbit/s ...". Returns @out. */
char *report_progress(char *out, size_t cap, const struct migration_report *report, bool arrived);

/*
 * A line that is rewritten in place, on standard error when that is a terminal and nothing at all
 * otherwise. progress_clear() before printing anything else.
 */
struct progress {
	bool enabled;
	bool shown;
};

void progress_init(struct progress *p);
void progress_show(struct progress *p, const struct migration_report *report, bool arrived);
void progress_clear(struct progress *p);
