/* vmm/vm_state.c and below: state that was tampered with in transit, field by field, and time that
 * goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "need_kvm.h"
#include "proto/state.pb-c.h"
#include "tiny_guest.h"
#include "vmm/guest_time.h"
#include "vmm/vcpu.h"

/* l: rdtsc; mov [DATA+8],eax; mov [DATA+12],edx; inc dword [DATA]; jmp l */
static const uint8_t ticking[] = {0x0f, 0x31, 0xa3, 0x08, 0x00, 0x20, 0x00, 0x89, 0x15, 0x0c, 0x00,
				  0x20, 0x00, 0xff, 0x05, 0x00, 0x00, 0x20, 0x00, 0xeb, 0xeb};

static Godwit__MachineState *saved_state(struct tiny *t)
{
	struct buf s = BUF_INIT;
	Godwit__MachineState *m;

	must(vm_save_state(t->vm, &s, e));
	m = godwit__machine_state__unpack(NULL, s.len, s.data);
	assert_non_null(m);
	buf_fini(&s);
	return m;
}

static int load(struct tiny *t, const Godwit__MachineState *m, struct err *e)
{
	size_t len = godwit__machine_state__get_packed_size(m);
	uint8_t *data = malloc(len);
	int ret;

	godwit__machine_state__pack(m, data);
	ret = vm_load_state(t->vm, data, len, e);
	free(data);
	return ret;
}

typedef void (*tamper_fn)(Godwit__MachineState *m);

static void unknown_msr(Godwit__MachineState *m)
{
	m->vcpus[0]->msr_index[0] = 0x12345678;
}

static void bad_msr_value(Godwit__MachineState *m)
{
	for (size_t i = 0; i < m->vcpus[0]->n_msr_index; i++)
		if (m->vcpus[0]->msr_index[i] == 0x277)
			m->vcpus[0]->msr_value[i] = UINT64_MAX; /* no such memory types */
}

static void more_msrs_than_values(Godwit__MachineState *m)
{
	m->vcpus[0]->n_msr_value--;
}

static void missing_feature(Godwit__MachineState *m)
{
	for (size_t i = 0; i < m->vcpus[0]->n_cpuid; i += 7)
		if (m->vcpus[0]->cpuid[i] == 7 && m->vcpus[0]->cpuid[i + 1] == 0)
			m->vcpus[0]->cpuid[i + 5] |= 1u << 23; /* Key Locker: no KVM has it */
}

static void no_regs(Godwit__MachineState *m)
{
	godwit__regs__free_unpacked(m->vcpus[0]->regs, NULL);
	m->vcpus[0]->regs = NULL;
}

static void no_rip(Godwit__MachineState *m)
{
	m->vcpus[0]->regs->has_rip = 0;
}

static void wide_selector(Godwit__MachineState *m)
{
	m->vcpus[0]->sregs->cs->selector = 0x10000;
}

static void short_xsave(Godwit__MachineState *m)
{
	m->vcpus[0]->xsave.len = 512;
}

static void short_lapic(Godwit__MachineState *m)
{
	m->vcpus[0]->lapic.len--;
}

static void short_events(Godwit__MachineState *m)
{
	m->vcpus[0]->events.len = 0;
}

static void odd_xcrs(Godwit__MachineState *m)
{
	m->vcpus[0]->n_xcrs--;
}

static void strange_mp_state(Godwit__MachineState *m)
{
	m->vcpus[0]->mp_state = 77;
}

static void wrong_id(Godwit__MachineState *m)
{
	m->vcpus[0]->id = 1;
}

static void another_frequency(Godwit__MachineState *m)
{
	m->vcpus[0]->tsc_khz = 0;
}

static void lost_device(Godwit__MachineState *m)
{
	godwit__device_state__free_unpacked(m->devices[--m->n_devices], NULL);
}

static void unknown_device(Godwit__MachineState *m)
{
	m->devices[0]->type[0] = 'X';
}

static void twice_the_same_device(Godwit__MachineState *m)
{
	free(m->devices[0]->type);
	m->devices[0]->type = strdup(m->devices[1]->type);
}

static void device_of_the_future(Godwit__MachineState *m)
{
	m->devices[0]->version = 1000;
}

static void device_with_half_a_body(Godwit__MachineState *m)
{
	m->devices[0]->body.len /= 2;
}

static void strange_request(Godwit__MachineState *m)
{
	m->has_pending_request = 1;
	m->pending_request = 9;
}

static const struct {
	tamper_fn tamper;
	const char *says;
} tampered[] = {
	{unknown_msr, "0x12345678"},
	{bad_msr_value, "IA32_PAT"},
	{more_msrs_than_values, "MSRs"},
	{missing_feature, "kl"},
	{no_regs, "regs"},
	{no_rip, "rip"},
	{wide_selector, "segment cs"},
	{short_xsave, "xsave of 512"},
	{short_lapic, "lapic of 1023"},
	{short_events, "events of 0"},
	{odd_xcrs, "XCR"},
	{strange_mp_state, "MP state 77"},
	{wrong_id, "its id is 1"},
	{another_frequency, "TSC frequency"},
	{lost_device, "no state of device"},
	{unknown_device, "not here"},
	{twice_the_same_device, "device"},
	{device_of_the_future, "state version 1000"},
	{device_with_half_a_body, "malformed"},
	{strange_request, "pending request 9"},
};

static void tampered_state_is_refused_and_says_where(void **state)
{
	struct tiny t;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, ticking, sizeof(ticking));
	for (size_t i = 0; i < sizeof(tampered) / sizeof(tampered[0]); i++) {
		Godwit__MachineState *m = saved_state(&t);
		struct err e = ERR_INIT;
		int ret;

		tampered[i].tamper(m);
		ret = load(&t, m, &e);
		/* A KVM may take any PAT; all others must be refused by everybody. */
		if (ret == 0 && tampered[i].tamper == bad_msr_value)
			print_message("this KVM takes any IA32_PAT\n");
		else if (ret == 0 || !strstr(e.msg, tampered[i].says))
			fail_msg("case %zu: %d, \"%s\" lacks \"%s\"", i, ret, e.msg,
				 tampered[i].says);
		godwit__machine_state__free_unpacked(m, NULL);
	}
	tiny_free(&t);
}

static uint64_t guest_tsc(struct tiny *t)
{
	return (uint64_t)tiny_word(t, TINY_DATA_GPA + 12) << 32 | tiny_word(t, TINY_DATA_GPA + 8);
}

/* Until the guest has written both halves here: the first move may be the end of a turn that it
 * began elsewhere. */
static void wait_for_tsc(struct tiny *t)
{
	tiny_wait_moving(t);
	tiny_wait_moving(t);
}

/* The guest's TSC at the destination: not before the last it saw, and ahead by about the time it
 * was away. */
static void the_tsc_goes_on(void **state)
{
	Godwit__MachineState *m;
	struct tiny a;
	struct tiny b;
	uint64_t khz;
	uint64_t last;
	uint64_t first;
	uint64_t away_ns;

	(void)state;
	need_kvm();
	tiny_new(&a, 1, ticking, sizeof(ticking));
	must(vm_resume(a.vm, e));
	wait_for_tsc(&a);
	must(vm_pause(a.vm, e));
	last = guest_tsc(&a);
	m = saved_state(&a);
	khz = m->vcpus[0]->tsc_khz;
	away_ns = m->vcpus[0]->tsc_realtime_ns;
	usleep(300000);
	tiny_new(&b, 1, ticking, sizeof(ticking));
	must(load(&b, m, e));
	must(vm_resume(b.vm, e));
	wait_for_tsc(&b);
	must(vm_pause(b.vm, e));
	first = guest_tsc(&b);
	away_ns = guest_time_realtime_ns() - away_ns;
	assert_true(first > last);
	assert_true(first - last >= khz * 300);
	assert_true(first - last <= khz * (away_ns / 1000000 + 200));
	if (vm_host_notes(b.vm)[0])
		print_message("%s\n", vm_host_notes(b.vm));
	else
		assert_true(guest_tsc(&a) < khz * 1000 * 60); /* it started at zero */
	godwit__machine_state__free_unpacked(m, NULL);
	tiny_free(&a);
	tiny_free(&b);
}

/* A clock that disagrees by a day must not send the guest into the future. */
static void a_wrong_clock_does_not_move_the_guest(void **state)
{
	uint64_t begin_ns = clock_now_ns();
	Godwit__MachineState *m;
	Godwit__MachineState *after;
	struct tiny t;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, ticking, sizeof(ticking));
	m = saved_state(&t);
	m->vcpus[0]->tsc_realtime_ns -= 86400000000000ull;
	must(load(&t, m, e));
	after = saved_state(&t);
	if (!vm_host_notes(t.vm)[0])
		assert_true(after->vcpus[0]->tsc - m->vcpus[0]->tsc <
			    (5000 + (clock_now_ns() - begin_ns) / NS_PER_MS) *
				    m->vcpus[0]->tsc_khz);
	godwit__machine_state__free_unpacked(m, NULL);
	godwit__machine_state__free_unpacked(after, NULL);
	tiny_free(&t);
}

static int read_tsc_offset(int vcpu_fd, void *arg, struct err *e)
{
	struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL,
				       .attr = KVM_VCPU_TSC_OFFSET,
				       .addr = (uint64_t)(uintptr_t)arg};

	if (ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attr) < 0)
		return err_sys(e, "KVM_VCPU_TSC_OFFSET");
	return 0;
}

static bool offsets_agree(struct vm *vm)
{
	uint64_t first = 0;

	for (uint32_t i = 0; i < vm_nr_cpus(vm); i++) {
		struct err e = ERR_INIT;
		uint64_t offset;

		if (vcpu_call(vm_vcpu(vm, i), read_tsc_offset, &offset, &e) < 0) {
			print_message("skipped: %s\n", e.msg);
			skip();
		}
		if (i == 0)
			first = offset;
		if (offset != first)
			return false;
	}
	return true;
}

/* vCPUs whose TSCs agreed to the cycle still do: after power-on, after a reset early in life (when
 * KVM would take the new value for a try to synchronize with the old), and after a migration. */
static void tscs_stay_in_step(void **state)
{
	Godwit__MachineState *m;
	uint64_t begin_ns = clock_now_ns(), life_ns;
	struct tiny a;
	struct tiny b;

	(void)state;
	need_kvm();
	tiny_new(&a, 4, ticking, sizeof(ticking));
	if (!offsets_agree(a.vm))
		fail_msg("after power-on");
	must(vm_resume(a.vm, e));
	usleep(20000);
	must(vm_reset(a.vm, e));
	wait_for_tsc(&a);
	must(vm_pause(a.vm, e));
	life_ns = clock_now_ns() - begin_ns;
	if (!offsets_agree(a.vm))
		fail_msg("after a reset");
	m = saved_state(&a);
	if (!vm_host_notes(a.vm)[0]) /* it began at zero */
		assert_true(guest_tsc(&a) <= m->vcpus[0]->tsc_khz * (life_ns / NS_PER_MS + 200));
	tiny_new(&b, 4, ticking, sizeof(ticking));
	must(load(&b, m, e));
	if (!offsets_agree(b.vm))
		fail_msg("after a migration");
	godwit__machine_state__free_unpacked(m, NULL);
	tiny_free(&a);
	tiny_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tampered_state_is_refused_and_says_where),
		cmocka_unit_test(the_tsc_goes_on),
		cmocka_unit_test(tscs_stay_in_step),
		cmocka_unit_test(a_wrong_clock_does_not_move_the_guest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
