/* "Did you mean ...?" for a misspelt name. Pure; any thread. */
#pragma once

#include <stddef.h>

/* Edit distance (insert, delete, replace, swap neighbours) of two short words; large when one of
 * them is longer than 63 bytes. */
size_t suggest_distance(const char *a, const char *b);

/* The name closest to @wrong among @nr names read @stride bytes apart from @first (the address of a
 * `const char *` member of the first element), or NULL when none is close. */
const char *suggest_name(const char *wrong, const char *const *first, size_t nr, size_t stride);
