/* Is this page all zero? Reads only the first line of almost every page that is not. Any thread. */
#pragma once

#include <stdbool.h>

bool page_is_zero(const void *page);
