/* vmm/base/heap.c: what is allocated after heap_warm() costs no page fault. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "vmm/base/heap.h"

#define NR_BLOCKS   20
#define BLOCK_BYTES 4000

static long nr_faults(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_THREAD, &usage), 0);
	return usage.ru_minflt;
}

/* A thread of its own has an arena of its own, that nobody has used. */
static void *allocate(void *arg)
{
	long *faults = arg;
	void *block[NR_BLOCKS];
	long before;

	heap_warm();
	before = nr_faults();
	for (int i = 0; i < NR_BLOCKS; i++) {
		block[i] = malloc(BLOCK_BYTES);
		assert_non_null(block[i]);
		explicit_bzero(block[i], BLOCK_BYTES);
	}
	*faults = nr_faults() - before;
	for (int i = 0; i < NR_BLOCKS; i++)
		free(block[i]);
	return NULL;
}

static void what_comes_next_costs_no_fault(void **state)
{
	pthread_t thread;
	long faults = -1;

	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	print_message("skipped: the sanitizer has an allocator of its own\n");
	skip();
#endif
	assert_int_equal(pthread_create(&thread, NULL, allocate, &faults), 0);
	pthread_join(thread, NULL);
	assert_in_range(faults, 0, 2); /* of 20; its own stack, say */
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(what_comes_next_costs_no_fault)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
