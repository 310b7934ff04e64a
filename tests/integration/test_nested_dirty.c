/*
 * The oracle with L2 writing: between two looks at a running hypervisor every page whose bytes have
 * changed must be in what the tracker reports, whoever wrote it: L1, L2 by nested or by shadow
 * paging, or KVM on L1's behalf (VMCB, accessed and dirty bits).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "dirty-tracking/dirty.h"
#include "nested/caps.h"
#include "tests/rig/rig.h"
#include "vmm/base/clock.h"
#include "vmm/kvm.h"

#define MEMORY_BYTES (32ull << 20)
#define NR_LOOKS     12u
#define LOOK_NS      (60 * NS_PER_MS)

#define must(call)                              \
	do {                                    \
		struct err e_ = ERR_INIT;       \
		struct err *e = &e_;            \
		if ((call) < 0)                 \
			fail_msg("%s", e_.msg); \
	} while (0)

static void need_nesting(void)
{
	struct nested_caps caps;
	char why[200];
	int fd;

	rig_need_kvm();
	must(kvm_open(&fd, e));
	must(nested_caps_probe(fd, &caps, why, sizeof(why), e));
	close(fd);
	if (caps.vendor == NESTED_NONE) {
		print_message("SKIPPED: %s\n", why);
		skip();
	}
}

/* Pages that differ from @before; each must be in @set. Returns how many. */
static uint64_t check_changes(const uint8_t *before, const uint8_t *now, const struct bitmap *set)
{
	uint64_t changed = 0;

	for (uint64_t gfn = 0; gfn < MEMORY_BYTES / PAGE_BYTES; gfn++) {
		if (!memcmp(before + gfn * PAGE_BYTES, now + gfn * PAGE_BYTES, PAGE_BYTES))
			continue;
		changed++;
		if (!bitmap_test(set, gfn))
			fail_msg("page 0x%llx changed and was not reported",
				 (unsigned long long)gfn);
	}
	return changed;
}

static void look_again_and_again(struct vm *vm, struct dirty_tracker *t)
{
	const uint8_t *memory = guest_mem_at(vm_mem(vm), 0, MEMORY_BYTES);
	uint64_t nr_gfns = guest_mem_nr_gfns(vm_mem(vm)), changed = 0;
	uint8_t *before = malloc(MEMORY_BYTES);
	struct bitmap set;

	assert_non_null(before);
	must(bitmap_init(&set, nr_gfns, e));
	must(vm_pause(vm, e));
	must(dirty_start(t, e));
	for (unsigned int i = 0; i < NR_LOOKS; i++) {
		memcpy(before, memory, MEMORY_BYTES);
		must(vm_resume(vm, e));
		clock_sleep_until_ns(clock_now_ns() + LOOK_NS);
		must(vm_pause(vm, e));
		bitmap_zero(&set);
		must(dirty_collect(t, &set, e));
		changed += check_changes(before, memory, &set);
		must(dirty_claim(t, &set, 0, nr_gfns, e));
	}
	dirty_stop(t);
	bitmap_fini(&set);
	free(before);
	assert_true(changed > NR_LOOKS); /* else nobody wrote */
}

static void with_tracker(const char *name, const char *npt)
{
	char append[128];
	struct rig_guest guest = {.memory_bytes = MEMORY_BYTES,
				  .nr_cpus = 1,
				  .kernel = L1_ELF,
				  .append = append,
				  .nested = true};
	struct dirty_tracker *t;
	struct vm *vm;

	need_nesting();
	snprintf(append, sizeof(append),
		 "l1.mode=work l1.guests=2 l1.npt=%s fill=4M ws=2M rate=1000 quiet=1", npt);
	vm = rig_boot(&guest);
	must(dirty_new(name, vm, &t, e));
	look_again_and_again(vm, t);
	dirty_free(t);
	rig_check(vm);
	vm_free(vm);
}

/* All there are: whoever adds a tracker adds it here. */
static void every_tracker(const char *npt)
{
	const struct dirty_ops *ops;

	for (uint32_t i = 0; (ops = dirty_kind(i)) != NULL; i++) {
		print_message("tracker %s\n", ops->name);
		with_tracker(ops->name, npt);
	}
}

static void no_page_is_missed_with_nested_paging(void **state)
{
	(void)state;
	every_tracker("1");
}

static void no_page_is_missed_with_shadow_paging(void **state)
{
	(void)state;
	every_tracker("0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_page_is_missed_with_nested_paging),
		cmocka_unit_test(no_page_is_missed_with_shadow_paging),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
