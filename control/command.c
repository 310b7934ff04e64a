#include "control/command.h"

#include <stdio.h>

#include "vmm/base/log.h"

int command_fail(const struct err *e)
{
	log_error("%s", e->msg);
	if (e->file)
		log_debug("detected at %s:%d (%s)", e->file, e->line, err_kind_name(e->kind));
	return e->kind == ERR_USAGE ? EXIT_USAGE : EXIT_FAILED;
}
