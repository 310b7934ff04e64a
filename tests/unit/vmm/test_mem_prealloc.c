/* vmm/mem_prealloc.c: all of RAM is there afterwards, and what cannot be had is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "vmm/base/host_memory.h"
#include "vmm/mem_prealloc.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static struct guest_mem *make(uint64_t bytes)
{
	struct guest_mem *m;
	struct err e = ERR_INIT;

	assert_int_equal(guest_mem_new(bytes, &m, &e), 0);
	return m;
}

static uint64_t allocated_bytes(const struct guest_mem *m)
{
	struct stat st;

	assert_int_equal(fstat(guest_mem_fd(m), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* Several pieces, the last of them not a whole one, whoever of the threads takes which. */
static void all_of_it_is_allocated(void **state)
{
	struct guest_mem *m = make(150 * MIB);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(allocated_bytes(m), 0);
	assert_int_equal(mem_prealloc(m, &e), 0);
	assert_int_equal(allocated_bytes(m), 150 * MIB);
	guest_mem_free(m);
}

static void it_is_still_zeroes_and_unmarked(void **state)
{
	struct guest_mem *m = make(4 * MIB);
	struct err e = ERR_INIT;
	struct bitmap marks;
	uint64_t word = 1;

	(void)state;
	assert_int_equal(mem_prealloc(m, &e), 0);
	assert_int_equal(guest_mem_read(m, 4 * MIB - 8, &word, sizeof(word), &e), 0);
	assert_int_equal(word, 0);
	assert_int_equal(bitmap_init(&marks, guest_mem_nr_gfns(m), &e), 0);
	guest_mem_take_marks(m, &marks);
	assert_int_equal(bitmap_count(&marks), 0);
	bitmap_fini(&marks);
	guest_mem_free(m);
}

static void more_than_the_host_has_is_refused_before_any_is_taken(void **state)
{
	struct err e = ERR_INIT;
	struct host_memory host;
	struct guest_mem *m;

	(void)state;
	host_memory_read("", &host);
	if (host.available_bytes > MEM_MAX_BYTES / 2)
		skip();
	m = make((host.available_bytes / GIB + 64) * GIB);
	assert_int_equal(mem_prealloc(m, &e), -ENOMEM);
	assert_non_null(strstr(e.msg, "--prealloc"));
	assert_int_equal(allocated_bytes(m), 0);
	guest_mem_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_of_it_is_allocated),
		cmocka_unit_test(it_is_still_zeroes_and_unmarked),
		cmocka_unit_test(more_than_the_host_has_is_refused_before_any_is_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
