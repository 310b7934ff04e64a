/*
 * Tests that look at a device at a certain time. A machine may stand still for a while, or give its
 * processors to others: a look that comes too late says nothing, so the test begins anew. What is
 * wrong is wrong at every look that comes in time.
 *
 * IN_TIME(name) { ... } is a cmocka test whose body has the fixture @x; it returns false where it
 * was late (ask after looking and before judging), which makes a new fixture for the next try.
 * Include where struct fixture, setup() and teardown() are known.
 */
#pragma once

#include <stdbool.h>

#include "vmm/base/clock.h"

#define IN_TIME_PATIENCE_NS (60 * NS_PER_S)

#define IN_TIME(name)                                                                            \
	static bool name##_in_time(struct fixture *x);                                           \
	static void name(void **state)                                                           \
	{                                                                                        \
		uint64_t end = clock_now_ns() + IN_TIME_PATIENCE_NS;                             \
                                                                                                 \
		while (!name##_in_time(*state)) {                                                \
			if (clock_now_ns() > end)                                                \
				fail_msg("this machine stands still too often to look in time"); \
			assert_int_equal(teardown(state), 0);                                    \
			assert_int_equal(setup(state), 0);                                       \
		}                                                                                \
	}                                                                                        \
	static bool name##_in_time(struct fixture *x)

static inline bool in_time_late(uint64_t since_ns, uint64_t allowed_ns)
{
	return clock_now_ns() - since_ns >= allowed_ns;
}
