/*
 * A guest that works in system management mode, half of the time (tests/multiboot/smm_work.h): what
 * it writes there is tracked, and it moves and is reset while it is there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "dirty-tracking/dirty.h"
#include "tests/multiboot/smm_work.h"
#include "tests/rig/must.h"
#include "tests/rig/oracle.h"
#include "tests/rig/rig.h"
#include "vmm/base/clock.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"

#define MEMORY_BYTES (16ull << 20)
#define START_NS     (60 * NS_PER_S)  /* emulated hosts are slow */
#define FIND_NS      (120 * NS_PER_S) /* to find it in that mode, and outside */

static void need_smm(void)
{
	int fd, smm, spaces;

	rig_need_kvm();
	must(kvm_open(&fd, e));
	smm = kvm_check(fd, KVM_CAP_X86_SMM);
	spaces = kvm_check(fd, KVM_CAP_MULTI_ADDRESS_SPACE);
	close(fd);
	if (!smm || spaces < 2) {
		print_message("SKIPPED: this KVM has no system management mode\n");
		skip();
	}
}

static const struct smm_work *work_of(struct vm *vm)
{
	return guest_mem_at(vm_mem(vm), SMM_WORK_GPA, sizeof(struct smm_work));
}

static uint32_t nr_smis(struct vm *vm)
{
	return __atomic_load_n(&work_of(vm)->nr_smis, __ATOMIC_ACQUIRE);
}

/* Until it has handled SMIs beyond @after. */
static void await_smis(struct vm *vm, uint32_t after)
{
	uint64_t deadline = clock_now_ns() + START_NS;

	while (nr_smis(vm) <= after) {
		if (clock_now_ns() > deadline)
			fail_msg("the guest has handled %u SMIs and no more", nr_smis(vm));
		clock_sleep_until_ns(clock_now_ns() + NS_PER_MS);
	}
	assert_int_equal(work_of(vm)->magic, SMM_WORK_MAGIC);
	assert_int_equal(work_of(vm)->nr_errors, 0);
}

static struct vm *boot(void)
{
	const struct vm_config config = {.memory_bytes = MEMORY_BYTES,
					 .nr_cpus = 1,
					 .debug_exit = true,
					 .test_devices = true,
					 .nested = NESTED_ON,
					 .kernel = CHECKS_ELF,
					 .append = "smm"};
	struct vm *vm;

	must(vm_new(&config, NULL, NULL, &vm, e));
	must(vm_boot(vm, e));
	must(vm_resume(vm, e));
	await_smis(vm, 0);
	return vm;
}

static int get_events(int vcpu_fd, void *events, struct err *e)
{
	return ioctl(vcpu_fd, KVM_GET_VCPU_EVENTS, events) < 0 ? err_sys(e, "KVM_GET_VCPU_EVENTS")
							       : 0;
}

/* Of a guest that stands still. */
static bool in_smm(struct vm *vm)
{
	struct kvm_vcpu_events events;

	must(vcpu_call(vm_vcpu(vm, 0), get_events, &events, e));
	return events.flags & KVM_VCPUEVENT_VALID_SMM && events.smi.smm;
}

static void no_page_written_in_smm_is_missed(void **state)
{
	const struct oracle_watch watch = {.nr_looks = 10,
					   .look_ns = 40 * NS_PER_MS,
					   .first_gfn = SMM_HANDLER_GPA / PAGE_BYTES,
					   .nr_gfns = SMM_NR_PAGES,
					   .nr_changes = SMM_NR_PAGES};
	const struct dirty_ops *ops;

	(void)state;
	need_smm();
	for (uint32_t i = 0; (ops = dirty_kind(i)) != NULL; i++) {
		struct vm *vm = boot();

		print_message("tracker %s\n", ops->name);
		oracle_watch(vm, ops->name, &watch);
		must(vm_resume(vm, e));
		await_smis(vm, nr_smis(vm));
		vm_free(vm);
	}
}

/* Every byte is compared, and what was in this mode goes on in it. */
static void a_cpu_in_smm_travels(void **state)
{
	uint64_t deadline = clock_now_ns() + FIND_NS;
	uint32_t nr_in = 0, nr_out = 0;
	struct vm *vm;

	(void)state;
	need_smm();
	vm = boot();
	while (nr_in < 3 || nr_out < 1) {
		struct rig_migration m;
		struct vm *moved;

		if (clock_now_ns() > deadline)
			fail_msg("moved %u times in this mode, %u times outside", nr_in, nr_out);
		rig_migration_init(&m);
		m.params.verify = true;
		m.params.downtime_limit_ns = NS_PER_S; /* it writes all the time, hosts are slow */
		moved = rig_migrate(vm, &m);
		if (m.source.status != MIGRATION_COMPLETED || !moved)
			fail_msg("source: %s; destination: %s", m.source.error.msg,
				 m.destination.error.msg);
		nr_in += in_smm(vm);
		nr_out += !in_smm(vm);
		vm_free(vm);
		vm = moved;
		await_smis(vm, nr_smis(vm));
	}
	print_message("  moved %u times in this mode, %u times outside\n", nr_in, nr_out);
	vm_free(vm);
}

/* And the next SMI finds its way again. */
static void a_reset_ends_it(void **state)
{
	static const struct smm_work nothing;
	uint64_t deadline = clock_now_ns() + FIND_NS;
	struct vm *vm;

	(void)state;
	need_smm();
	vm = boot();
	must(vm_pause(vm, e));
	while (!in_smm(vm)) {
		assert_true(clock_now_ns() < deadline);
		must(vm_resume(vm, e));
		await_smis(vm, nr_smis(vm));
		must(vm_pause(vm, e));
	}
	must(vm_reset(vm, e));
	assert_false(in_smm(vm));
	must(guest_mem_write(vm_mem(vm), SMM_WORK_GPA, &nothing, sizeof(nothing), e));
	must(vm_resume(vm, e));
	await_smis(vm, 0);
	vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_page_written_in_smm_is_missed),
		cmocka_unit_test(a_cpu_in_smm_travels),
		cmocka_unit_test(a_reset_ends_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
