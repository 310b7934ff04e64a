#include "migration/disk_sender.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "proto/disk_piece.h"
#include "vmm/base/clock.h"
#include "vmm/block/disk.h"

struct disk_sender {
	/* immutable after new */
	struct disk_set set;
	struct disk_sender_config config;
	pthread_t thread;

	/* owned by whoever's turn it is: the engine, or this thread during a pass */
	struct bitmap todo[DISK_SET_MAX]; /* of copied disks */
	bool everything;                  /* the first pass: holes need not be told */
	uint32_t sequence;
	struct disk_stats stats;
	struct err failure;

	_Atomic uint64_t remaining_bytes;

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t changed;
	bool stop;
	bool busy;
	bool last;
	uint32_t pass;
};

/* ---- One pass: on the sender's thread ---- */

static int send_header(struct disk_sender *s, struct disk_piece *p, bool more, struct err *e)
{
	struct iovec iov = {p, sizeof(*p)};

	p->magic = DISK_PIECE_MAGIC;
	p->pass = s->pass;
	p->sequence = s->sequence++;
	return link_sendv_more(s->config.link, &iov, 1, more, e);
}

static int send_zero(struct disk_sender *s, uint32_t i, uint64_t from, uint64_t to, struct err *e)
{
	struct disk_piece p = {
		.kind = DISK_PIECE_ZERO, .disk = (uint16_t)i, .offset = from, .bytes = to - from};

	if (s->everything)
		return 0; /* the copy starts as nothing but holes */
	s->stats.zero_bytes += p.bytes;
	return send_header(s, &p, false, e);
}

static int send_data(struct disk_sender *s, uint32_t i, uint64_t from, uint64_t to, struct err *e)
{
	struct disk *d = s->set.at[i].disk;

	while (from < to) {
		uint64_t left = to - from;
		struct disk_piece p = {.kind = DISK_PIECE_DATA,
				       .disk = (uint16_t)i,
				       .offset = from,
				       .bytes = left < DISK_PIECE_MAX_BYTES ? left
									    : DISK_PIECE_MAX_BYTES};

		if (cancel_check(s->config.abort, e) < 0 ||
		    fault_point(s->config.fault, "src.disk_data", e) < 0 ||
		    rate_limit_take(s->config.limit, p.bytes, e) < 0 ||
		    send_header(s, &p, true, e) < 0 ||
		    link_sendfile(s->config.link, disk_fd(d), p.offset, p.bytes, e) < 0)
			return -e->code;
		s->stats.data_bytes += p.bytes;
		atomic_fetch_sub(&s->remaining_bytes, p.bytes);
		from += p.bytes;
	}
	return 0;
}

static int send_range(struct disk_sender *s, uint32_t i, uint64_t from, uint64_t to, struct err *e)
{
	while (from < to) {
		uint64_t start;
		uint64_t stop;

		disk_next_data(s->set.at[i].disk, from, to, &start, &stop);
		if (start > from && send_zero(s, i, from, start, e) < 0)
			return -e->code;
		atomic_fetch_sub(&s->remaining_bytes, start - from);
		if (send_data(s, i, start, stop, e) < 0)
			return -e->code;
		from = stop;
	}
	return 0;
}

static int send_disk(struct disk_sender *s, uint32_t i, struct err *e)
{
	uint64_t end = disk_bytes(s->set.at[i].disk);
	struct bitmap_run run;

	bitmap_for_each_run (&s->todo[i], &run, 0, s->todo[i].nr_bits) {
		uint64_t from = run.first * DISK_BLOCK_BYTES;
		uint64_t to = from + run.nr * DISK_BLOCK_BYTES;

		if (send_range(s, i, from, to < end ? to : end, e) < 0)
			return err_prefix(e, "disk %u (%s)", i, disk_path(s->set.at[i].disk));
	}
	bitmap_zero(&s->todo[i]);
	return 0;
}

/* Until all is durable at the destination, which takes as long as it takes: the death of its host
 * is noticed all the same, by the connection. Not so when the guest waits. */
static int barrier(struct disk_sender *s, bool last, struct err *e)
{
	struct disk_piece p = {.kind = DISK_PIECE_BARRIER};
	struct disk_piece_back back;
	int ret;

	if (fault_point(s->config.fault, "src.disk_barrier", e) < 0 ||
	    send_header(s, &p, false, e) < 0)
		return -e->code;
	link_set_stall_timeout(s->config.link, last ? s->config.stall_timeout_ns : 0);
	ret = link_recv(s->config.link, &back, sizeof(back), e);
	link_set_stall_timeout(s->config.link, s->config.stall_timeout_ns);
	if (ret < 0)
		return err_prefix(e, "waiting for the disks' barrier");
	if (back.magic != DISK_PIECE_BACK_MAGIC || back.pass != p.pass)
		return err_set(e, ERR_STREAM, EPROTO,
			       "the destination answered the disks' barrier wrongly");
	return 0;
}

static int flush_shared(struct disk_sender *s, struct err *e)
{
	for (uint32_t i = 0; i < s->set.nr; i++) {
		if (!s->set.at[i].copy && disk_flush_written(s->set.at[i].disk, e) < 0)
			return -e->code;
	}
	return 0;
}

static int make_pass(struct disk_sender *s, bool last, struct err *e)
{
	uint64_t start_ns;

	if (fault_point(s->config.fault, "src.disk_pass", e) < 0)
		return -e->code;
	for (uint32_t i = 0; i < s->set.nr; i++)
		if (s->set.at[i].copy && send_disk(s, i, e) < 0)
			return -e->code;
	s->everything = false;
	start_ns = clock_now_ns();
	if (flush_shared(s, e) < 0 || (s->config.link && barrier(s, last, e) < 0))
		return -e->code;
	s->stats.settle_ns = clock_now_ns() - start_ns;
	return 0;
}

static void run_pass(struct disk_sender *s, bool last)
{
	uint64_t sent = disk_sender_wire_bytes(s);

	s->stats = (struct disk_stats){.data_bytes = 0};
	s->failure = (struct err)ERR_INIT;
	if (make_pass(s, last, &s->failure) < 0)
		cancel_request(s->config.abort);
	s->stats.wire_bytes = disk_sender_wire_bytes(s) - sent;
}

static void *thread_main(void *arg)
{
	struct disk_sender *s = arg;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		if (!s->busy) {
			pthread_cond_wait(&s->changed, &s->lock);
			continue;
		}
		pthread_mutex_unlock(&s->lock);
		run_pass(s, s->last);
		pthread_mutex_lock(&s->lock);
		s->busy = false;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- The engine's side ---- */

static int start_tracking(struct disk_sender *s, struct err *e)
{
	for (uint32_t i = 0; i < s->set.nr; i++) {
		struct disk *d = s->set.at[i].disk;

		if (!s->set.at[i].copy)
			continue;
		if (bitmap_init(&s->todo[i], disk_nr_blocks(d), e) < 0 ||
		    disk_track_start(d, e) < 0)
			return -e->code;
		bitmap_set_range(&s->todo[i], 0, disk_nr_blocks(d));
	}
	return 0;
}

static void release(struct disk_sender *s)
{
	for (uint32_t i = 0; i < s->set.nr; i++) {
		if (s->set.at[i].copy)
			disk_track_stop(s->set.at[i].disk);
		bitmap_fini(&s->todo[i]);
	}
	link_free(s->config.link);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static int start(struct disk_sender *s, struct err *e)
{
	int ret = start_tracking(s, e);

	if (ret < 0)
		return ret;
	ret = pthread_create(&s->thread, NULL, thread_main, s);
	return ret ? err_set(e, ERR_SYS, ret, "cannot create a thread for the disks") : 0;
}

int disk_sender_new(const struct disk_sender_config *config, struct disk_sender **out,
		    struct err *e)
{
	struct disk_sender *s = calloc(1, sizeof(*s));

	if (!s) {
		link_free(config->link);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a migration's disks");
	}
	s->config = *config;
	s->set = *config->set;
	s->everything = true;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	if (start(s, e) < 0) {
		release(s);
		return -e->code;
	}
	*out = s;
	return 0;
}

void disk_sender_free(struct disk_sender *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (s->config.link)
		link_shutdown(s->config.link);
	pthread_join(s->thread, NULL);
	release(s);
}

uint64_t disk_sender_collect(struct disk_sender *s)
{
	uint64_t blocks = 0;

	for (uint32_t i = 0; i < s->set.nr; i++) {
		if (!s->set.at[i].copy)
			continue;
		disk_track_take(s->set.at[i].disk, &s->todo[i]);
		blocks += bitmap_count(&s->todo[i]);
	}
	atomic_store(&s->remaining_bytes, blocks * DISK_BLOCK_BYTES);
	return blocks * DISK_BLOCK_BYTES;
}

void disk_sender_begin(struct disk_sender *s, bool last)
{
	pthread_mutex_lock(&s->lock);
	s->pass++;
	s->last = last;
	s->busy = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

int disk_sender_finish(struct disk_sender *s, struct disk_stats *stats, struct err *e)
{
	pthread_mutex_lock(&s->lock);
	while (s->busy)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
	stats->data_bytes += s->stats.data_bytes;
	stats->zero_bytes += s->stats.zero_bytes;
	stats->wire_bytes += s->stats.wire_bytes;
	stats->settle_ns = s->stats.settle_ns;
	atomic_store(&s->remaining_bytes, 0);
	if (s->failure.kind == ERR_NONE)
		return 0;
	*e = s->failure;
	return -e->code;
}

uint32_t disk_sender_pass(struct disk_sender *s)
{
	uint32_t pass;

	pthread_mutex_lock(&s->lock);
	pass = s->pass;
	pthread_mutex_unlock(&s->lock);
	return pass;
}

uint64_t disk_sender_remaining_bytes(struct disk_sender *s)
{
	return atomic_load(&s->remaining_bytes);
}

uint64_t disk_sender_wire_bytes(struct disk_sender *s)
{
	return s->config.link ? link_sent_bytes(s->config.link) : 0;
}
