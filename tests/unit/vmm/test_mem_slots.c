/* vmm/mem_slots.c: what KVM has of a guest's memory, and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tests/unit/vmm/need_kvm.h"
#include "vmm/mem_slots.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

struct bench {
	int kvm_fd;
	int vm_fd;
	struct guest_mem *mem;
	struct mem_slots *slots;
};

static void start_in(struct bench *b, uint64_t bytes, uint32_t nr_spaces)
{
	struct err e = ERR_INIT;

	*b = (struct bench){.vm_fd = -1};
	need_kvm();
	assert_int_equal(kvm_open(&b->kvm_fd, &e), 0);
	b->vm_fd = ioctl(b->kvm_fd, KVM_CREATE_VM, 0);
	assert_true(b->vm_fd >= 0);
	assert_int_equal(guest_mem_new(bytes, &b->mem, &e), 0);
	assert_int_equal(mem_slots_new(b->vm_fd, b->mem, nr_spaces, &b->slots, &e), 0);
}

static void start(struct bench *b, uint64_t bytes)
{
	start_in(b, bytes, 1);
}

static void stop(struct bench *b)
{
	mem_slots_free(b->slots);
	close(b->vm_fd);
	close(b->kvm_fd);
	guest_mem_free(b->mem);
}

/* 0, or why KVM has no dirty log of that slot: ENOENT without a slot, or without logging. */
static int dirty_log(const struct bench *b, uint32_t slot)
{
	static uint64_t bits[3 * GIB / PAGE_BYTES / 64];
	struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bits};

	return ioctl(b->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0 ? errno : 0;
}

static void all_of_it_is_there_once_awaited(void **state)
{
	struct bench b;
	struct err e = ERR_INIT;

	(void)state;
	start(&b, 4 * GIB); /* 3 below the hole, 1 above */
	assert_int_equal(mem_slots_await(b.slots, &e), 0);
	assert_int_equal(mem_slots_await(b.slots, &e), 0);
	assert_int_equal(mem_slots_set_logging(b.slots, true, &e), 0);
	assert_int_equal(dirty_log(&b, 1), 0);
	assert_int_equal(mem_slots_set_logging(b.slots, false, &e), 0);
	assert_int_equal(dirty_log(&b, 1), ENOENT);
	stop(&b);
}

static void logging_waits_for_the_slots(void **state)
{
	struct bench b;
	struct err e = ERR_INIT;

	(void)state;
	start(&b, 4 * GIB);
	assert_int_equal(mem_slots_set_logging(b.slots, true, &e), 0);
	assert_int_equal(dirty_log(&b, 1), 0);
	stop(&b);
}

static void the_second_address_space_has_slots_and_logs_too(void **state)
{
	static const uint32_t numbers[] = {0, 1, 1 << 16, 1 << 16 | 1};
	struct bench b;
	struct err e = ERR_INIT;

	(void)state;
	start_in(&b, 4 * GIB, 2);
	assert_int_equal(mem_slots_nr(b.slots), 4);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(mem_slots_at(b.slots, i)->index, numbers[i]);
		assert_int_equal(mem_slots_at(b.slots, i)->gpa, i & 1 ? 4 * GIB : 0);
	}
	assert_null(mem_slots_at(b.slots, 4));
	if (kvm_check(b.vm_fd, KVM_CAP_MULTI_ADDRESS_SPACE) < 2) {
		assert_int_equal(mem_slots_await(b.slots, &e), -EINVAL);
		assert_non_null(strstr(e.msg, "memory slot 0 of address space 1 (3072 MiB)"));
	} else {
		assert_int_equal(mem_slots_set_logging(b.slots, true, &e), 0);
		for (uint32_t i = 0; i < 4; i++)
			assert_int_equal(dirty_log(&b, numbers[i]), 0);
	}
	stop(&b);
}

static void nobody_need_wait(void **state)
{
	struct bench b;

	(void)state;
	start(&b, 64 * GIB);
	stop(&b);
	mem_slots_free(NULL);
}

static void a_refusal_is_told_each_time(void **state)
{
	struct guest_mem *mem;
	struct mem_slots *slots;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(guest_mem_new(64 * MIB, &mem, &e), 0);
	assert_int_equal(mem_slots_new(-1, mem, 1, &slots, &e), 0);
	for (int i = 0; i < 2; i++) {
		e = (struct err)ERR_INIT;
		assert_int_equal(mem_slots_await(slots, &e), -EBADF);
		assert_non_null(strstr(e.msg, "memory slot 0 (64 MiB)"));
	}
	assert_int_equal(mem_slots_set_logging(slots, true, &e), -EBADF);
	mem_slots_free(slots);
	guest_mem_free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_of_it_is_there_once_awaited),
		cmocka_unit_test(logging_waits_for_the_slots),
		cmocka_unit_test(the_second_address_space_has_slots_and_logs_too),
		cmocka_unit_test(nobody_need_wait),
		cmocka_unit_test(a_refusal_is_told_each_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
