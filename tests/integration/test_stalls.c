/* A host that stands still while a guest boots: what the guest measures then is right all the same.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/rig/must.h"
#include "tests/rig/rig.h"
#include "vmm/base/clock.h"
#include "vmm/guest_report.h"

#define STALL_NS (70 * NS_PER_MS) /* longer than the PIT takes to go round */
#define NR_BOOTS 24u

static struct vm *begin_to_boot(void)
{
	const struct vm_config config = {.memory_bytes = 16 << 20,
					 .nr_cpus = 1,
					 .kernel = rig_workload_path(),
					 .append = "fill=1M ws=1M rate=100 quiet=1"};
	struct vm *vm;

	must(vm_new(&config, NULL, NULL, &vm, e));
	must(vm_boot(vm, e));
	must(vm_resume(vm, e));
	return vm;
}

static void stall(struct vm *vm)
{
	must(vm_pause(vm, e));
	clock_sleep_until_ns(clock_now_ns() + STALL_NS);
	must(vm_resume(vm, e));
}

/* What the guest holds its TSC's frequency for, and from where. */
static uint64_t end_of_boot(struct vm *vm, uint32_t *source)
{
	const struct guest_report *r;
	uint64_t khz;

	rig_await_workload(vm);
	r = guest_mem_at(vm_mem(vm), vm_guest_report_gpa(vm), sizeof(*r));
	assert_non_null(r);
	khz = r->tsc_khz;
	*source = r->tsc_source;
	vm_free(vm);
	return khz;
}

/* Each boot stands still at another moment: one of them is in the guest's measurement. */
static void a_guest_knows_its_tsc(void **state)
{
	uint32_t source;
	uint64_t khz;

	(void)state;
	rig_need_kvm();
	khz = end_of_boot(begin_to_boot(), &source);
	/* Where KVM tells a guest the frequency, there is nothing to measure. */
	for (uint32_t i = 0; source == GUEST_TSC_PIT && i < NR_BOOTS; i++) {
		struct vm *vm = begin_to_boot();

		clock_sleep_until_ns(clock_now_ns() + i * NS_PER_MS);
		stall(vm);
		assert_in_range(end_of_boot(vm, &source), khz - khz / 16, khz + khz / 16);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_guest_knows_its_tsc),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
