/*
 * The source engine: a table of steps, walked in order, undone in reverse. Read the table first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/source_internal.h"
#include "proto/stream.pb-c.h"
#include "vmm/base/clock.h"
#include "vmm/base/priority.h"

struct source_step {
	enum migration_phase phase;
	const char *fault_name;
	enum migration_status status;
	int (*run)(struct migration_source *s, struct err *e);
	/* Put back what run did, also when it failed half way or never ran. */
	void (*undo)(struct migration_source *s);
};

static const struct source_step steps[] = {
	{PHASE_NEGOTIATE, "src.negotiate", MIGRATION_SETUP, source_negotiate,
	 source_undo_negotiate},
	{PHASE_DESCRIBE, "src.describe", MIGRATION_SETUP, source_describe, source_undo_describe},
	{PHASE_TRACK, "src.track", MIGRATION_SETUP, source_track, source_undo_track},
	{PHASE_DISKS, "src.disks", MIGRATION_ACTIVE, source_disks, NULL},
	{PHASE_PRECOPY, "src.precopy", MIGRATION_ACTIVE, source_precopy, NULL},
	{PHASE_PAUSE, "src.pause", MIGRATION_DEVICE, source_pause, source_undo_pause},
	{PHASE_CAPTURE, "src.capture", MIGRATION_DEVICE, source_capture, source_undo_capture},
	{PHASE_FINAL_RAM, "src.final_ram", MIGRATION_DEVICE, source_final_ram, NULL},
	{PHASE_OFFER, "src.offer", MIGRATION_DEVICE, source_offer_disks, source_undo_offer_disks},
	{PHASE_STATE, "src.state", MIGRATION_DEVICE, source_state, NULL},
	{PHASE_VERIFY, "src.verify", MIGRATION_DEVICE, source_verify, NULL},
	{PHASE_READY, "src.ready", MIGRATION_DEVICE, source_ready, NULL},
	{PHASE_COMMIT, "src.commit", MIGRATION_DEVICE, source_commit, NULL},
};

#define NR_STEPS (sizeof(steps) / sizeof(steps[0]))

void source_set_status(struct migration_source *s, enum migration_status status)
{
	bool changed;

	pthread_mutex_lock(&s->lock);
	changed = s->report.status != status;
	s->report.status = status;
	pthread_mutex_unlock(&s->lock);
	if (changed && s->events.on_status)
		s->events.on_status(s->events.ctx, status);
}

static int run_step(struct migration_source *s, const struct source_step *step, struct err *e)
{
	uint64_t start_ns = clock_now_ns();
	int ret;

	pthread_mutex_lock(&s->lock);
	s->report.phase = step->phase;
	pthread_mutex_unlock(&s->lock);
	source_set_status(s, step->status);
	ret = fault_point(s->fault, step->fault_name, e);
	if (ret == 0)
		ret = cancel_check(s->cancel, e);
	if (ret == 0)
		ret = step->run(s, e);
	pthread_mutex_lock(&s->lock);
	s->report.phase_ns[step->phase] = clock_now_ns() - start_ns;
	if (step->status == MIGRATION_SETUP)
		s->report.setup_ns += s->report.phase_ns[step->phase];
	pthread_mutex_unlock(&s->lock);
	return ret;
}

static int walk(struct migration_source *s, struct err *e)
{
	for (size_t i = 0; i < NR_STEPS; i++)
		if (run_step(s, &steps[i], e) < 0)
			return -e->code;
	return 0;
}

/*
 * Undo in reverse, so the waiting guest comes first; undoing what never ran does nothing. After
 * COMMIT (or when all went well) only what holds resources is undone: nothing resumes the guest.
 */
static void undo(struct migration_source *s)
{
	for (size_t i = NR_STEPS; i-- > 0;)
		if (steps[i].undo && (!s->committed || steps[i].status == MIGRATION_SETUP))
			steps[i].undo(s);
	source_undo_capture(s);
}

static enum migration_status outcome_of(const struct migration_source *s, const struct err *e)
{
	if (s->committed)
		return MIGRATION_UNKNOWN;
	return e->kind == ERR_CANCELLED ? MIGRATION_CANCELLED : MIGRATION_FAILED;
}

static void conclude(struct migration_source *s, enum migration_status status)
{
	pthread_mutex_lock(&s->lock);
	s->report.error = s->failure;
	s->report.total_ns = clock_now_ns() - s->report.started_ns;
	pthread_mutex_unlock(&s->lock);
	source_set_status(s, status);
}

static const char *where_the_guest_is(struct migration_source *s)
{
	if (s->committed)
		return "outcome unknown; this side stays paused, see whether the destination runs "
		       "it";
	return "the guest goes on at the source";
}

#define BLACKOUT_NS (10 * NS_PER_S) /* a destination may have little time for it, or stall */

/* What the guest felt arrives a moment after it runs again; the migration is over already. */
static void await_blackout(struct migration_source *s)
{
	struct record r = {.body = BUF_INIT};
	struct err ignored = ERR_INIT;
	ProtobufCMessage *m = NULL;

	link_set_stall_timeout(s->control, BLACKOUT_NS);
	if (record_expect(&s->records, RECORD_BLACKOUT, &r, &ignored) == 0)
		m = record_unpack(&r, &godwit__blackout__descriptor, &ignored);
	if (m) {
		pthread_mutex_lock(&s->lock);
		blackout_take((const Godwit__Blackout *)m, &s->report.blackout);
		pthread_mutex_unlock(&s->lock);
		protobuf_c_message_free_unpacked(m, NULL);
	}
	buf_fini(&r.body);
}

static void succeed(struct migration_source *s)
{
	vm_set_status(s->vm, VM_POSTMIGRATE);
	source_release_disks(s);
	conclude(s, MIGRATION_COMPLETED);
	await_blackout(s);
	thread_step_back(); /* the guest may be on this host still */
	undo(s);
}

static void fail(struct migration_source *s)
{
	struct err *e = &s->failure;
	enum migration_status status;

	if (atomic_load(&s->cancelled_by_user) && !s->committed)
		err_set(e, ERR_CANCELLED, ECANCELED, "cancelled by the user");
	undo(s);
	status = outcome_of(s, e);
	err_prefix(e, "migrating to %s %s in phase %s (%s)", s->uri.text,
		   status == MIGRATION_CANCELLED ? "ended" : "failed",
		   migration_phase_name(s->report.phase), where_the_guest_is(s));
	if (status == MIGRATION_UNKNOWN)
		vm_set_status(s->vm, VM_POSTMIGRATE);
	conclude(s, status);
}

static void *source_main(void *arg)
{
	struct migration_source *s = arg;

	if (walk(s, &s->failure) == 0)
		succeed(s);
	else
		fail(s);
	pthread_mutex_lock(&s->lock);
	s->report.ended = true;
	pthread_mutex_unlock(&s->lock);
	if (s->events.on_end)
		s->events.on_end(s->events.ctx);
	return NULL;
}

static void init_report(struct migration_source *s)
{
	struct migration_report *r = &s->report;

	r->started_ns = clock_now_ns();
	r->ram_bytes = guest_mem_bytes(vm_mem(s->vm));
	r->nr_channels = s->params.nr_channels;
	r->downtime_limit_ns = s->params.downtime_limit_ns;
	memcpy(r->uri, s->uri.text, sizeof(r->uri));
	memcpy(r->tracker, s->params.tracker, sizeof(r->tracker));
	memcpy(r->codec, s->params.codec, sizeof(r->codec));
	memcpy(r->policy, s->params.policy, sizeof(r->policy));
}

static int init(struct migration_source *s, struct err *e)
{
	s->policy = policy_by_name(s->params.policy, e);
	if (!s->policy || cancel_new(&s->cancel, e) < 0 ||
	    rate_limit_new(s->params.max_bytes_per_s, s->cancel, &s->limit, e) < 0 ||
	    round_init(&s->round, vm_mem(s->vm), e) < 0)
		return -e->code;
	init_report(s);
	return 0;
}

static void release(struct migration_source *s)
{
	round_fini(&s->round);
	rate_limit_free(s->limit);
	cancel_free(s->cancel);
	buf_fini(&s->state);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static int check_vm(struct vm *vm, struct err *e)
{
	enum vm_status status = vm_status(vm);

	if (status == VM_RUNNING || status == VM_PAUSED || status == VM_PRELAUNCH)
		return 0;
	return err_set(e, ERR_STATE, EINVAL, "a machine that is '%s' cannot be migrated",
		       vm_status_name(status));
}

int migration_source_start(struct vm *vm, const struct uri *uri,
			   const struct migration_params *params,
			   const struct migration_events *events, struct fault *fault,
			   struct migration_source **out, struct err *e)
{
	struct migration_source *s;
	int ret;

	if (migration_params_check(params, e) < 0 || check_vm(vm, e) < 0)
		return -e->code;
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a migration");
	s->vm = vm;
	s->uri = *uri;
	s->params = *params;
	s->events = *events;
	s->fault = fault;
	pthread_mutex_init(&s->lock, NULL);
	ret = init(s, e);
	if (ret == 0) {
		ret = pthread_create(&s->thread, NULL, source_main, s);
		if (ret)
			ret = err_set(e, ERR_SYS, ret, "cannot create the migration thread");
	}
	if (ret < 0) {
		release(s);
		return ret;
	}
	*out = s;
	return 0;
}

void migration_source_cancel(struct migration_source *s)
{
	atomic_store(&s->cancelled_by_user, true);
	cancel_request(s->cancel);
}

/* What the present round has done so far. Under the lock, while there is one. */
static void add_round(struct migration_source *s, uint64_t now, struct migration_report *out)
{
	uint64_t seen = atomic_load(&s->round.seen_pages);
	struct send_stats sent = {0};

	for (uint32_t i = 0; i < s->nr_senders; i++)
		sender_add_progress(s->senders[i], &sent);
	out->round_zero_pages = sent.zero_pages;
	out->round_data_pages = sent.raw_pages + sent.compressed_pages;
	out->remaining_bytes =
		s->round.nr_pages > seen ? (s->round.nr_pages - seen) * PAGE_BYTES : 0;
	if (s->disk_sender) {
		sent.wire_bytes +=
			disk_sender_wire_bytes(s->disk_sender) - s->report.disks.wire_bytes;
		out->remaining_bytes += disk_sender_remaining_bytes(s->disk_sender);
	}
	out->wire_bytes += sent.wire_bytes;
	out->bytes_per_s =
		(uint64_t)((double)sent.wire_bytes * 1e9 / (double)(now - s->round_started_ns + 1));
}

void migration_source_query(const struct migration_source *source, struct migration_report *out)
{
	struct migration_source *s =
		(struct migration_source *)(uintptr_t)source; /* for its lock */
	uint64_t now;

	pthread_mutex_lock(&s->lock);
	now = clock_now_ns(); /* not before: a round that begins meanwhile would begin after it */
	*out = s->report;
	if (out->status == MIGRATION_SETUP || out->status == MIGRATION_ACTIVE ||
	    out->status == MIGRATION_DEVICE)
		out->total_ns = now - out->started_ns;
	if (s->round_started_ns)
		add_round(s, now, out);
	pthread_mutex_unlock(&s->lock);
}

void migration_source_wait(struct migration_source *s, struct migration_report *out)
{
	if (s->thread) {
		pthread_join(s->thread, NULL);
		s->thread = 0;
	}
	if (out)
		migration_source_query(s, out);
}

void migration_source_free(struct migration_source *s)
{
	if (!s)
		return;
	migration_source_wait(s, NULL);
	release(s);
}
