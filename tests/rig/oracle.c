#include "tests/rig/oracle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dirty-tracking/dirty.h"
#include "tests/rig/must.h"
#include "vmm/base/clock.h"

#define WATCH_NS (60 * NS_PER_S)

/* Pages of @now that differ from @before; each must be in @set. */
static uint64_t check_changes(const uint8_t *before, const uint8_t *now, const struct bitmap *set,
			      const struct oracle_watch *w)
{
	uint64_t changed = 0;

	for (uint64_t gfn = 0; gfn < set->nr_bits; gfn++) {
		if (!memcmp(before + gfn * PAGE_BYTES, now + gfn * PAGE_BYTES, PAGE_BYTES))
			continue;
		changed += gfn >= w->first_gfn && gfn - w->first_gfn < w->nr_gfns;
		if (!bitmap_test(set, gfn))
			fail_msg("page 0x%llx changed and was not reported",
				 (unsigned long long)gfn);
	}
	return changed;
}

static uint64_t look(struct vm *vm, struct dirty_tracker *t, uint8_t *before, struct bitmap *set,
		     const struct oracle_watch *w)
{
	const uint8_t *memory = guest_mem_at(vm_mem(vm), 0, set->nr_bits * PAGE_BYTES);
	uint64_t changed;

	assert_non_null(memory);
	memcpy(before, memory, set->nr_bits * PAGE_BYTES);
	must(vm_resume(vm, e));
	clock_sleep_until_ns(clock_now_ns() + w->look_ns);
	must(vm_pause(vm, e));
	bitmap_zero(set);
	must(dirty_collect(t, set, e));
	changed = check_changes(before, memory, set, w);
	must(dirty_claim(t, set, 0, set->nr_bits, e));
	/* What has been claimed is not reported for ever: such a guest would never be done. */
	bitmap_zero(set);
	must(dirty_collect(t, set, e));
	assert_int_equal(bitmap_count(set), 0);
	return changed;
}

void oracle_watch(struct vm *vm, const char *name, const struct oracle_watch *w)
{
	uint64_t nr_gfns = guest_mem_nr_gfns(vm_mem(vm)), changed = 0;
	uint64_t deadline = clock_now_ns() + WATCH_NS;
	uint8_t *before = malloc(nr_gfns * PAGE_BYTES);
	struct dirty_tracker *t;
	struct bitmap set;

	assert_non_null(before);
	must(bitmap_init(&set, nr_gfns, e));
	must(dirty_new(name, vm, &t, e));
	must(vm_pause(vm, e));
	must(dirty_start(t, e));
	for (uint32_t i = 0; i < w->nr_looks || changed < w->nr_changes; i++) {
		if (i >= w->nr_looks && clock_now_ns() > deadline)
			fail_msg("the guest has changed %llu pages in %u looks, and no more",
				 (unsigned long long)changed, i);
		changed += look(vm, t, before, &set, w);
	}
	dirty_stop(t);
	dirty_free(t);
	bitmap_fini(&set);
	free(before);
}
