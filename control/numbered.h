/*
 * Texts with a number in them: "unix:/run/vm-%n.qmp" is "unix:/run/vm-3.qmp" for 3. %% is a percent
 * sign; anything else after one is refused.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"

/* Has @pattern a %n in it? ERR_USAGE when it is malformed. */
int numbered_check(const char *pattern, bool *has_number, struct err *e);

/* The caller frees it; NULL without memory. @pattern has been checked. */
char *numbered_text(const char *pattern, uint32_t number);
