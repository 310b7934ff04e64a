#include "vmm/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warning", "info", "debug"};

static enum log_level threshold(void)
{
	const char *wanted = getenv("GODWIT_LOG");

	for (int i = LOG_LEVEL_ERROR; wanted && i <= LOG_LEVEL_DEBUG; i++)
		if (!strcmp(wanted, level_names[i]))
			return (enum log_level)i;
	return LOG_LEVEL_WARNING;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int head;
	int body;
	size_t len;

	if (level > threshold())
		return;
	head = snprintf(line, sizeof(line), "godwit: %s: ", level_names[level]);
	va_start(ap, fmt);
	body = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, fmt, ap);
	va_end(ap);
	len = (size_t)head + (body > 0 ? (size_t)body : 0);
	if (len > sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	if (write(STDERR_FILENO, line, len) < 0)
		return; /* nowhere left to say it */
}
