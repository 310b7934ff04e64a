/* JSON strings of text that may not be UTF-8: bytes of a command line, a message cut off in the
 * middle of a character. Bytes outside ASCII become '?' when they do not decode. Pure. */
#pragma once

#include <jansson.h>

/* New reference; NULL only when memory is short. */
json_t *json_text(const char *text);
