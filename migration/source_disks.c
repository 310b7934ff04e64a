/* The guest's disks at the source: copied in passes, or handed over (proto/STREAM.md, section 8).
 */
#include <errno.h>

#include "migration/source_internal.h"
#include "vmm/base/clock.h"
#include "vmm/block/disk.h"

/* The bulk of the disks goes before memory's first round, pass after pass as long as another one
 * leaves less than half of what it found; a rest of this size may go along with the rounds. */
#define REST_BYTES (8ull << 20)

int source_look_at_disks(struct migration_source *s, struct err *e)
{
	if (disk_set_init(&s->disks, s->vm, s->params.copy_disks, e) < 0)
		return -e->code;
	/* If the guest came from a side that had not let go at the time: a destination knows a
	 * shared image by its gate being held. If that side still holds it, offering says so. */
	for (uint32_t i = 0; i < s->disks.nr; i++)
		(void)disk_settle(s->disks.at[i].disk);
	return 0;
}

int source_open_disks(struct migration_source *s, struct err *e)
{
	struct disk_sender_config config = {.set = &s->disks,
					    .stall_timeout_ns = s->params.stall_timeout_ns,
					    .limit = s->limit,
					    .abort = s->cancel,
					    .fault = s->fault};
	struct disk_sender *sender;

	if (!s->disks.nr)
		return 0;
	if (disk_set_has_copies(&s->disks) &&
	    (fault_point(s->fault, "src.disk_channel", e) < 0 ||
	     source_connect_channel(s, s->params.nr_channels, true, &config.link, e) < 0))
		return err_prefix(e, "the disks' channel");
	if (disk_sender_new(&config, &sender, e) < 0)
		return -e->code;
	pthread_mutex_lock(&s->lock);
	s->disk_sender = sender;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

void source_close_disks(struct migration_source *s)
{
	struct disk_sender *sender;

	pthread_mutex_lock(&s->lock);
	sender = s->disk_sender;
	s->disk_sender = NULL;
	pthread_mutex_unlock(&s->lock);
	disk_sender_free(sender);
}

/* ---- Passes ---- */

uint64_t source_collect_disks(struct migration_source *s)
{
	return s->disk_sender ? disk_sender_collect(s->disk_sender) : 0;
}

void source_begin_disk_pass(struct migration_source *s, bool last)
{
	if (s->disk_sender)
		disk_sender_begin(s->disk_sender, last);
}

int source_finish_disk_pass(struct migration_source *s, uint64_t *sent_bytes, struct err *e)
{
	struct disk_stats stats = {.data_bytes = 0};
	struct disk_report *r = &s->report.disks;
	int ret;

	*sent_bytes = 0;
	if (!s->disk_sender)
		return 0;
	ret = disk_sender_finish(s->disk_sender, &stats, e);
	s->disk_settle_ns = stats.settle_ns;
	*sent_bytes = stats.data_bytes;
	pthread_mutex_lock(&s->lock);
	r->nr_passes++;
	r->data_bytes += stats.data_bytes;
	r->zero_bytes += stats.zero_bytes;
	r->wire_bytes += stats.wire_bytes;
	s->report.wire_bytes += stats.wire_bytes;
	pthread_mutex_unlock(&s->lock);
	return ret;
}

static int bulk_pass(struct migration_source *s, struct err *e)
{
	uint64_t sent_bytes;
	int ret = cancel_check(s->cancel, e);

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&s->lock);
	s->round_started_ns = clock_now_ns();
	pthread_mutex_unlock(&s->lock);
	source_begin_disk_pass(s, false);
	ret = source_finish_disk_pass(s, &sent_bytes, e);
	pthread_mutex_lock(&s->lock);
	s->round_started_ns = 0;
	pthread_mutex_unlock(&s->lock);
	return ret;
}

int source_disks(struct migration_source *s, struct err *e)
{
	uint64_t before;
	uint64_t left = source_collect_disks(s);

	if (!s->disk_sender)
		return 0;
	do {
		before = left;
		if (bulk_pass(s, e) < 0)
			return -e->code;
		left = source_collect_disks(s);
	} while (left > REST_BYTES && left < before / 2);
	s->disk_pending_bytes = left;
	return 0;
}

/* ---- Handing over what is shared: the guest is paused, everything was flushed by the last pass,
 * so that little is left to do ---- */

int source_offer_disks(struct migration_source *s, struct err *e)
{
	for (uint32_t i = 0; i < s->disks.nr; i++)
		if (!s->disks.at[i].copy && disk_offer(s->disks.at[i].disk, e) < 0)
			return err_prefix(e, "handing over disk %u", i);
	return 0;
}

void source_undo_offer_disks(struct migration_source *s)
{
	for (uint32_t i = 0; i < s->disks.nr; i++)
		if (!s->disks.at[i].copy)
			disk_reclaim(s->disks.at[i].disk);
}

void source_release_disks(struct migration_source *s)
{
	for (uint32_t i = 0; i < s->disks.nr; i++)
		if (!s->disks.at[i].copy)
			disk_release(s->disks.at[i].disk);
}
