#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/unit/cmocka_all.h"
#include "vmm/base/host_memory.h"

#define MIB (1ull << 20)

static void put(const char *root, const char *path, const char *text)
{
	char full[512];
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')); at++) {
		*at = '\0';
		assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
		*at = '/';
	}
	f = fopen(full, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	fclose(f);
}

static int make_root(void **state)
{
	char *root = strdup("/tmp/godwit-host-XXXXXX");

	*state = root;
	if (!mkdtemp(root))
		return -1;
	put(root, "/proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    4096 kB\nSwapFree: 0 kB\n");
	return 0;
}

static int remove_root(void **state)
{
	char command[64];
	int status;

	snprintf(command, sizeof(command), "rm -r %s", (char *)*state);
	status = system(command);
	free(*state);
	return status;
}

static struct host_memory read_at(const char *root)
{
	struct host_memory m;

	host_memory_read(root, &m);
	return m;
}

static void test_the_host_says(void **state)
{
	assert_int_equal(read_at(*state).available_bytes, 4 * MIB);
	assert_false(read_at(*state).limited);
	put(*state, "/proc/meminfo", "MemAvailable: 4096 kB\nSwapFree: 1024 kB\n");
	assert_int_equal(read_at(*state).available_bytes, 5 * MIB);
}

static void test_the_tightest_group_of_version_2(void **state)
{
	put(*state, "/proc/self/cgroup", "0::/a/b\n");
	put(*state, "/sys/fs/cgroup/a/b/memory.max", "max\n");
	put(*state, "/sys/fs/cgroup/a/b/memory.current", "1048576\n");
	put(*state, "/sys/fs/cgroup/a/memory.max", "3145728\n");
	put(*state, "/sys/fs/cgroup/a/memory.current", "2097152\n");
	assert_int_equal(read_at(*state).available_bytes, 1 * MIB);
	assert_true(read_at(*state).limited);
	put(*state, "/sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 1048576\n");
	assert_int_equal(read_at(*state).available_bytes, 2 * MIB);
}

static void test_a_group_of_version_1(void **state)
{
	put(*state, "/proc/self/cgroup", "5:cpu:/x\n4:memory:/vm\n");
	put(*state, "/sys/fs/cgroup/memory/vm/memory.limit_in_bytes", "2097152\n");
	put(*state, "/sys/fs/cgroup/memory/vm/memory.usage_in_bytes", "4194304\n");
	assert_int_equal(read_at(*state).available_bytes, 0);
	assert_true(read_at(*state).limited);
}

static void test_nothing_known_is_no_limit(void **state)
{
	(void)state;
	assert_true(read_at("/nonexistent").available_bytes == UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_the_host_says, make_root, remove_root),
		cmocka_unit_test_setup_teardown(test_the_tightest_group_of_version_2, make_root,
						remove_root),
		cmocka_unit_test_setup_teardown(test_a_group_of_version_1, make_root, remove_root),
		cmocka_unit_test(test_nothing_known_is_no_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
