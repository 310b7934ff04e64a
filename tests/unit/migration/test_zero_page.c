#include <stdlib.h>
#include <string.h>

#include "migration/zero_page.h"
#include "tests/unit/cmocka_all.h"
#include "vmm/mem.h"

static void test_every_single_byte_counts(void **state)
{
	uint8_t *page = aligned_alloc(PAGE_BYTES, PAGE_BYTES);

	(void)state;
	memset(page, 0, PAGE_BYTES);
	assert_true(page_is_zero(page));
	for (size_t i = 0; i < PAGE_BYTES; i++) {
		page[i] = 1;
		if (page_is_zero(page))
			fail_msg("byte %zu was overlooked", i);
		page[i] = 0;
	}
	assert_true(page_is_zero(page));
	memset(page, 0xff, PAGE_BYTES);
	assert_false(page_is_zero(page));
	free(page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_single_byte_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
