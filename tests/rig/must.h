/*
 * For calls that a test takes for granted: must(vm_pause(vm, e)) fails the test with the call's own
 * words. @e is the macro's. Include <cmocka.h> before.
 */
#pragma once

#include "vmm/base/err.h"

#define must(call)                              \
	do {                                    \
		struct err e_ = ERR_INIT;       \
		struct err *e = &e_;            \
		if ((call) < 0)                 \
			fail_msg("%s", e_.msg); \
	} while (0)
