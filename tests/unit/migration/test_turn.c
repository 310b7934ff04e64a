/* migration/turn.c: who is held up before a pause, and who is not. The guest counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sys/resource.h>

#include "migration/turn.h"
#include "tests/unit/vmm/need_kvm.h"
#include "tests/unit/vmm/tiny_guest.h"
#include "vmm/base/clock.h"
#include "vmm/vcpu.h"

/* incl [TINY_DATA_GPA]; jmp back */
static const uint8_t counter[] = {0xff, 0x05, 0x00, 0x00, 0x20, 0x00, 0xeb, 0xf8};

/* How often this thread has gone to sleep. */
static long nr_sleeps(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_THREAD, &usage), 0);
	return usage.ru_nvcsw;
}

static uint64_t ran_ns(const struct turn *since, struct vm *vm)
{
	return vcpu_cpu_time_ns(vm_vcpu(vm, 0)) - since->cpu_ns[0];
}

static void without_a_mark_nobody_waits(void **state)
{
	struct turn turn = {.at_ns = 0};
	struct tiny t;
	long before;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, counter, sizeof(counter));
	before = nr_sleeps();
	turn_await(&turn, t.vm);
	assert_int_equal(nr_sleeps(), before);
	tiny_free(&t);
}

/* On a busy machine the guest may have waited after all: then for a few tries. */
static void who_runs_is_not_held_up(void **state)
{
	bool seen = false;
	struct tiny t;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, counter, sizeof(counter));
	must(vm_resume(t.vm, e));
	tiny_wait_moving(&t);
	for (int i = 0; i < 1000 && !seen; i++) {
		struct turn turn;
		long before;

		turn_mark(&turn, t.vm);
		usleep(10000);
		before = nr_sleeps();
		turn_await(&turn, t.vm);
		seen = nr_sleeps() == before;
	}
	assert_true(seen);
	must(vm_pause(t.vm, e));
	tiny_free(&t);
}

static void who_never_runs_is_given_up(void **state)
{
	struct turn turn;
	struct tiny t;
	uint64_t begin_ns;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, counter, sizeof(counter));
	turn_mark(&turn, t.vm);
	usleep(10000);
	begin_ns = clock_now_ns();
	turn_await(&turn, t.vm);
	assert_true(clock_now_ns() - begin_ns >= 6 * NS_PER_MS);
	tiny_free(&t);
}

static void *resume_late(void *arg)
{
	struct tiny *t = arg;

	usleep(1000);
	must(vm_resume(t->vm, e));
	return NULL;
}

/* Either it has had its moment, or the patience was at an end. */
static void who_was_kept_waiting_gets_a_moment(void **state)
{
	struct turn turn;
	struct tiny t;
	pthread_t thread;
	uint64_t begin_ns;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, counter, sizeof(counter));
	turn_mark(&turn, t.vm);
	usleep(10000);
	assert_int_equal(pthread_create(&thread, NULL, resume_late, &t), 0);
	begin_ns = clock_now_ns();
	turn_await(&turn, t.vm);
	assert_true(ran_ns(&turn, t.vm) >= NS_PER_MS / 2 ||
		    clock_now_ns() - begin_ns >= 6 * NS_PER_MS);
	pthread_join(thread, NULL);
	must(vm_pause(t.vm, e));
	tiny_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_mark_nobody_waits),
		cmocka_unit_test(who_runs_is_not_held_up),
		cmocka_unit_test(who_never_runs_is_given_up),
		cmocka_unit_test(who_was_kept_waiting_gets_a_moment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
