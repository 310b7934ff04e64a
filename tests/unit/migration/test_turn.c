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
	for (int i = 0; i < 100; i++)
		turn_await(&turn, t.vm);
	assert_true(nr_sleeps() - before < 10); /* for memory, say */
	tiny_free(&t);
}

/* As if the mark had been set @cpu_ns ago, and the vCPU had run ever since. */
static struct turn marked_before(struct vm *vm, uint64_t cpu_ns)
{
	return (struct turn){.at_ns = clock_now_ns() - cpu_ns,
			     .cpu_ns = {vcpu_cpu_time_ns(vm_vcpu(vm, 0)) - cpu_ns}};
}

/* Who shares its processor with others runs when we do not: that it ran all the time is said, not
 * waited for. What this thread itself waits between here and there makes it a late look. */
static void who_runs_is_not_held_up(void **state)
{
	uint64_t deadline = clock_now_ns() + 60 * NS_PER_S;
	bool seen = false;
	struct tiny t;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, counter, sizeof(counter));
	must(vm_resume(t.vm, e));
	while (vcpu_cpu_time_ns(vm_vcpu(t.vm, 0)) < 10 * NS_PER_MS && clock_now_ns() < deadline)
		usleep(1000);
	while (!seen && clock_now_ns() < deadline) {
		struct turn turn = marked_before(t.vm, 10 * NS_PER_MS);
		long before = nr_sleeps();

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
