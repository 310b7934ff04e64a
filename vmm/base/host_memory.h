/*
 * How much more memory this process can have before the kernel starts to kill. Read from /proc and
 * /sys when asked; no state, any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct host_memory {
	uint64_t available_bytes;
	bool limited; /* by a control group rather than by the host's size */
};

/* The least of what the host has available and what each memory control group above this process
 * still allows, with what can be reclaimed or swapped out. Without limits that can be read it is
 * UINT64_MAX. @root goes before every path: "" outside tests. Sources: proc(5) MemAvailable, the
 * kernel's admin-guide on cgroup-v1/memory and cgroup-v2. */
void host_memory_read(const char *root, struct host_memory *out);
