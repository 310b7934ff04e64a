/*
 * How one sees that a lab's guest is alive: by its report page, by words on its serial line, or by
 * the lines of its L1 and its L2. One table for each way; the lab picks one when it is made.
 */
#pragma once

#include "control/nested_lab.h"
#include "migration/blackout.h"

/* What the guest last was at: the parts of it that its way of telling uses. */
struct life_pulse {
	struct blackout_mark report;
	size_t told; /* bytes of lab_told() */
};

struct life_ops {
	uint64_t look_ns; /* how often it pays to look */

	/* Does it say that something is wrong? */
	int (*ill)(const struct lab *l, struct err *e);

	/* Do its guests run? */
	bool (*ready)(const struct lab *l);

	void (*take)(const struct lab *l, struct life_pulse *p);

	/* Has every part moved since @p? If not, @still names one that has not. */
	bool (*moved)(const struct lab *l, const struct life_pulse *p, char *still, size_t cap);

	/* The gaps that it felt since @p; NULL: it feels none. */
	void (*gaps)(const struct lab *l, const struct life_pulse *p, struct lab_move *out);
};

extern const struct life_ops life_by_report;
extern const struct life_ops life_by_words;
extern const struct life_ops life_by_lines;

const struct life_ops *life_of(const struct lab_config *config);
