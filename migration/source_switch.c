/*
 * The switch-over, while the guest waits: pause, capture, last pages, state, ready, commit.
 */
#include <errno.h>

#include "migration/digest.h"
#include "migration/source_internal.h"
#include "proto/stream.pb-c.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"

int source_pause(struct migration_source *s, struct err *e)
{
	struct blackout_view view;

	s->paused_at_ns = clock_now_ns();
	s->was_running = vm_status(s->vm) == VM_RUNNING;
	s->paused = true;
	if (vm_pause(s->vm, e) < 0)
		return -e->code;
	source_lift_throttle(s); /* not before: it would write at full speed until it is paused */
	if (vm_status(s->vm) == VM_SHUTDOWN || vm_status(s->vm) == VM_INTERNAL_ERROR)
		return err_set(e, ERR_STATE, ESHUTDOWN,
			       "the guest powered off or failed during the migration");
	vm_set_status(s->vm, VM_FINISH_MIGRATE);
	blackout_view(s->vm, &view);
	pthread_mutex_lock(&s->lock);
	s->report.blackout.precopy_max_ns = blackout_largest_since_ns(&view, &s->began);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

void source_undo_pause(struct migration_source *s)
{
	struct err e = ERR_INIT;

	if (!s->paused)
		return;
	s->paused = false;
	if (vm_status(s->vm) == VM_FINISH_MIGRATE)
		vm_set_status(s->vm, VM_PAUSED);
	/* The destination may have drawn its frames away. */
	vm_announce(s->vm, &s->params.announce);
	if (s->was_running && vm_status(s->vm) == VM_PAUSED && vm_resume(s->vm, &e) < 0)
		log_error("the guest cannot be resumed here: %s", e.msg);
}

int source_capture(struct migration_source *s, struct err *e)
{
	buf_reset(&s->state);
	return vm_save_state(s->vm, &s->state, e);
}

void source_undo_capture(struct migration_source *s)
{
	buf_fini(&s->state);
}

/* After capture, because capturing may touch guest memory (steal time, pv features). */
int source_final_ram(struct migration_source *s, struct err *e)
{
	rate_limit_set(s->limit, 0); /* the guest waits */
	s->round.claim = false;
	if (round_prepare_next(&s->round, s->tracker, true, e) < 0)
		return -e->code;
	source_collect_disks(s);
	return source_send_round(s, true, 0, e);
}

int source_state(struct migration_source *s, struct err *e)
{
	return record_send_bytes(&s->records, RECORD_STATE, s->state.data, s->state.len, e);
}

int source_verify(struct migration_source *s, struct err *e)
{
	struct digest d;
	Godwit__Digest m = GODWIT__DIGEST__INIT;

	if (!s->params.verify)
		return 0;
	if (digest_make(s->vm, s->state.data, s->state.len, &d, e) < 0)
		return -e->code;
	m.has_ram_low = m.has_ram_high = m.has_state_low = m.has_state_high = 1;
	m.ram_low = d.ram_low;
	m.ram_high = d.ram_high;
	m.state_low = d.state_low;
	m.state_high = d.state_high;
	m.has_disk_low = m.has_disk_high = d.nr_disks != 0;
	m.disk_low = d.disk_low;
	m.disk_high = d.disk_high;
	return record_send(&s->records, RECORD_DIGEST, &m.base, e);
}

int source_ready(struct migration_source *s, struct err *e)
{
	struct record r = {.body = BUF_INIT};
	/* Comparing digests takes the destination as long as it takes; its death is still noticed.
	 */
	int ret;

	if (s->params.verify)
		link_set_stall_timeout(s->control, 0);
	ret = record_expect(&s->records, RECORD_READY, &r, e);
	link_set_stall_timeout(s->control, s->params.stall_timeout_ns);
	buf_fini(&r.body);
	return ret;
}

int source_commit(struct migration_source *s, struct err *e)
{
	struct record r = {.body = BUF_INIT};
	Godwit__Commit commit = GODWIT__COMMIT__INIT;
	uint64_t sent_before;
	int ret;

	commit.has_run = 1;
	commit.run = s->was_running;
	/* The point of no return: from here on cancellation is too late. */
	link_forget_cancel(s->control);
	sent_before = link_sent_bytes(s->control);
	s->committed = true;
	ret = record_send(&s->records, RECORD_COMMIT, &commit.base, e);
	if (ret < 0 && link_sent_bytes(s->control) == sent_before)
		s->committed =
			false; /* the kernel took no byte of it: the destination cannot run */
	if (ret == 0)
		ret = fault_point(s->fault, "src.committed", e);
	if (ret == 0)
		ret = record_expect(&s->records, RECORD_RUNNING, &r, e);
	/* A destination says ABORT only before it has received COMMIT, and never runs after it:
	 * this is not a lost answer but the answer "no". Nothing else clears the flag. */
	if (ret < 0 && r.type == RECORD_ABORT && e->code == ECONNABORTED)
		s->committed = false;
	buf_fini(&r.body);
	pthread_mutex_lock(&s->lock);
	s->report.downtime_ns = clock_now_ns() - s->paused_at_ns;
	s->report.verified = ret == 0 && s->params.verify;
	pthread_mutex_unlock(&s->lock);
	return ret;
}
