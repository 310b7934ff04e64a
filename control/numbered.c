#include "control/numbered.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int numbered_check(const char *pattern, bool *has_number, struct err *e)
{
	*has_number = false;
	for (const char *c = strchr(pattern, '%'); c; c = strchr(c + 2, '%')) {
		if (c[1] != 'n' && c[1] != '%')
			return err_set(e, ERR_USAGE, EINVAL,
				       "'%.200s': after %% come n, for the guest's number, or "
				       "another %%",
				       pattern);
		*has_number |= c[1] == 'n';
	}
	return 0;
}

char *numbered_text(const char *pattern, uint32_t number)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	for (const char *c = pattern; *c; c++) {
		if (*c != '%')
			fputc(*c, out);
		else if (*++c == 'n')
			fprintf(out, "%u", number);
		else
			fputc('%', out);
	}
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}
