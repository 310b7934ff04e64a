/*
 * The destination engine: a table of steps, walked in order. Read the table first. Nothing is
 * undone step by step here: until COMMIT the whole machine is thrown away, after COMMIT it is the
 * guest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/destination_internal.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/base/priority.h"
#include "vmm/boot/image.h"

struct destination_step {
	const char *fault_name;
	enum migration_phase phase;
	enum migration_status status;
	int (*run)(struct migration_destination *d, struct err *e);
};

static const struct destination_step steps[] = {
	{"dst.accept", PHASE_NEGOTIATE, MIGRATION_NONE, destination_accept},
	{"dst.negotiate", PHASE_NEGOTIATE, MIGRATION_SETUP, destination_negotiate},
	{"dst.describe", PHASE_DESCRIBE, MIGRATION_SETUP, destination_describe},
	{"dst.image", PHASE_DESCRIBE, MIGRATION_SETUP, destination_image},
	{"dst.channels", PHASE_DESCRIBE, MIGRATION_SETUP, destination_channels},
	{"dst.receive", PHASE_PRECOPY, MIGRATION_ACTIVE, destination_receive},
	{"dst.load", PHASE_STATE, MIGRATION_DEVICE, destination_load},
	{"dst.verify", PHASE_VERIFY, MIGRATION_DEVICE, destination_verify},
	{"dst.ready", PHASE_READY, MIGRATION_DEVICE, destination_ready},
	{NULL, PHASE_COMMIT, MIGRATION_DEVICE, destination_run},
};

#define NR_STEPS (sizeof(steps) / sizeof(steps[0]))

static void set_status(struct migration_destination *d, enum migration_status status)
{
	bool changed;

	pthread_mutex_lock(&d->lock);
	changed = d->report.status != status;
	d->report.status = status;
	pthread_mutex_unlock(&d->lock);
	if (changed && d->config.events.on_status)
		d->config.events.on_status(d->config.events.ctx, status);
}

static int run_step(struct migration_destination *d, const struct destination_step *step,
		    struct err *e)
{
	uint64_t start_ns = clock_now_ns();
	int ret;

	pthread_mutex_lock(&d->lock);
	d->report.phase = step->phase;
	pthread_mutex_unlock(&d->lock);
	set_status(d, step->status);
	/* No fault point and no cancellation between COMMIT and running: it must not be lost here.
	 */
	if (step->fault_name && (fault_point(d->config.fault, step->fault_name, e) < 0 ||
				 cancel_check(d->cancel, e) < 0))
		return -e->code;
	ret = step->run(d, e);
	pthread_mutex_lock(&d->lock);
	if (step->status != MIGRATION_NONE) /* waiting for somebody to come is no part of it */
		d->report.phase_ns[step->phase] += clock_now_ns() - start_ns;
	pthread_mutex_unlock(&d->lock);
	return ret;
}

static int walk(struct migration_destination *d, struct err *e)
{
	for (size_t i = 0; i < NR_STEPS; i++)
		if (run_step(d, &steps[i], e) < 0)
			return -e->code;
	return 0;
}

static void free_receivers(struct migration_destination *d)
{
	struct receiver *receivers[MIGRATION_MAX_CHANNELS];

	pthread_mutex_lock(&d->lock);
	for (uint32_t i = 0; i < MIGRATION_MAX_CHANNELS; i++) {
		receivers[i] = d->receivers[i];
		d->receivers[i] = NULL;
		if (receivers[i])
			d->report.wire_bytes += receiver_received_bytes(receivers[i]);
	}
	d->nr_receivers = 0;
	pthread_mutex_unlock(&d->lock);
	for (uint32_t i = 0; i < MIGRATION_MAX_CHANNELS; i++)
		receiver_free(receivers[i]);
	destination_stop_disks(d);
}

/* A wait that ended as "cancelled" because a receiver failed is that receiver's failure; the other
 * receivers' own "cancelled" says nothing. */
static void blame_receiver(struct migration_destination *d)
{
	for (uint32_t i = 0; i <= MIGRATION_MAX_CHANNELS; i++) {
		struct err one = ERR_INIT;

		if (i == MIGRATION_MAX_CHANNELS && d->disk_receiver)
			disk_receiver_failure(d->disk_receiver, &one);
		else if (i < MIGRATION_MAX_CHANNELS && d->receivers[i])
			receiver_failure(d->receivers[i], &one);
		if (one.kind == ERR_NONE || one.kind == ERR_CANCELLED)
			continue;
		d->failure = one;
		return;
	}
}

static void explain(struct migration_destination *d)
{
	if (atomic_load(&d->cancelled_by_user)) {
		err_set(&d->failure, ERR_CANCELLED, ECANCELED, "cancelled by the user");
		return;
	}
	if (d->failure.kind == ERR_CANCELLED && d->failure.code != ECONNABORTED)
		blame_receiver(d);
	if (d->failure.kind == ERR_PEER && d->failure.code != ECONNABORTED) {
		link_forget_cancel(d->control);
		record_hear_last_words(&d->records, &d->failure);
	}
}

static void fail(struct migration_destination *d)
{
	struct err *e = &d->failure;

	if (d->control) {
		explain(d);
		link_forget_cancel(d->control);
		/* ABORT promises that the guest does not run here: never after COMMIT. */
		if (!d->committed && e->code != ECONNABORTED)
			record_send_abort(&d->records, e);
	}
	free_receivers(d);
	if (!d->committed) {
		vm_free(d->vm);
		d->vm = NULL;
	}
	err_prefix(e, "receiving a guest at %s failed in phase %s",
		   link_listener_address(d->listener), migration_phase_name(d->report.phase));
}

static void conclude(struct migration_destination *d, enum migration_status status)
{
	pthread_mutex_lock(&d->lock);
	d->report.error = d->failure;
	d->report.verified = status == MIGRATION_COMPLETED && d->verify;
	if (d->report.started_ns)
		d->report.total_ns = clock_now_ns() - d->report.started_ns;
	pthread_mutex_unlock(&d->lock);
	set_status(d, status);
}

static void *destination_main(void *arg)
{
	struct migration_destination *d = arg;

	if (walk(d, &d->failure) == 0) {
		conclude(d, MIGRATION_COMPLETED);
		destination_report_blackout(d);
		thread_step_back();
		destination_settle_disks(d, NS_PER_S);
		free_receivers(d);
	} else {
		fail(d);
		conclude(d,
			 d->failure.kind == ERR_CANCELLED ? MIGRATION_CANCELLED : MIGRATION_FAILED);
	}
	link_free(d->control);
	d->control = NULL;
	pthread_mutex_lock(&d->lock);
	d->report.ended = true;
	pthread_mutex_unlock(&d->lock);
	if (d->config.events.on_end)
		d->config.events.on_end(d->config.events.ctx);
	return NULL;
}

static void release(struct migration_destination *d)
{
	buf_fini(&d->record.body);
	boot_image_free(d->image);
	rdma_listener_free(d->rdma);
	bitmap_fini(&d->written);
	cancel_free(d->cancel);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

int migration_destination_start(struct link_listener *listener,
				const struct migration_destination_config *config,
				struct migration_destination **out, struct err *e)
{
	struct migration_destination *d = calloc(1, sizeof(*d));
	int ret;

	if (!d)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a migration");
	d->listener = listener;
	d->config = *config;
	pthread_mutex_init(&d->lock, NULL);
	strncpy(d->report.uri, link_listener_address(listener), sizeof(d->report.uri) - 1);
	ret = cancel_new(&d->cancel, e);
	if (ret == 0)
		ret = destination_listen_rdma(d, e);
	if (ret == 0) {
		ret = pthread_create(&d->thread, NULL, destination_main, d);
		if (ret)
			ret = err_set(e, ERR_SYS, ret, "cannot create the migration thread");
	}
	if (ret < 0) {
		release(d);
		return ret;
	}
	*out = d;
	return 0;
}

void migration_destination_cancel(struct migration_destination *d)
{
	atomic_store(&d->cancelled_by_user, true);
	cancel_request(d->cancel);
}

void migration_destination_query(const struct migration_destination *destination,
				 struct migration_report *out)
{
	struct migration_destination *d =
		(struct migration_destination *)(uintptr_t)destination; /* for its lock */

	pthread_mutex_lock(&d->lock);
	*out = d->report;
	for (uint32_t i = 0; i < MIGRATION_MAX_CHANNELS; i++)
		if (d->receivers[i])
			out->wire_bytes += receiver_received_bytes(d->receivers[i]);
	if (d->disk_receiver)
		out->wire_bytes += disk_receiver_received_bytes(d->disk_receiver);
	if (out->started_ns && !out->total_ns)
		out->total_ns = clock_now_ns() - out->started_ns;
	pthread_mutex_unlock(&d->lock);
}

void migration_destination_wait(struct migration_destination *d, struct migration_report *out,
				struct vm **vm)
{
	if (d->thread) {
		pthread_join(d->thread, NULL);
		d->thread = 0;
	}
	if (out)
		migration_destination_query(d, out);
	if (vm) {
		*vm = d->vm;
		d->vm = NULL;
	}
}

void migration_destination_free(struct migration_destination *d)
{
	struct vm *unclaimed = NULL;

	if (!d)
		return;
	migration_destination_wait(d, NULL, &unclaimed);
	vm_free(unclaimed);
	release(d);
}
