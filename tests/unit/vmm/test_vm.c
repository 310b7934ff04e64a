/* vmm/vm*.c: running, stopping, what the guest asks for, and state that arrives as it left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/resource.h>
#include <sys/stat.h>

#include "need_kvm.h"
#include "tiny_guest.h"
#include "vmm/bus.h"
#include "vmm/machine.h"

/* l: inc dword [DATA]; jmp l */
static const uint8_t counting[] = {0xff, 0x05, 0x00, 0x00, 0x20, 0x00, 0xeb, 0xf8};

static void pause_and_resume(void **state)
{
	struct tiny t;

	(void)state;
	need_kvm();
	tiny_new(&t, 2, counting, sizeof(counting));
	assert_int_equal(vm_status(t.vm), VM_PRELAUNCH);
	must(vm_resume(t.vm, e));
	must(vm_resume(t.vm, e));
	for (int i = 0; i < 50; i++) {
		uint32_t before;

		tiny_wait_moving(&t);
		must(vm_pause(t.vm, e));
		must(vm_pause(t.vm, e));
		before = tiny_word(&t, TINY_DATA_GPA);
		usleep(300);
		assert_int_equal(tiny_word(&t, TINY_DATA_GPA), before);
		must(vm_resume(t.vm, e));
	}
	assert_int_equal(atomic_load(&t.nr_events[VM_EVENT_RUNNING]), 51);
	assert_int_equal(atomic_load(&t.nr_events[VM_EVENT_PAUSED]), 50);
	tiny_free(&t);
}

static void some_states_refuse_to_run(void **state)
{
	const enum vm_status refusing[] = {VM_FINISH_MIGRATE, VM_POSTMIGRATE, VM_SHUTDOWN,
					   VM_INTERNAL_ERROR};
	struct tiny t;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, counting, sizeof(counting));
	for (size_t i = 0; i < sizeof(refusing) / sizeof(refusing[0]); i++) {
		struct err e = ERR_INIT;

		vm_set_status(t.vm, refusing[i]);
		assert_true(vm_resume(t.vm, &e) < 0);
		assert_int_equal(e.kind, ERR_STATE);
	}
	vm_set_status(t.vm, VM_PAUSED);
	must(vm_resume(t.vm, e));
	tiny_wait_moving(&t);
	tiny_free(&t);
}

static void debug_exit_ends_the_machine(void **state)
{
	/* mov al,5; out 0xf4,al; jmp $ */
	static const uint8_t code[] = {0xb0, 0x05, 0xe6, BOARD_DEBUG_EXIT_PORT, 0xeb, 0xfe};
	struct tiny t;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, code, sizeof(code));
	must(vm_resume(t.vm, e));
	tiny_wait_event(&t, VM_EVENT_EXIT, 1);
	assert_int_equal(atomic_load(&t.code), 5 << 1 | 1);
	assert_int_equal(vm_status(t.vm), VM_SHUTDOWN);
	tiny_free(&t);
}

/* The order in which two events were heard of. */
struct order {
	atomic_uint nr;
	enum vm_event_type heard[4];
};

static void slow_listener(void *ctx, const struct vm_event *ev)
{
	struct order *o = ctx;
	unsigned int nr;

	if (ev->type == VM_EVENT_RUNNING)
		usleep(20000); /* the guest has ended by now */
	nr = atomic_load(&o->nr);
	o->heard[nr % 4] = ev->type;
	atomic_store(&o->nr, nr + 1);
}

static void that_it_runs_is_told_before_what_it_does(void **state)
{
	/* mov al,5; out 0xf4,al; jmp $ */
	static const uint8_t code[] = {0xb0, 0x05, 0xe6, BOARD_DEBUG_EXIT_PORT, 0xeb, 0xfe};
	struct vm_config config = {.memory_bytes = 16 << 20, .nr_cpus = 1, .debug_exit = true};
	uint64_t deadline = clock_now_ns() + TINY_PATIENCE_NS;
	struct order o = {.nr = 0};
	struct tiny t = {.vm = NULL};

	(void)state;
	need_kvm();
	tiny_write_image(&t, code, sizeof(code));
	config.kernel = t.path;
	must(vm_new(&config, slow_listener, &o, &t.vm, e));
	must(vm_boot(t.vm, e));
	must(vm_resume(t.vm, e));
	while (atomic_load(&o.nr) < 2 && clock_now_ns() < deadline)
		usleep(200);
	assert_int_equal(atomic_load(&o.nr), 2);
	assert_int_equal(o.heard[0], VM_EVENT_RUNNING);
	assert_int_equal(o.heard[1], VM_EVENT_EXIT);
	tiny_free(&t);
}

/* A counter that asks for a reset (port 0xcf9) each time it reaches 1000. */
static const uint8_t resetting[] = {
	0xc7, 0x05, 0x04, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, /* mov dword [DATA+4],0 */
	0xff, 0x05, 0x00, 0x00, 0x20, 0x00,                         /* l: inc dword [DATA] */
	0xff, 0x05, 0x04, 0x00, 0x20, 0x00,                         /* inc dword [DATA+4] */
	0x81, 0x3d, 0x04, 0x00, 0x20, 0x00, 0xe8, 0x03, 0x00, 0x00, /* cmp [DATA+4],1000 */
	0x75, 0xe8,                                                 /* jne l */
	0x66, 0xba, 0xf9, 0x0c,                                     /* mov dx,0xcf9 */
	0xb0, 0x06, 0xee,                                           /* mov al,6; out dx,al */
	0xff, 0x05, 0x08, 0x00, 0x20, 0x00,                         /* inc dword [DATA+8]: never */
	0xeb, 0xfe};

static void a_guest_can_reset_itself(void **state)
{
	struct tiny t;

	(void)state;
	need_kvm();
	tiny_new(&t, 2, resetting, sizeof(resetting));
	must(vm_resume(t.vm, e));
	for (unsigned int i = 1; i <= 20; i++) {
		tiny_wait_event(&t, VM_EVENT_RESET, i);
		assert_int_equal(vm_status(t.vm), VM_RUNNING);
		must(vm_reset(t.vm, e));
	}
	must(vm_pause(t.vm, e));
	/* Memory is kept by a reset, so the total says how often it came round. */
	assert_true(tiny_word(&t, TINY_DATA_GPA) >= 20000);
	assert_int_equal(tiny_word(&t, TINY_DATA_GPA + 8), 0);
	tiny_free(&t);
}

static void a_triple_fault_is_a_reset(void **state)
{
	/* lidt [0x300000], zeroes; ud2 */
	static const uint8_t code[] = {0x0f, 0x01, 0x1d, 0x00, 0x00, 0x30, 0x00, 0x0f, 0x0b};
	struct tiny t;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, code, sizeof(code));
	must(vm_resume(t.vm, e));
	tiny_wait_event(&t, VM_EVENT_RESET, 1);
	assert_non_null(strstr(t.text, "triple fault"));
	tiny_free(&t);
}

static void save(struct tiny *t, struct buf *out)
{
	buf_reset(out);
	must(vm_save_state(t->vm, out, e));
}

static void copy_memory(struct tiny *from, struct tiny *to)
{
	uint64_t bytes = guest_mem_bytes(vm_mem(from->vm));

	memcpy(guest_mem_at_rw(vm_mem(to->vm), 0, bytes), guest_mem_at(vm_mem(from->vm), 0, bytes),
	       bytes);
}

static void assert_same_machine(const struct buf *a, const struct buf *b)
{
	struct buf ca = BUF_INIT;
	struct buf cb = BUF_INIT;

	must(vm_state_canonical(a->data, a->len, &ca, e));
	must(vm_state_canonical(b->data, b->len, &cb, e));
	assert_int_equal(ca.len, cb.len);
	assert_memory_equal(ca.data, cb.data, ca.len);
	buf_fini(&ca);
	buf_fini(&cb);
}

static void move(uint32_t nr_cpus, int times)
{
	struct buf one = BUF_INIT;
	struct buf two = BUF_INIT;
	uint64_t ns[3] = {0, 0, 0};
	struct tiny a;

	tiny_new(&a, nr_cpus, counting, sizeof(counting));
	must(vm_resume(a.vm, e));
	for (int i = 0; i < times; i++) {
		struct tiny b;
		uint64_t at[4];

		tiny_wait_moving(&a);
		at[0] = clock_now_ns();
		must(vm_pause(a.vm, e));
		at[1] = clock_now_ns();
		save(&a, &one);
		at[2] = clock_now_ns();
		tiny_new(&b, nr_cpus, NULL, 0);
		vm_set_status(b.vm, VM_INMIGRATE);
		copy_memory(&a, &b);
		at[3] = clock_now_ns();
		must(vm_load_state(b.vm, one.data, one.len, e));
		ns[2] += clock_now_ns() - at[3];
		save(&b, &two);
		assert_same_machine(&one, &two);
		save(&a, &two);
		assert_same_machine(&one, &two);
		ns[0] += at[1] - at[0];
		ns[1] += at[2] - at[1];
		tiny_free(&a);
		a = b;
		must(vm_resume(a.vm, e));
	}
	print_message("%u vCPUs, %zu bytes: pause %llu us, save %llu us, load %llu us\n", nr_cpus,
		      one.len, (unsigned long long)(ns[0] / 1000 / (unsigned)times),
		      (unsigned long long)(ns[1] / 1000 / (unsigned)times),
		      (unsigned long long)(ns[2] / 1000 / (unsigned)times));
	tiny_wait_moving(&a);
	tiny_free(&a);
	buf_fini(&one);
	buf_fini(&two);
}

static void state_arrives_as_it_left(void **state)
{
	(void)state;
	need_kvm();
	move(1, 20);
	move(2, 10);
	move(16, 3);
}

static void a_pending_reset_travels(void **state)
{
	struct buf s = BUF_INIT;
	struct tiny a;
	struct tiny b;

	(void)state;
	need_kvm();
	tiny_new(&a, 1, resetting, sizeof(resetting));
	must(vm_resume(a.vm, e));
	tiny_wait_event(&a, VM_EVENT_RESET, 1);
	must(vm_pause(a.vm, e));
	save(&a, &s);
	tiny_new(&b, 1, NULL, 0);
	copy_memory(&a, &b);
	must(vm_load_state(b.vm, s.data, s.len, e));
	must(vm_resume(b.vm, e));
	tiny_wait_event(&b, VM_EVENT_RESET, 1);
	usleep(2000);
	assert_int_equal(tiny_word(&b, TINY_DATA_GPA + 8), 0);
	tiny_free(&a);
	tiny_free(&b);
	buf_fini(&s);
}

/* Sleeps, to be woken by the power button at 0x5000. */
static const uint8_t sleeping[] = {
	0xc7, 0x05, 0x4c, 0x00, 0x0e, 0x00, 0x00, 0x50, 0x00, 0x00, /* mov dword [0xe004c],0x5000 */
	0x66, 0xba, 0x02, 0x06,                                     /* mov dx,0x602 */
	0x66, 0xb8, 0x00, 0x01, 0x66, 0xef,                         /* mov ax,0x100; out dx,ax */
	0x66, 0xba, 0x04, 0x06,                                     /* mov dx,0x604 */
	0x66, 0xb8, 0x00, 0x24, 0x66, 0xef,                         /* mov ax,0x2400; out dx,ax */
	0xff, 0x05, 0x08, 0x00, 0x20, 0x00,                         /* inc dword [DATA+8]: never */
	0xeb, 0xfe};

static void put_awake(struct tiny *t)
{
	static const uint8_t awake[] = {0xb0, 0x09, 0xe6, BOARD_DEBUG_EXIT_PORT, 0xeb, 0xfe};

	must(guest_mem_write(vm_mem(t->vm), 0x5000, awake, sizeof(awake), e));
}

/* Asleep it may be paused, goes to another host as it is, and is woken there. */
static void a_sleeping_guest_travels(void **state)
{
	const struct vm_config config = {
		.memory_bytes = 16 << 20, .nr_cpus = 2, .debug_exit = true, .test_devices = true};
	struct buf s = BUF_INIT;
	struct tiny a;
	struct tiny b;

	(void)state;
	need_kvm();
	tiny_new_as(&a, config, sleeping, sizeof(sleeping));
	put_awake(&a);
	must(vm_resume(a.vm, e));
	tiny_wait_event(&a, VM_EVENT_SUSPEND, 1);
	must(vm_pause(a.vm, e));
	must(vm_resume(a.vm, e));
	must(vm_pause(a.vm, e));
	save(&a, &s);
	tiny_new_as(&b, config, NULL, 0);
	copy_memory(&a, &b);
	must(vm_load_state(b.vm, s.data, s.len, e));
	must(vm_resume(b.vm, e));
	usleep(2000);
	assert_int_equal(tiny_word(&b, TINY_DATA_GPA + 8), 0);
	assert_int_equal(atomic_load(&b.nr_events[VM_EVENT_WAKE]), 0);
	vm_powerdown(b.vm);
	tiny_wait_event(&b, VM_EVENT_WAKE, 1);
	must(vm_wake(b.vm, e));
	tiny_wait_event(&b, VM_EVENT_EXIT, 1);
	assert_int_equal(atomic_load(&b.code), 9 << 1 | 1);
	assert_int_equal(tiny_word(&b, TINY_DATA_GPA + 8), 0);
	tiny_free(&a);
	tiny_free(&b);
	buf_fini(&s);
}

/* The button is no wake-up for a guest that is awake, nor for a machine without S3. */
static void nothing_wakes_who_does_not_sleep(void **state)
{
	struct tiny t;

	(void)state;
	need_kvm();
	tiny_new(&t, 1, sleeping, sizeof(sleeping));
	must(vm_resume(t.vm, e));
	vm_powerdown(t.vm);
	while (!tiny_word(&t, TINY_DATA_GPA + 8)) /* it has gone on */
		usleep(1000);
	assert_int_equal(atomic_load(&t.nr_events[VM_EVENT_SUSPEND]), 0);
	assert_int_equal(atomic_load(&t.nr_events[VM_EVENT_WAKE]), 0);
	tiny_free(&t);
}

static void broken_state_is_refused(void **state)
{
	struct buf s = BUF_INIT;
	struct buf after = BUF_INIT;
	struct buf before = BUF_INIT;
	struct tiny a;
	struct tiny b;
	int accepted = 0;

	(void)state;
	need_kvm();
	tiny_new(&a, 1, counting, sizeof(counting));
	tiny_new(&b, 2, counting, sizeof(counting));
	save(&a, &s);
	save(&b, &before);
	for (size_t len = 0; len < s.len; len += 97) {
		struct err e = ERR_INIT;

		accepted += vm_load_state(a.vm, s.data, len, &e) == 0;
		assert_true(e.kind != ERR_SYS);
	}
	assert_int_equal(accepted, 0);
	/* One vCPU's state into two, and the machine is as it was. */
	assert_true(vm_load_state(b.vm, s.data, s.len, &(struct err)ERR_INIT) < 0);
	save(&b, &after);
	assert_same_machine(&before, &after);
	tiny_free(&a);
	tiny_free(&b);
	buf_fini(&s);
	buf_fini(&before);
	buf_fini(&after);
}

static void a_description_builds_the_same_machine(void **state)
{
	struct buf d = BUF_INIT;
	struct vm_config c;
	struct err why = ERR_INIT;
	struct tiny a;

	(void)state;
	need_kvm();
	tiny_new(&a, 3, counting, sizeof(counting));
	must(vm_describe(a.vm, &d, e));
	must(vm_config_unpack(d.data, d.len, &c, e));
	assert_int_equal(c.memory_bytes, 16 << 20);
	assert_int_equal(c.nr_cpus, 3);
	assert_true(c.debug_exit);
	assert_null(c.kernel);
	must(vm_check_config(a.vm, d.data, d.len, e));
	assert_true(vm_config_unpack(d.data, d.len - 1, &c, &why) < 0);
	assert_true(vm_config_unpack(d.data, 0, &c, &why) < 0);
	tiny_free(&a);
	buf_fini(&d);
}

static long nr_faults(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
	return usage.ru_minflt;
}

/* Nobody looks at its pages, so it costs about the same as any other. */
static void a_sparse_64_gib_machine_is_instant(void **state)
{
	struct vm_config c = {.memory_bytes = 64ull << 30, .nr_cpus = 1};
	uint64_t start;
	struct stat st;
	long faults;
	struct vm *vm;

	(void)state;
	need_kvm();
	faults = nr_faults();
	start = clock_now_ns();
	must(vm_new(&c, NULL, NULL, &vm, e));
	print_message("64 GiB machine in %llu ms\n",
		      (unsigned long long)((clock_now_ns() - start) / NS_PER_MS));
	assert_in_range(nr_faults() - faults, 0, 10000); /* of 16 million pages */
	assert_int_equal(fstat(guest_mem_fd(vm_mem(vm)), &st), 0);
	assert_in_range(st.st_blocks * 512, 0, 4 << 20);
	must(vm_set_dirty_logging(vm, true, e));
	must(vm_set_dirty_logging(vm, false, e));
	vm_free(vm);
}

static void impossible_machines_are_refused(void **state)
{
	const struct vm_config bad[] = {{.memory_bytes = 16 << 20, .nr_cpus = 0},
					{.memory_bytes = 16 << 20, .nr_cpus = VM_MAX_CPUS + 1},
					{.memory_bytes = 1, .nr_cpus = 1}};
	struct vm *vm;

	(void)state;
	need_kvm();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct err e = ERR_INIT;

		assert_true(vm_new(&bad[i], NULL, NULL, &vm, &e) < 0);
		assert_int_equal(e.kind, ERR_USAGE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pause_and_resume),
		cmocka_unit_test(some_states_refuse_to_run),
		cmocka_unit_test(debug_exit_ends_the_machine),
		cmocka_unit_test(that_it_runs_is_told_before_what_it_does),
		cmocka_unit_test(a_guest_can_reset_itself),
		cmocka_unit_test(a_triple_fault_is_a_reset),
		cmocka_unit_test(state_arrives_as_it_left),
		cmocka_unit_test(a_pending_reset_travels),
		cmocka_unit_test(a_sleeping_guest_travels),
		cmocka_unit_test(nothing_wakes_who_does_not_sleep),
		cmocka_unit_test(broken_state_is_refused),
		cmocka_unit_test(a_description_builds_the_same_machine),
		cmocka_unit_test(a_sparse_64_gib_machine_is_instant),
		cmocka_unit_test(impossible_machines_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
