#include "vmm/base/heap.h"

#include <stdlib.h>
#include <string.h>

void heap_warm(void)
{
	void *block = malloc(HEAP_WARM_BYTES);

	if (!block)
		return;
	explicit_bzero(block, HEAP_WARM_BYTES); /* memset() before free() may be left out */
	free(block);
}
