#include "migration/zero_page.h"

#include <stdint.h>
#include <string.h>

#include "vmm/mem.h"

bool page_is_zero(const void *page)
{
	uint64_t head[8];

	memcpy(head, page, sizeof(head));
	if (head[0] | head[1] | head[2] | head[3] | head[4] | head[5] | head[6] | head[7])
		return false;
	/* The rest equals itself shifted by one word, and the first word is zero. */
	return !memcmp(page, (const uint8_t *)page + sizeof(uint64_t),
		       PAGE_BYTES - sizeof(uint64_t));
}
