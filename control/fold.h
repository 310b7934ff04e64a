/* Text folded at words so that lines stay within 79 columns. */
#pragma once

#include <stdio.h>

/* Print @text and a newline; the cursor is at column @indent, where further lines start too. */
void fold_print(FILE *out, const char *text, int indent);
