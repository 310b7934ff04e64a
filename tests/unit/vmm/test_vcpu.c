/* vmm/vcpu.c: port and memory accesses, pausing at any moment, exits that end in a message. The
 * guest is a few bytes of 16-bit code at 0x1000. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <linux/kvm.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "need_kvm.h"
#include "vmm/base/clock.h"
#include "vmm/bus.h"
#include "vmm/irqchip.h"
#include "vmm/mem.h"
#include "vmm/vcpu.h"

#define PATIENCE_NS (60 * NS_PER_S)

#define CODE_GPA 0x1000u
#define DATA_GPA 0x4000u
#define PORT     0x510u
#define MMIO_GPA 0xd0000000ull

struct rig {
	int kvm_fd, vm_fd;
	struct guest_mem *mem;
	struct bus *bus;
	struct vcpu *vcpu;
	atomic_uint nr_accesses;
	uint8_t log[64];
	atomic_uint nr_log;
	uint8_t answer;
	atomic_uint nr_stops;
	enum vcpu_stop why;
	char text[256];
};

static void rig_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct rig *r = ctx;

	(void)offset;
	atomic_fetch_add(&r->nr_accesses, 1);
	memset(data, 0, len);
	memset(data, r->answer, 1);
}

static void rig_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct rig *r = ctx;
	unsigned int at = atomic_load(&r->nr_log);

	(void)offset;
	(void)len;
	if (at < sizeof(r->log))
		r->log[at] = *(const uint8_t *)data;
	atomic_fetch_add(&r->nr_log, 1);
}

static const struct bus_ops rig_ops = {.read = rig_read, .write = rig_write};

static void on_stop(void *ctx, uint32_t id, enum vcpu_stop why, const char *text)
{
	struct rig *r = ctx;

	(void)id;
	r->why = why;
	strncpy(r->text, text, sizeof(r->text) - 1);
	atomic_fetch_add(&r->nr_stops, 1);
}

static int start_at_code(int fd, void *arg, struct err *e)
{
	struct kvm_regs regs = {.rip = CODE_GPA, .rflags = 2, .rsp = 0x8000};
	struct kvm_sregs s;

	(void)arg;
	if (ioctl(fd, KVM_GET_SREGS, &s) < 0)
		return err_sys(e, "get sregs");
	s.cs.base = 0;
	s.cs.selector = 0;
	if (ioctl(fd, KVM_SET_SREGS, &s) < 0 || ioctl(fd, KVM_SET_REGS, &regs) < 0)
		return err_sys(e, "set regs");
	return 0;
}

static struct rig *rig_new(const uint8_t *code, size_t len)
{
	struct rig *r = test_calloc(1, sizeof(*r));
	struct err e = ERR_INIT;
	struct kvm_userspace_memory_region slot = {.memory_size = 2 << 20};
	struct vcpu_config config = {.on_stop = on_stop, .ctx = r};

	assert_int_equal(kvm_open(&r->kvm_fd, &e), 0);
	r->vm_fd = ioctl(r->kvm_fd, KVM_CREATE_VM, 0);
	assert_true(r->vm_fd >= 0);
	assert_int_equal(guest_mem_new(2 << 20, &r->mem, &e), 0);
	slot.userspace_addr = (uint64_t)(uintptr_t)guest_mem_at(r->mem, 0, 1);
	assert_int_equal(ioctl(r->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot), 0);
	assert_int_equal(irqchip_create(r->vm_fd, &e), 0);
	assert_int_equal(bus_new(&r->bus, &e), 0);
	assert_int_equal(bus_add(r->bus, BUS_PIO, PORT, 1, "rig", &rig_ops, r, &e), 0);
	assert_int_equal(bus_add(r->bus, BUS_MMIO, MMIO_GPA, 4096, "rig", &rig_ops, r, &e), 0);
	assert_int_equal(guest_mem_write(r->mem, CODE_GPA, code, len, &e), 0);
	config.kvm_fd = r->kvm_fd;
	assert_int_equal(vcpu_create(r->vm_fd, 0, &config.fd, &e), 0);
	config.bus = r->bus;
	assert_int_equal(vcpu_new(&config, &r->vcpu, &e), 0);
	assert_int_equal(vcpu_call(r->vcpu, start_at_code, NULL, &e), 0);
	return r;
}

static void rig_free(struct rig *r)
{
	vcpu_free(r->vcpu);
	bus_free(r->bus);
	close(r->vm_fd);
	guest_mem_free(r->mem);
	close(r->kvm_fd);
	test_free(r);
}

static void wait_for(atomic_uint *what, unsigned int value)
{
	uint64_t deadline = clock_now_ns() + PATIENCE_NS;

	while (atomic_load(what) < value && clock_now_ns() < deadline)
		usleep(500);
	assert_true(atomic_load(what) >= value);
}

static uint32_t word(struct rig *r, uint64_t gpa)
{
	return __atomic_load_n((const uint32_t *)guest_mem_at(r->mem, gpa, 4), __ATOMIC_RELAXED);
}

static void stop(struct rig *r)
{
	vcpu_request_pause(r->vcpu);
	vcpu_wait_paused(r->vcpu);
}

static void ports_reach_the_bus(void **state)
{
	/* mov dx,PORT; mov al,0x42; out dx,al; in al,dx; mov [DATA],al; mov al,0x43; out dx,al;
	 * jmp $ */
	static const uint8_t code[] = {0xba, 0x10, 0x05, 0xb0, 0x42, 0xee, 0xec, 0xa2,
				       0x00, 0x40, 0xb0, 0x43, 0xee, 0xeb, 0xfe};
	struct rig *r;

	(void)state;
	need_kvm();
	r = rig_new(code, sizeof(code));
	r->answer = 0x99;
	vcpu_resume(r->vcpu);
	wait_for(&r->nr_log, 2);
	stop(r);
	assert_int_equal(r->log[0], 0x42);
	assert_int_equal(r->log[1], 0x43);
	assert_int_equal(word(r, DATA_GPA) & 0xff, 0x99);
	assert_true(vcpu_nr_exits(r->vcpu) >= 3);
	assert_true(vcpu_tid(r->vcpu) > 0);
	rig_free(r);
}

static void string_output_keeps_every_byte(void **state)
{
	/* mov dx,PORT; mov si,text; mov cx,12; rep outsb; jmp $; text */
	static const uint8_t code[] = {0xba, 0x10, 0x05, 0xbe, 0x0d, 0x10, 0xb9, 0x0c, 0x00,
				       0xf3, 0x6e, 0xeb, 0xfe, 'h',  'e',  'l',  'l',  'o',
				       ' ',  'g',  'o',  'd',  'w',  'i',  't'};
	struct rig *r;

	(void)state;
	need_kvm();
	r = rig_new(code, sizeof(code));
	vcpu_resume(r->vcpu);
	wait_for(&r->nr_log, 12);
	stop(r);
	assert_memory_equal(r->log, "hello godwit", 12);
	assert_int_equal(atomic_load(&r->nr_log), 12);
	rig_free(r);
}

static int get_and_set_regs(int fd, void *arg, struct err *e)
{
	struct kvm_regs regs;

	(void)arg;
	if (ioctl(fd, KVM_GET_REGS, &regs) < 0 || ioctl(fd, KVM_SET_REGS, &regs) < 0)
		return err_sys(e, "regs");
	return 0;
}

/* Each `in` answers 3. Were a pause to come between the exit and its completion, writing the
 * registers back would undo or repeat one, and sum and count would part. */
static void a_pause_never_splits_an_access(void **state)
{
	/* xor eax,eax; mov dx,PORT; l: in al,dx; add [DATA],eax; inc dword [DATA+4]; jmp l */
	static const uint8_t code[] = {0x66, 0x31, 0xc0, 0xba, 0x10, 0x05, 0xec, 0x66, 0x01, 0x06,
				       0x00, 0x40, 0x66, 0xff, 0x06, 0x04, 0x40, 0xeb, 0xf3};
	struct rig *r;
	struct err e = ERR_INIT;
	uint64_t deadline = clock_now_ns() + PATIENCE_NS;
	uint32_t n = 0;

	(void)state;
	need_kvm();
	r = rig_new(code, sizeof(code));
	r->answer = 3;
	for (int i = 0; i < 3000 || (n <= 100 && clock_now_ns() < deadline); i++) {
		vcpu_resume(r->vcpu);
		if (i % 3)
			usleep(50);
		stop(r);
		assert_int_equal(vcpu_call(r->vcpu, get_and_set_regs, NULL, &e), 0);
		n = word(r, DATA_GPA + 4);
		assert_in_range(atomic_load(&r->nr_accesses), n, n + 1);
		assert_in_range(word(r, DATA_GPA), 3 * n, 3 * n + 3);
	}
	assert_true(n > 100);
	rig_free(r);
}

static void pausing_thousands_of_times_loses_nothing(void **state)
{
	/* l: inc dword [DATA]; jmp l */
	static const uint8_t code[] = {0x66, 0xff, 0x06, 0x00, 0x40, 0xeb, 0xf9};
	struct rig *r;
	uint64_t worst = 0;
	uint64_t sum = 0;
	uint64_t deadline = clock_now_ns() + PATIENCE_NS;
	uint32_t before = 0;
	uint32_t nr = 0;
	int moved = 0;

	(void)state;
	need_kvm();
	r = rig_new(code, sizeof(code));
	/* On a slow host most pauses are over before the guest gets going. */
	for (; nr < 5000 || (moved <= 50 && clock_now_ns() < deadline); nr++) {
		uint64_t start;
		uint64_t took;
		uint32_t now;

		vcpu_resume(r->vcpu);
		if (nr % 2)
			usleep(100);
		start = clock_now_ns();
		stop(r);
		took = clock_now_ns() - start;
		sum += took;
		worst = took > worst ? took : worst;
		now = word(r, DATA_GPA);
		moved += now != before;
		before = now;
	}
	assert_int_equal(word(r, DATA_GPA), before);
	assert_true(moved > 50);
	print_message("pause: mean %llu us, worst %llu us\n", (unsigned long long)(sum / 1000 / nr),
		      (unsigned long long)(worst / 1000));
	rig_free(r);
}

/* A pause taken back before the thread noticed must not leave KVM_RUN returning for ever. */
static void a_pause_taken_back_is_forgotten(void **state)
{
	static const uint8_t code[] = {0x66, 0xff, 0x06, 0x00, 0x40, 0xeb, 0xf9};
	struct rig *r;

	(void)state;
	need_kvm();
	r = rig_new(code, sizeof(code));
	vcpu_resume(r->vcpu);
	for (int i = 0; i < 2000; i++) {
		uint32_t before;
		uint64_t deadline;

		vcpu_request_pause(r->vcpu);
		vcpu_resume(r->vcpu);
		if (i % 100)
			continue;
		before = word(r, DATA_GPA);
		deadline = clock_now_ns() + PATIENCE_NS;
		while (word(r, DATA_GPA) == before && clock_now_ns() < deadline)
			usleep(10);
		assert_int_not_equal(word(r, DATA_GPA), before);
	}
	stop(r);
	rig_free(r);
}

static void a_halted_vcpu_pauses_too(void **state)
{
	static const uint8_t code[] = {0xba, 0x10, 0x05, 0xee, 0xf4, 0xeb, 0xfe}; /* out; hlt */
	struct rig *r;

	(void)state;
	need_kvm();
	r = rig_new(code, sizeof(code));
	vcpu_resume(r->vcpu);
	wait_for(&r->nr_log, 1);
	usleep(2000);
	for (int i = 0; i < 100; i++) {
		stop(r);
		vcpu_resume(r->vcpu);
	}
	stop(r);
	rig_free(r);
}

static void triple_fault_stops_with_a_message(void **state)
{
	/* lidt [0x100f], a limit of zero; mov eax,cr0; or al,1; mov cr0,eax; ud2: in protected
	 * mode, because KVM's emulator does not look at the limit in real mode. */
	static const uint8_t code[] = {0x0f, 0x01, 0x1e, 0x0f, 0x10, 0x0f, 0x20, 0xc0, 0x0c, 0x01,
				       0x0f, 0x22, 0xc0, 0x0f, 0x0b, 0,    0,    0,    0,    0};
	struct rig *r;

	(void)state;
	need_kvm();
	r = rig_new(code, sizeof(code));
	vcpu_resume(r->vcpu);
	wait_for(&r->nr_stops, 1);
	vcpu_wait_paused(r->vcpu);
	print_message("%s\n", r->text);
	assert_int_equal(r->why, VCPU_STOP_SHUTDOWN);
	assert_non_null(strstr(r->text, "triple fault"));
	assert_non_null(strstr(r->text, "rip 0x"));
	rig_free(r);
}

static int bad_luck(int fd, void *arg, struct err *e)
{
	(void)fd;
	return err_set(e, ERR_STATE, 5, "%s", (const char *)arg);
}

static void a_failing_call_is_prefixed(void **state)
{
	static const uint8_t code[] = {0xeb, 0xfe};
	char why[] = "no luck";
	struct rig *r;
	struct err e = ERR_INIT;

	(void)state;
	need_kvm();
	r = rig_new(code, sizeof(code));
	assert_int_equal(vcpu_call(r->vcpu, bad_luck, why, &e), -5);
	assert_string_equal(e.msg, "vCPU 0: no luck");
	rig_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ports_reach_the_bus),
		cmocka_unit_test(string_output_keeps_every_byte),
		cmocka_unit_test(a_pause_never_splits_an_access),
		cmocka_unit_test(pausing_thousands_of_times_loses_nothing),
		cmocka_unit_test(a_pause_taken_back_is_forgotten),
		cmocka_unit_test(a_halted_vcpu_pauses_too),
		cmocka_unit_test(triple_fault_stops_with_a_message),
		cmocka_unit_test(a_failing_call_is_prefixed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
