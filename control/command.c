#include "control/command.h"

#include <stdint.h>

#include "vmm/base/log.h"

void command_turn_help(int argc, char **argv)
{
	for (int i = 1; i + 1 < argc; i++)
		argv[i] = argv[i + 1];
	argv[argc - 1] = (char *)(uintptr_t) "--help"; /* nobody writes there */
}

int command_fail(const struct err *e)
{
	log_error("%s", e->msg);
	if (e->file)
		log_debug("detected at %s:%d (%s)", e->file, e->line, err_kind_name(e->kind));
	if (e->kind == ERR_CANCELLED)
		return EXIT_CANCELLED;
	return e->kind == ERR_USAGE ? EXIT_USAGE : EXIT_FAILED;
}
