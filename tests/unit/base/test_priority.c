/* vmm/base/priority.h */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sys/resource.h>

#include "vmm/base/priority.h"

struct places {
	int before, after, again;
};

static void *step_back(void *arg)
{
	struct places *p = arg;

	p->before = getpriority(PRIO_PROCESS, 0);
	thread_step_back();
	p->after = getpriority(PRIO_PROCESS, 0);
	setpriority(PRIO_PROCESS, 0, 15);
	thread_step_back();
	p->again = getpriority(PRIO_PROCESS, 0);
	return NULL;
}

/* One thread steps back, the others stay; and whoever is behind already is not helped forward. */
static void only_this_thread_steps_back(void **state)
{
	int ours = getpriority(PRIO_PROCESS, 0);
	struct places p;
	pthread_t thread;

	(void)state;
	if (ours >= 10)
		skip();
	assert_int_equal(pthread_create(&thread, NULL, step_back, &p), 0);
	pthread_join(thread, NULL);
	assert_int_equal(p.before, ours);
	assert_int_equal(p.after, 10);
	assert_int_equal(p.again, 15);
	assert_int_equal(getpriority(PRIO_PROCESS, 0), ours);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(only_this_thread_steps_back)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
