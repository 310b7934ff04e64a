/*
 * Memory that is needed in a hurry. No state of its own; of the thread that calls.
 */
#pragma once

#include <stddef.h>

/* What fits below the sizes at which malloc asks the kernel each time, or gives memory back. */
#define HEAP_WARM_BYTES (96 << 10)

/* What this thread allocates next, HEAP_WARM_BYTES of it, costs no page fault: the allocator keeps
 * that much which the kernel has given already. For threads that must be quick later on, while a
 * guest waits: a new page costs a microsecond, and in a guest ten or more. (glibc has an arena for
 * each thread, and keeps up to M_TRIM_THRESHOLD, 128 KiB, on its top: mallopt(3).) */
void heap_warm(void);
