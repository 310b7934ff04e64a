#include "migration/turn.h"

#include "vmm/base/clock.h"
#include "vmm/vcpu.h"

/* A tick of a kernel with HZ=250: for less nobody is kept off a processor. */
#define TICK_NS (4 * NS_PER_MS)
/* Long enough for a guest's interrupt handlers, and for a hypervisor to hear of an exit. */
#define MOMENT_NS NS_PER_MS
#define LOOKS     6

void turn_mark(struct turn *t, struct vm *vm)
{
	for (uint32_t i = 0; i < vm_nr_cpus(vm); i++)
		t->cpu_ns[i] = vcpu_cpu_time_ns(vm_vcpu(vm, i));
	t->at_ns = clock_now_ns();
}

static bool all_ran(const struct turn *since, struct vm *vm, uint64_t for_ns)
{
	for (uint32_t i = 0; i < vm_nr_cpus(vm); i++)
		if (vcpu_cpu_time_ns(vm_vcpu(vm, i)) - since->cpu_ns[i] < for_ns)
			return false;
	return true;
}

void turn_await(const struct turn *t, struct vm *vm)
{
	uint64_t now_ns = clock_now_ns();
	uint64_t passed_ns = now_ns - t->at_ns;
	struct turn now = {.at_ns = 0};

	if (!t->at_ns || passed_ns <= TICK_NS || all_ran(t, vm, passed_ns - TICK_NS))
		return;
	turn_mark(&now, vm);
	/* Asleep until the moment is over: looking more often would take the processor from it. */
	for (uint64_t i = 1; i <= LOOKS && !all_ran(&now, vm, MOMENT_NS / 2); i++)
		clock_sleep_until_ns(now_ns + i * MOMENT_NS);
}
