/* vmm/kvm_stats.c: a number of KVM's that grows as a vCPU exits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "need_kvm.h"
#include "tiny_guest.h"
#include "vmm/kvm_stats.h"
#include "vmm/vcpu.h"

/* out %al, $0x80, for ever */
static const uint8_t writing[] = {0xe6, 0x80, 0xeb, 0xfc};

static int open_exits(int vcpu_fd, void *arg, struct err *e)
{
	return kvm_stat_open(vcpu_fd, "exits", arg, e);
}

static int open_nonsense(int vcpu_fd, void *arg, struct err *e)
{
	return kvm_stat_open(vcpu_fd, "no such thing", arg, e);
}

static void exits_are_counted(void **state)
{
	struct err err = ERR_INIT;
	struct kvm_stat s;
	struct tiny t;
	uint64_t deadline = clock_now_ns() + 60 * NS_PER_S;
	uint64_t before;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, writing, sizeof(writing));
	if (vcpu_call(vm_vcpu(t.vm, 0), open_exits, &s, &err) < 0) {
		tiny_free(&t);
		print_message("skipped: %s\n", err.msg);
		skip();
	}
	before = kvm_stat_read(&s);
	must(vm_resume(t.vm, e));
	while (kvm_stat_read(&s) <= before + 10 && clock_now_ns() < deadline)
		clock_sleep_until_ns(clock_now_ns() + NS_PER_MS);
	must(vm_pause(t.vm, e));
	assert_true(kvm_stat_read(&s) > before + 10);
	kvm_stat_close(&s);
	assert_int_equal(kvm_stat_read(&s), 0);
	tiny_free(&t);
}

static void an_unknown_name_is_refused(void **state)
{
	struct err err = ERR_INIT;
	struct kvm_stat s;
	struct tiny t;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, writing, sizeof(writing));
	assert_true(vcpu_call(vm_vcpu(t.vm, 0), open_nonsense, &s, &err) < 0);
	assert_int_equal(err.kind, ERR_UNSUPPORTED);
	tiny_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exits_are_counted),
		cmocka_unit_test(an_unknown_name_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
