/* vmm/blank.c: a machine is made of one that was there before, and none is left open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "need_kvm.h"
#include "vmm/blank.h"
#include "vmm/vm.h"

static uint32_t nr_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	uint32_t nr = 0;

	assert_non_null(d);
	while (readdir(d))
		nr++;
	closedir(d);
	return nr;
}

static struct vm_blank *make(void)
{
	struct vm_blank *b;
	struct err e = ERR_INIT;

	assert_int_equal(vm_blank_new(&b, &e), 0);
	return b;
}

static void one_that_is_not_used_leaves_nothing(void **state)
{
	uint32_t before;

	(void)state;
	need_kvm();
	before = nr_fds();
	vm_blank_free(make());
	vm_blank_free(NULL);
	assert_int_equal(nr_fds(), before);
}

static void a_machine_is_made_of_it(void **state)
{
	struct vm_config config = {.memory_bytes = 16 << 20, .nr_cpus = 2};
	struct err e = ERR_INIT;
	uint32_t before;
	struct vm *vm;
	int fd;

	(void)state;
	need_kvm();
	before = nr_fds();
	config.blank = make();
	fd = config.blank->vm_fd;
	assert_int_equal(vm_new(&config, NULL, NULL, &vm, &e), 0);
	assert_int_equal(vm_fd(vm), fd);
	vm_free(vm);
	assert_int_equal(nr_fds(), before);
}

/* Before it is looked at, after, and after its vCPU has been taken. */
static void a_machine_that_cannot_be_made_takes_it_too(void **state)
{
	struct vm_config bad[] = {
		{.memory_bytes = 16 << 20, .nr_cpus = 1, .kernel = "/nonexistent"},
		{.memory_bytes = 16 << 20, .nr_cpus = 0},
		{.memory_bytes = 16 << 20, .nr_cpus = 1, .cpu = "nonesuch"},
	};

	(void)state;
	need_kvm();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint32_t before = nr_fds();
		struct err e = ERR_INIT;
		struct vm *vm;

		bad[i].blank = make();
		assert_true(vm_new(&bad[i], NULL, NULL, &vm, &e) < 0);
		assert_int_equal(nr_fds(), before);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_is_not_used_leaves_nothing),
		cmocka_unit_test(a_machine_is_made_of_it),
		cmocka_unit_test(a_machine_that_cannot_be_made_takes_it_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
