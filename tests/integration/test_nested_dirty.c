/*
 * The oracle (tests/rig/oracle.h) with L2 writing: no page is missed, whoever wrote it: L1, L2 by
 * nested or by shadow paging, or KVM on L1's behalf (VMCB, accessed and dirty bits).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "dirty-tracking/dirty.h"
#include "nested/caps.h"
#include "tests/rig/must.h"
#include "tests/rig/oracle.h"
#include "tests/rig/rig.h"
#include "vmm/base/clock.h"
#include "vmm/kvm.h"

#define MEMORY_BYTES (32ull << 20)
#define NR_LOOKS     12u

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

static void with_tracker(const char *name, const char *npt)
{
	char append[128];
	struct rig_guest guest = {.memory_bytes = MEMORY_BYTES,
				  .nr_cpus = 1,
				  .kernel = L1_ELF,
				  .append = append,
				  .nested = true};
	const struct oracle_watch watch = {.nr_looks = NR_LOOKS,
					   .look_ns = 60 * NS_PER_MS,
					   .nr_gfns = MEMORY_BYTES / PAGE_BYTES,
					   .nr_changes = NR_LOOKS + 1}; /* else nobody wrote */
	struct vm *vm;

	need_nesting();
	snprintf(append, sizeof(append),
		 "l1.mode=work l1.guests=2 l1.npt=%s fill=4M ws=2M rate=1000 quiet=1", npt);
	vm = rig_boot(&guest);
	oracle_watch(vm, name, &watch);
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
