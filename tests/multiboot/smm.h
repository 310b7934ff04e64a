/* System management mode. */
#pragma once

#include "tests/multiboot/checks.h"

/* Does an SMI come, and its handler let the CPU go on? The machine's own handler. */
bool smi_comes_back(const struct boot_info *info);

/* smm_work.h says what; does not return. */
_Noreturn void smm_work(void);
