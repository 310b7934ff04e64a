#include "migration/throttle.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "vmm/base/cancel.h"
#include "vmm/base/clock.h"
#include "vmm/vcpu.h"

/* How long the guest runs in one go, as QEMU's CPU_THROTTLE_TIMESLICE: short enough for its timers,
 * long enough to get something done. The rest follows: at 99 % it is a second. */
#define RUN_NS (10 * NS_PER_MS)

struct throttle {
	struct vm *vm;
	struct cancel *end;
	pthread_t thread;
	_Atomic uint32_t percent;
};

static void rest_all(const struct throttle *t, uint64_t until_ns)
{
	for (uint32_t i = 0; i < vm_nr_cpus(t->vm); i++)
		vcpu_rest_until(vm_vcpu(t->vm, i), until_ns);
}

static void *throttle_main(void *arg)
{
	struct throttle *t = arg;
	struct err ended = ERR_INIT;
	uint64_t at_ns = clock_now_ns();

	do {
		uint32_t percent = atomic_load(&t->percent);
		uint64_t until_ns = at_ns + RUN_NS * percent / (100 - percent);

		rest_all(t, until_ns);
		at_ns = until_ns + RUN_NS;
	} while (cancel_sleep_until(t->end, at_ns, &ended) == 0);
	rest_all(t, 0);
	return NULL;
}

static int start(struct throttle *t, struct err *e)
{
	int code;

	if (cancel_new(&t->end, e) < 0)
		return -e->code;
	code = pthread_create(&t->thread, NULL, throttle_main, t);
	if (code == 0)
		return 0;
	cancel_free(t->end);
	return err_set(e, ERR_SYS, code, "cannot create the thread that throttles the guest");
}

int throttle_set(struct throttle **out, struct vm *vm, uint32_t percent, struct err *e)
{
	struct throttle *t = *out;

	if (t) {
		atomic_store(&t->percent, percent);
		return 0;
	}
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for throttling");
	t->vm = vm;
	atomic_init(&t->percent, percent);
	if (start(t, e) < 0) {
		free(t);
		return -e->code;
	}
	*out = t;
	return 0;
}

uint32_t throttle_percent(const struct throttle *t)
{
	return t ? atomic_load(&t->percent) : 0;
}

void throttle_free(struct throttle *t)
{
	if (!t)
		return;
	cancel_request(t->end);
	pthread_join(t->thread, NULL);
	cancel_free(t->end);
	free(t);
}
