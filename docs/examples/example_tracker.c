/*
 * Example: a dirty tracker (docs/extending.md). `everything` watches nothing and reports all RAM as
 * written: always right, never cheap. It is the reference that cannot lose a page.
 */
#include <errno.h>
#include <stdlib.h>

#include "dirty-tracking/dirty.h"
#include "tests/rig/rig.h"
#include "tests/unit/cmocka_all.h"

/* A tracker with state of its own embeds struct dirty_tracker first; this one has none. */

static int everything_start(struct dirty_tracker *t, struct err *e)
{
	(void)t;
	(void)e;
	return 0;
}

static int everything_collect(struct dirty_tracker *t, struct bitmap *set, struct err *e)
{
	const struct guest_mem *mem = vm_mem(t->vm);

	(void)e;
	for (uint32_t i = 0; i < guest_mem_nr_slots(mem); i++) {
		const struct mem_slot *slot = guest_mem_slot(mem, i);

		bitmap_set_range(set, slot->gpa / PAGE_BYTES, slot->bytes / PAGE_BYTES);
	}
	return 0;
}

static void everything_stop(struct dirty_tracker *t)
{
	(void)t;
}

static void everything_free(struct dirty_tracker *t)
{
	free(t);
}

static const struct dirty_ops dirty_everything_ops = {
	.name = "everything",
	.summary = "no tracking: every page, every round",
	.start = everything_start,
	.collect = everything_collect,
	/* no claim: what collect reports is claimed */
	.stop = everything_stop,
	.free = everything_free,
};

static int dirty_everything_new(struct vm *vm, struct dirty_tracker **out, struct err *e)
{
	struct dirty_tracker *t = calloc(1, sizeof(*t));

	if (!t)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a dirty tracker");
	*t = (struct dirty_tracker){.ops = &dirty_everything_ops, .vm = vm};
	*out = t;
	return 0;
}

/* ---- The test ---- */

static void test_reports_all_ram(void **state)
{
	struct dirty_tracker *t = NULL;
	struct bitmap set;
	struct err e = ERR_INIT;
	struct vm *vm;

	(void)state;
	rig_need_kvm();
	vm = rig_boot(&(struct rig_guest){.memory_bytes = 64ull << 20, .nr_cpus = 1});
	assert_int_equal(dirty_everything_new(vm, &t, &e), 0);
	assert_int_equal(bitmap_init(&set, guest_mem_nr_gfns(vm_mem(vm)), &e), 0);
	assert_int_equal(dirty_start(t, &e), 0);
	assert_int_equal(dirty_collect(t, &set, &e), 0);
	assert_int_equal(bitmap_count(&set), (64ull << 20) / PAGE_BYTES);
	dirty_stop(t);
	dirty_free(t);
	bitmap_fini(&set);
	vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reports_all_ram),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
