/* What --verify compares: two machines that only differ in what no guest can rely on are equal. */
#include <string.h>

#include "proto/state.pb-c.h"
#include "tests/unit/cmocka_all.h"
#include "vmm/vm.h"

struct machine {
	uint32_t cpuid[7];
	uint32_t msr_index[2];
	uint64_t msr_value[2];
	uint64_t tsc;
	uint64_t vmcs12_gpa, timer_deadline; /* of nested state */
	uint8_t lapic[1024];
};

static const struct machine amd = {
	.cpuid = {0, 0, 0, 13, 0x68747541, 0x444d4163, 0x69746e65},
	.msr_index = {0x175, 0xc0000080},
	.msr_value = {0xfffffe0000003000, 0xd01},
	.tsc = 1000,
};

static void canonical(const struct machine *machine, struct buf *out)
{
	struct machine copy = *machine;
	Godwit__MachineState m = GODWIT__MACHINE_STATE__INIT;
	Godwit__VcpuState cpu = GODWIT__VCPU_STATE__INIT;
	Godwit__NestedState nested = GODWIT__NESTED_STATE__INIT;
	Godwit__VcpuState *cpus[] = {&cpu};
	struct buf packed = BUF_INIT;
	struct err e = ERR_INIT;

	m.n_vcpus = 1;
	m.vcpus = cpus;
	cpu.n_cpuid = 7;
	cpu.cpuid = copy.cpuid;
	cpu.n_msr_index = cpu.n_msr_value = 2;
	cpu.msr_index = copy.msr_index;
	cpu.msr_value = copy.msr_value;
	cpu.has_tsc = 1;
	cpu.tsc = copy.tsc;
	cpu.has_lapic = 1;
	cpu.lapic = (ProtobufCBinaryData){.len = sizeof(copy.lapic), .data = copy.lapic};
	cpu.nested = &nested;
	nested.has_vmcs12_gpa = nested.has_preemption_timer_deadline = 1;
	nested.vmcs12_gpa = copy.vmcs12_gpa;
	nested.preemption_timer_deadline = copy.timer_deadline;
	assert_int_equal(buf_reserve(&packed, godwit__machine_state__get_packed_size(&m), &e), 0);
	packed.len = godwit__machine_state__pack(&m, packed.data);
	assert_int_equal(vm_state_canonical(packed.data, packed.len, out, &e), 0);
	buf_fini(&packed);
}

static void expect_equal(const struct machine *a, const struct machine *b, int equal)
{
	struct buf of_a = BUF_INIT;
	struct buf of_b = BUF_INIT;

	canonical(a, &of_a);
	canonical(b, &of_b);
	assert_int_equal(of_a.len == of_b.len && !memcmp(of_a.data, of_b.data, of_a.len), equal);
	buf_fini(&of_a);
	buf_fini(&of_b);
}

static void test_amd_sysenter_has_32_bits(void **state)
{
	struct machine other = amd;

	(void)state;
	other.msr_value[0] &= UINT32_MAX;
	expect_equal(&amd, &other, 1);
	other.msr_value[0]++;
	expect_equal(&amd, &other, 0);
}

static void test_intel_sysenter_has_64(void **state)
{
	struct machine intel = amd;
	struct machine other;

	(void)state;
	intel.cpuid[4] = 0x756e6547;
	other = intel;
	other.msr_value[0] &= UINT32_MAX;
	expect_equal(&intel, &other, 0);
}

static void test_other_msrs_and_the_tsc(void **state)
{
	struct machine other = amd;

	(void)state;
	other.tsc += 5;
	expect_equal(&amd, &other, 1);
	other.msr_value[1] ^= 1ull << 40;
	expect_equal(&amd, &other, 0);
}

/* One migration in twenty of a hypervisor on VMX was refused for it. */
static void test_a_lapics_processor_priority_follows_from_the_rest(void **state)
{
	struct machine source = amd;
	struct machine other;

	(void)state;
	source.lapic[0x120] = 1; /* vector 0x40 is in service */
	source.lapic[0xa0] = 0x40;
	other = source;
	other.lapic[0xa0] = 0;
	expect_equal(&source, &other, 1);
	other.lapic[0x120] = 0;
	expect_equal(&source, &other, 0);
	other = source;
	other.lapic[0x80] = 0x10; /* TPR */
	expect_equal(&source, &other, 0);
}

static void test_an_overdue_timer_is_put_off(void **state)
{
	struct machine other = amd;

	(void)state;
	other.timer_deadline += 50;
	expect_equal(&amd, &other, 1);
	other.vmcs12_gpa += 4096;
	expect_equal(&amd, &other, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_amd_sysenter_has_32_bits),
		cmocka_unit_test(test_intel_sysenter_has_64),
		cmocka_unit_test(test_other_msrs_and_the_tsc),
		cmocka_unit_test(test_a_lapics_processor_priority_follows_from_the_rest),
		cmocka_unit_test(test_an_overdue_timer_is_put_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
