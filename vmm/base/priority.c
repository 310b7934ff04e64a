#include "vmm/base/priority.h"

#include <sys/resource.h>

#define NICE_LAST 10

void thread_step_back(void)
{
	/* A user's own, lower place is kept. */
	if (getpriority(PRIO_PROCESS, 0) < NICE_LAST)
		(void)setpriority(PRIO_PROCESS, 0, NICE_LAST);
}
