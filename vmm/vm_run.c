/* Running and stopping, and what the guest asks for while it runs. */
#include "vmm/vm_private.h"

#include <errno.h>
#include <stdio.h>

const char *vm_status_name(enum vm_status status)
{
	switch (status) {
	case VM_PRELAUNCH:
		return "prelaunch";
	case VM_INMIGRATE:
		return "inmigrate";
	case VM_RUNNING:
		return "running";
	case VM_PAUSED:
		return "paused";
	case VM_FINISH_MIGRATE:
		return "finish-migrate";
	case VM_POSTMIGRATE:
		return "postmigrate";
	case VM_SHUTDOWN:
		return "shutdown";
	case VM_INTERNAL_ERROR:
		return "internal-error";
	}
	return "unknown";
}

enum vm_status vm_status(const struct vm *vm)
{
	return (enum vm_status)atomic_load(&vm->status);
}

void vm_set_status(struct vm *vm, enum vm_status status)
{
	atomic_store(&vm->status, (int)status);
}

void vm_emit(struct vm *vm, enum vm_event_type type, int code, const char *text)
{
	struct vm_event ev = {.type = type, .code = code};

	snprintf(ev.text, sizeof(ev.text), "%s", text ? text : "");
	if (vm->on_event)
		vm->on_event(vm->event_ctx, &ev);
}

/* ---- What the guest asks for: on vCPU threads ---- */

static void ask_all_to_pause(struct vm *vm)
{
	for (uint32_t i = 0; i < vm->nr_cpus; i++)
		vcpu_request_pause(vm->cpus[i].vcpu);
}

static void announce(struct vm *vm, enum machine_request what, int code, const char *text)
{
	switch (what) {
	case MACHINE_RESET:
		vm_emit(vm, VM_EVENT_RESET, code, text);
		return;
	case MACHINE_POWEROFF:
		vm_set_status(vm, VM_SHUTDOWN);
		vm_emit(vm, VM_EVENT_POWEROFF, code, text);
		return;
	case MACHINE_EXIT:
		vm_set_status(vm, VM_SHUTDOWN);
		vm_emit(vm, VM_EVENT_EXIT, code, text);
		return;
	case MACHINE_SUSPEND:
		vm_emit(vm, VM_EVENT_SUSPEND, code, text);
		return;
	case MACHINE_WAKE:
		vm_emit(vm, VM_EVENT_WAKE, code, text);
		return;
	}
}

static bool accepted(const struct vm_request *pending, enum machine_request what)
{
	if (what == MACHINE_WAKE)
		return pending->pending && pending->what == MACHINE_SUSPEND;
	return !pending->pending;
}

/* The first request wins; whoever comes later is parked like everybody else. Between this and the
 * controller's answer vm_start_locked() sees the request and lets no vCPU go on; that a guest
 * sleeps is such a request, which only its wake-up (or a reset) ends. */
static void request(struct vm *vm, enum machine_request what, int code, const char *text)
{
	bool mine;

	pthread_mutex_lock(&vm->requests);
	mine = accepted(&vm->request, what);
	if (mine)
		vm->request = (struct vm_request){
			.pending = true, .announced = true, .what = what, .code = code};
	if (what != MACHINE_WAKE) /* the vCPUs of a guest that sleeps have stopped */
		ask_all_to_pause(vm);
	pthread_mutex_unlock(&vm->requests);
	if (mine)
		announce(vm, what, code, text);
}

void vm_machine_request(void *ctx, enum machine_request what, int code)
{
	request(ctx, what, code, "");
}

void vm_cpu_stopped(void *ctx, uint32_t id, enum vcpu_stop why, const char *text)
{
	struct vm *vm = ctx;
	char line[256];

	snprintf(line, sizeof(line), "vCPU %u: %.230s", id, text);
	if (why == VCPU_STOP_SHUTDOWN) {
		/* The shutdown cycle of a PC: the board answers a triple fault with a reset. */
		request(vm, MACHINE_RESET, 0, line);
		return;
	}
	pthread_mutex_lock(&vm->requests);
	ask_all_to_pause(vm);
	vm_set_status(vm, VM_INTERNAL_ERROR);
	pthread_mutex_unlock(&vm->requests);
	vm_emit(vm, VM_EVENT_ERROR, 0, line);
}

/* ---- Stopping and starting: the controller ---- */

static int quiesce_devices(struct vm *vm, struct err *e)
{
	for (uint32_t i = 0; i < vm->nr_devices; i++) {
		struct device *d = vm->devices[i];
		int ret = d->ops->quiesce ? d->ops->quiesce(d, e) : 0;

		if (ret == 0)
			continue;
		err_prefix(e, "%s", d->ops->type);
		while (i--)
			if (vm->devices[i]->ops->unquiesce)
				vm->devices[i]->ops->unquiesce(vm->devices[i]);
		return ret;
	}
	vm->quiesced = true;
	return 0;
}

static void unquiesce_devices(struct vm *vm)
{
	for (uint32_t i = vm->nr_devices; i--;)
		if (vm->devices[i]->ops->unquiesce)
			vm->devices[i]->ops->unquiesce(vm->devices[i]);
	vm->quiesced = false;
}

int vm_stop_locked(struct vm *vm, struct err *e)
{
	/* All are asked before the first is waited for: the pause takes as long as the slowest. */
	ask_all_to_pause(vm);
	for (uint32_t i = 0; i < vm->nr_cpus; i++)
		vcpu_wait_paused(vm->cpus[i].vcpu);
	return vm->quiesced ? 0 : quiesce_devices(vm, e);
}

static void resume_cpus(struct vm *vm)
{
	for (uint32_t i = 0; i < vm->nr_cpus; i++)
		vcpu_resume(vm->cpus[i].vcpu);
}

/* The event is posted once the vCPUs have been told, so that whoever hears of it takes no processor
 * from them; and under the lock that any request of theirs needs, so that it still comes before
 * anything the guest does. */
static void start(struct vm *vm, bool tell)
{
	struct vm_request r;

	if (vm->quiesced)
		unquiesce_devices(vm);
	vm_set_status(vm, VM_RUNNING);
	pthread_mutex_lock(&vm->requests);
	r = vm->request;
	vm->request.announced = true;
	if (!r.pending)
		resume_cpus(vm);
	if (tell)
		vm_emit(vm, VM_EVENT_RUNNING, 0, NULL);
	pthread_mutex_unlock(&vm->requests);
	if (r.pending && !r.announced)
		announce(vm, r.what, r.code, "asked for before the migration");
}

void vm_start_locked(struct vm *vm)
{
	start(vm, false);
}

int vm_pause(struct vm *vm, struct err *e)
{
	bool was_running;
	int ret;

	pthread_mutex_lock(&vm->verbs);
	ret = vm_stop_locked(vm, e);
	was_running = vm_status(vm) == VM_RUNNING;
	if (was_running && ret < 0)
		vm_start_locked(vm);
	if (was_running && ret == 0)
		vm_set_status(vm, VM_PAUSED);
	pthread_mutex_unlock(&vm->verbs);
	if (ret < 0)
		return err_prefix(e, "pausing the guest");
	if (was_running)
		vm_emit(vm, VM_EVENT_PAUSED, 0, NULL);
	return 0;
}

static int check_may_run(struct vm *vm, struct err *e)
{
	switch (vm_status(vm)) {
	case VM_PRELAUNCH:
	case VM_INMIGRATE:
	case VM_RUNNING:
	case VM_PAUSED:
		return 0;
	case VM_FINISH_MIGRATE:
		return err_set(e, ERR_STATE, EBUSY,
			       "the guest is being handed over to another host: cancel the "
			       "migration first");
	case VM_POSTMIGRATE:
		return err_set(e, ERR_STATE, EBUSY,
			       "the guest was migrated away and runs elsewhere; running it here "
			       "too would corrupt it");
	case VM_SHUTDOWN:
		return err_set(e, ERR_STATE, ESHUTDOWN,
			       "the guest has shut down: reset it (system_reset) to run again");
	case VM_INTERNAL_ERROR:
		return err_set(e, ERR_STATE, EIO,
			       "KVM could not run the guest any further: reset it (system_reset)");
	}
	return err_set(e, ERR_STATE, EINVAL, "the machine is in an unknown state");
}

int vm_resume(struct vm *vm, struct err *e)
{
	int ret;

	pthread_mutex_lock(&vm->verbs);
	ret = check_may_run(vm, e);
	if (ret == 0)
		ret = mem_slots_await(vm->slots, e);
	if (ret == 0 && vm_status(vm) != VM_RUNNING)
		start(vm, true);
	pthread_mutex_unlock(&vm->verbs);
	return ret;
}
