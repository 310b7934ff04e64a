/* The rounds: everything once, then what was written meanwhile, until the policy says "now". */
#include <errno.h>

#include "migration/source_internal.h"
#include "proto/stream.pb-c.h"
#include "vmm/base/clock.h"

static int announce_round(struct migration_source *s, bool last, struct err *e)
{
	Godwit__Round r = GODWIT__ROUND__INIT;

	r.has_number = r.has_pages = r.has_last = 1;
	r.number = s->round.number;
	r.pages = s->round.nr_pages;
	r.last = last;
	if (disk_set_has_copies(&s->disks)) {
		r.has_disk_pass = 1;
		r.disk_pass = disk_sender_pass(s->disk_sender) + 1; /* begins right after this */
	}
	if (s->events.on_round)
		s->events.on_round(s->events.ctx, s->round.number, last);
	return record_send(&s->records, RECORD_ROUND, &r.base, e);
}

/* The first real failure wins over the cancellations it caused. */
static void blame(const struct err *one, struct err *e)
{
	if (e->kind == ERR_NONE || (e->kind == ERR_CANCELLED && one->kind != ERR_CANCELLED))
		*e = *one;
}

/* Wait for every sender, and for the disks. */
static int finish_senders(struct migration_source *s, struct send_stats *stats,
			  uint64_t *disk_bytes, struct err *e)
{
	struct err first = ERR_INIT;
	struct err one = ERR_INIT;

	for (uint32_t i = 0; i < s->nr_senders; i++)
		if (sender_finish(s->senders[i], stats, &one) < 0)
			blame(&one, &first);
	if (source_finish_disk_pass(s, disk_bytes, &one) < 0)
		blame(&one, &first);
	if (first.kind == ERR_NONE)
		return 0;
	*e = first;
	return -e->code;
}

static struct round_report *report_slot(struct migration_source *s)
{
	struct migration_report *r = &s->report;

	if (r->nr_rounds < REPORT_MAX_ROUNDS)
		r->nr_rounds++;
	return &r->rounds[r->nr_rounds - 1];
}

static void record_round(struct migration_source *s, const struct send_stats *stats,
			 uint64_t duration_ns, uint64_t skipped_pages)
{
	struct round_report *r;

	pthread_mutex_lock(&s->lock);
	r = report_slot(s);
	r->number = s->round.number;
	r->duration_ns += duration_ns;
	r->dirty_pages += s->round.nr_pages;
	r->skipped_pages += stats->skipped_pages + skipped_pages;
	r->zero_pages += stats->zero_pages;
	r->raw_pages += stats->raw_pages;
	r->compressed_pages += stats->compressed_pages;
	r->wire_bytes += stats->wire_bytes;
	s->report.wire_bytes += stats->wire_bytes;
	s->report.nr_fallbacks += stats->nr_fallbacks;
	s->report.bytes_per_s =
		(uint64_t)((double)stats->wire_bytes * 1e9 / (double)(duration_ns + 1));
	s->report.remaining_bytes = 0;
	s->round_started_ns = 0;
	pthread_mutex_unlock(&s->lock);
}

/* To the policy a page is a page, of memory or of a disk. */
static void remember(struct migration_source *s, const struct send_stats *stats,
		     uint64_t disk_bytes, uint64_t duration_ns)
{
	/* The policy looks back a few rounds only; forget the oldest half when full. */
	if (s->nr_history == REPORT_MAX_ROUNDS) {
		s->nr_history /= 2;
		for (uint32_t i = 0; i < s->nr_history; i++)
			s->history[i] = s->history[i + s->nr_history];
	}
	s->history[s->nr_history++] = (struct policy_round){
		.duration_ns = duration_ns,
		.throttle_percent = throttle_percent(s->throttle),
		.sent_pages = stats->zero_pages + stats->raw_pages + stats->compressed_pages +
			      disk_bytes / PAGE_BYTES};
}

int source_send_round(struct migration_source *s, bool last, uint64_t skipped_pages, struct err *e)
{
	struct send_stats stats = {0};
	uint64_t start_ns = clock_now_ns();
	uint64_t disk_bytes;
	int ret;

	s->round.number++;
	ret = announce_round(s, last, e);
	if (ret < 0)
		return ret;
	for (uint32_t i = 0; i < s->nr_senders; i++)
		sender_begin(s->senders[i], &s->round);
	source_begin_disk_pass(s, last);
	/* Now: before they began, their progress was the last round's. */
	pthread_mutex_lock(&s->lock);
	s->round_started_ns = start_ns;
	pthread_mutex_unlock(&s->lock);
	ret = finish_senders(s, &stats, &disk_bytes, e);
	record_round(s, &stats, clock_now_ns() - start_ns, skipped_pages);
	remember(s, &stats, disk_bytes, clock_now_ns() - start_ns);
	return ret;
}

static uint64_t pending_pages(const struct migration_source *s)
{
	return s->round.nr_pages + s->disk_pending_bytes / PAGE_BYTES;
}

/* What is written while nothing is being sent, per second, is the dirty rate; collecting closes the
 * interval that began with the last collect. */
static int collect(struct migration_source *s, uint64_t *since_ns, struct err *e)
{
	struct policy_round *last = &s->history[s->nr_history - 1];
	uint64_t now;

	if (round_prepare_next(&s->round, s->tracker, false, e) < 0)
		return -e->code;
	s->disk_pending_bytes = source_collect_disks(s);
	now = clock_now_ns();
	last->dirty_pages_per_s =
		(uint64_t)((double)pending_pages(s) * 1e9 / (double)(now - *since_ns + 1));
	*since_ns = now;
	return 0;
}

static struct policy_decision decide(struct migration_source *s)
{
	/* Beside memory and disks: making the disks durable, pausing, capturing and loading state,
	 * and three trips (state, commit, running) of which HELLO measured one. */
	struct policy_params params = {.downtime_limit_ns = s->params.downtime_limit_ns,
				       .max_rounds = s->params.max_rounds,
				       .switchover_ns =
					       1500000 + 3 * s->rtt_ns + s->disk_settle_ns};
	struct policy_decision d;
	uint64_t rate = s->history[s->nr_history - 1].dirty_pages_per_s;

	if (s->params.auto_converge) {
		params.throttle_initial = s->params.throttle_initial;
		params.throttle_increment = s->params.throttle_increment;
		params.throttle_max = s->params.throttle_max;
	}
	d = s->policy->decide(&params, s->history, s->nr_history, pending_pages(s));
	pthread_mutex_lock(&s->lock);
	s->report.predicted_downtime_ns = d.predicted_downtime_ns;
	s->report.dirty_pages_per_s = rate;
	s->report.remaining_bytes = pending_pages(s) * PAGE_BYTES;
	s->report.rounds[s->report.nr_rounds - 1].dirty_pages_per_s = rate;
	s->report.rounds[s->report.nr_rounds - 1].predicted_downtime_ns = d.predicted_downtime_ns;
	pthread_mutex_unlock(&s->lock);
	return d;
}

static int hold_back(struct migration_source *s, uint32_t percent, struct err *e)
{
	if (throttle_set(&s->throttle, s->vm, percent, e) < 0)
		return -e->code;
	if (!s->throttled_at_ns)
		s->throttled_at_ns = clock_now_ns();
	pthread_mutex_lock(&s->lock);
	s->report.throttle_percent = percent;
	s->report.throttle_max_percent = percent;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

void source_lift_throttle(struct migration_source *s)
{
	if (!s->throttle)
		return;
	throttle_free(s->throttle);
	s->throttle = NULL;
	pthread_mutex_lock(&s->lock);
	s->report.throttle_percent = 0;
	s->report.throttled_ns = clock_now_ns() - s->throttled_at_ns;
	pthread_mutex_unlock(&s->lock);
}

int source_precopy(struct migration_source *s, struct err *e)
{
	uint64_t since_ns = clock_now_ns();
	uint64_t skipped_pages;

	pthread_mutex_lock(&s->lock);
	s->report.remaining_bytes = s->report.ram_bytes;
	pthread_mutex_unlock(&s->lock);
	if (round_prepare_first(&s->round, vm_mem(s->vm), s->tracker, &skipped_pages, e) < 0)
		return -e->code;
	for (;;) {
		struct policy_decision d;

		turn_mark(&s->turn, s->vm);
		if (cancel_check(s->cancel, e) < 0 || fault_point(s->fault, "src.round", e) < 0 ||
		    source_send_round(s, false, skipped_pages, e) < 0 ||
		    collect(s, &since_ns, e) < 0)
			return -e->code;
		skipped_pages = 0;
		d = decide(s);
		if (d.verdict == POLICY_SWITCH_OVER) {
			if (vm_status(s->vm) == VM_RUNNING)
				turn_await(&s->turn, s->vm);
			return 0; /* what was collected goes into the final round */
		}
		if (d.verdict == POLICY_THROTTLE && hold_back(s, d.throttle_percent, e) < 0)
			return -e->code;
		if (d.verdict == POLICY_GIVE_UP)
			return err_set(
				e, ERR_STATE, EBUSY,
				"%s (%u): the guest dirties %llu pages/s; raise the downtime "
				"limit or the bandwidth, or use auto-converge",
				d.why, s->params.max_rounds,
				(unsigned long long)s->report.dirty_pages_per_s);
	}
}
