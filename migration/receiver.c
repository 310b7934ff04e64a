#include "migration/receiver.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migration/codec.h"
#include "migration/page_writer.h"
#include "proto/batch.h"
#include "vmm/base/priority.h"

/* Runs from here on go from the socket into the memfd by splice: new pages are neither faulted in
 * nor zeroed first. Shorter ones are cheaper through the mapping, many at a time. */
#define SPLICE_MIN_PAGES 16

struct receiver {
	/* immutable after new */
	struct receiver_config config;
	struct link *link;
	pthread_t thread;

	/* owned by the receiver's thread */
	struct page_writer *writer;
	struct placement *placement; /* NULL: none, or closed */
	uint64_t sequence;
	uint32_t nr_data_pages;
	struct batch_header head;
	struct batch_run runs[BATCH_MAX_RUNS];
	uint8_t *packed;
	uint8_t *unpacked;

	_Atomic uint64_t placed_bytes; /* for progress */

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t changed;
	uint32_t round;
	uint32_t last_round; /* 0: not known yet */
	bool ending;         /* because the engine wants it */
	bool sealed;
	bool dismissed;
	struct err failure;
};

static int check_ram(const struct receiver *r, struct err *e)
{
	for (uint32_t i = 0; i < r->head.nr_runs; i++)
		if (!guest_mem_contains(r->config.mem, r->runs[i].gfn * PAGE_BYTES,
					r->runs[i].nr_pages * PAGE_BYTES))
			return err_set(e, ERR_STREAM, EPROTO, "gfn 0x%llx is not RAM of this guest",
				       (unsigned long long)r->runs[i].gfn);
	return 0;
}

static void *run_at(const struct receiver *r, const struct batch_run *run)
{
	return guest_mem_at_rw(r->config.mem, run->gfn * PAGE_BYTES, run->nr_pages * PAGE_BYTES);
}

static size_t run_bytes(const struct batch_run *run)
{
	return run->nr_pages * PAGE_BYTES;
}

/* Does the page writer, and not this thread, write this run? */
static bool is_for_writer(const struct receiver *r, const struct batch_run *run)
{
	return r->head.codec == BATCH_CODEC_NONE && run->kind == RUN_DATA &&
	       run->nr_pages >= SPLICE_MIN_PAGES;
}

/* What this thread is about to write must not be overtaken by an older version of the same page
 * that still waits in the writer. */
static int settle(struct receiver *r, struct err *e)
{
	for (uint32_t i = 0; i < r->head.nr_runs; i++)
		if (!is_for_writer(r, &r->runs[i]) &&
		    page_writer_settle(r->writer, r->runs[i].gfn * PAGE_BYTES,
				       run_bytes(&r->runs[i]), e) < 0)
			return -e->code;
	return 0;
}

/* Memory starts as zeroes: only what was written before needs clearing, and memory that never was
 * stays unallocated. */
static void apply_zero_runs(struct receiver *r)
{
	struct bitmap_run dirty;

	for (uint32_t i = 0; i < r->head.nr_runs; i++) {
		const struct batch_run *run = &r->runs[i];

		if (run->kind != RUN_ZERO)
			continue;
		bitmap_for_each_run (r->config.written, &dirty, run->gfn, run->gfn + run->nr_pages)
			memset(guest_mem_at_rw(r->config.mem, dirty.first * PAGE_BYTES,
					       dirty.nr * PAGE_BYTES),
			       0, dirty.nr * PAGE_BYTES);
		bitmap_clear_range(r->config.written, run->gfn, run->nr_pages);
	}
}

/* Give a chunk that is about to be written for the first time its huge page in one go, and hear
 * about exhausted memory as an error, not as a signal in mid-copy. */
static int allocate_chunks(struct receiver *r, struct err *e)
{
	const uint64_t chunk_bytes = CHUNK_PAGES * PAGE_BYTES;

	if (!guest_mem_is_huge(r->config.mem))
		return 0;
	for (uint32_t i = 0; i < r->head.nr_runs; i++) {
		uint64_t first = r->runs[i].gfn / CHUNK_PAGES * CHUNK_PAGES;
		struct bitmap_run any;

		if (r->runs[i].kind != RUN_DATA || r->runs[i].nr_pages < SPLICE_MIN_PAGES ||
		    bitmap_next_run(r->config.written, first, first + CHUNK_PAGES, &any))
			continue;
		if (fallocate(guest_mem_fd(r->config.mem), 0, (off_t)(first * PAGE_BYTES),
			      (off_t)chunk_bytes) < 0)
			return err_sys(
				e,
				"no memory for the guest's page at 0x%llx; free some on this host",
				(unsigned long long)(first * PAGE_BYTES));
	}
	return 0;
}

static void mark_written(struct receiver *r)
{
	for (uint32_t i = 0; i < r->head.nr_runs; i++)
		if (r->runs[i].kind == RUN_DATA)
			bitmap_set_range(r->config.written, r->runs[i].gfn, r->runs[i].nr_pages);
}

/* The addresses of the short data runs from @i on, up to the next long one. */
static uint32_t scatter_short(const struct receiver *r, uint32_t i, struct iovec *iov, int *nr_iov)
{
	*nr_iov = 0;
	for (; i < r->head.nr_runs; i++) {
		const struct batch_run *run = &r->runs[i];

		if (run->kind != RUN_DATA)
			continue;
		if (run->nr_pages >= SPLICE_MIN_PAGES)
			break;
		iov[(*nr_iov)++] =
			(struct iovec){.iov_base = run_at(r, run), .iov_len = run_bytes(run)};
	}
	return i;
}

static int receive_raw(struct receiver *r, struct err *e)
{
	struct iovec iov[BATCH_MAX_RUNS];
	int nr_iov;

	for (uint32_t i = 0; i < r->head.nr_runs;) {
		i = scatter_short(r, i, iov, &nr_iov);
		if (nr_iov && link_recvv(r->link, iov, nr_iov, e) < 0)
			return -e->code;
		if (i == r->head.nr_runs)
			break;
		if (page_writer_take(r->writer, r->link, r->runs[i].gfn * PAGE_BYTES,
				     run_bytes(&r->runs[i]), e) < 0)
			return -e->code;
		i++;
	}
	return 0;
}

static int receive_packed(struct receiver *r, struct err *e)
{
	const struct codec_ops *codec = codec_by_wire_id(r->head.codec);
	size_t len = r->nr_data_pages * PAGE_BYTES;
	size_t at = 0;

	if (!codec)
		return err_set(e, ERR_STREAM, EPROTO, "batch codec %u is unknown", r->head.codec);
	if (link_recv(r->link, r->packed, r->head.payload_bytes, e) < 0 ||
	    codec->decompress(r->packed, r->head.payload_bytes, r->unpacked, len, e) < 0)
		return -e->code;
	for (uint32_t i = 0; i < r->head.nr_runs; i++) {
		const struct batch_run *run = &r->runs[i];

		if (run->kind != RUN_DATA)
			continue;
		memcpy(run_at(r, run), r->unpacked + at, run_bytes(run));
		at += run_bytes(run);
	}
	return 0;
}

static int answer_back(struct receiver *r, struct err *e)
{
	struct batch_back back = {.magic = BATCH_BACK_MAGIC, .round = r->head.round};

	return link_send(r->link, &back, sizeof(back), e);
}

static int answer_barrier(struct receiver *r, struct err *e)
{
	if (page_writer_drain(r->writer, e) < 0)
		return -e->code;
	if (r->placement && r->placement->ops->finish(r->placement, r->head.round, e) < 0)
		return -e->code;
	/* First visible to the engine, then to the source: STATE may follow the answer at once. */
	pthread_mutex_lock(&r->lock);
	r->round = r->head.round;
	pthread_mutex_unlock(&r->lock);
	return answer_back(r, e);
}

static void end_placement(struct receiver *r)
{
	if (r->placement)
		r->placement->ops->free(r->placement);
	r->placement = NULL;
}

static int answer_close(struct receiver *r, struct err *e)
{
	end_placement(r);
	return answer_back(r, e);
}

static int need_placement(const struct receiver *r, struct err *e)
{
	if (r->placement)
		return 0;
	return err_set(e, ERR_STREAM, EPROTO, "a batch of kind %u on a channel without RDMA",
		       r->head.kind);
}

static int receive_pages(struct receiver *r, struct err *e)
{
	if (r->head.kind == BATCH_PLACED && need_placement(r, e) < 0)
		return -e->code;
	if (settle(r, e) < 0)
		return -e->code;
	apply_zero_runs(r);
	if (r->head.kind == BATCH_PAGES && allocate_chunks(r, e) < 0)
		return -e->code;
	mark_written(r);
	if (r->head.kind == BATCH_PLACED) {
		atomic_fetch_add(&r->placed_bytes, r->nr_data_pages * PAGE_BYTES);
		return 0;
	}
	return r->head.codec == BATCH_CODEC_NONE ? receive_raw(r, e) : receive_packed(r, e);
}

static int receive_window(struct receiver *r, struct err *e)
{
	if (need_placement(r, e) < 0)
		return -e->code;
	return r->placement->ops->window(r->placement, r->runs, r->head.nr_runs, e);
}

static int receive_head(struct receiver *r, struct err *e)
{
	if (r->placement && r->placement->ops->wait(r->placement, e) < 0)
		return -e->code;
	if (link_recv(r->link, &r->head, sizeof(r->head), e) < 0 ||
	    batch_check_header(&r->head, r->sequence++, e) < 0)
		return -e->code;
	return fault_point(r->config.fault, "dst.batch", e);
}

static int receive_batch(struct receiver *r, struct err *e)
{
	if (receive_head(r, e) < 0)
		return -e->code;
	if (r->head.kind == BATCH_BARRIER)
		return answer_barrier(r, e);
	if (r->head.kind == BATCH_CLOSE)
		return answer_close(r, e);
	if (link_recv(r->link, r->runs, r->head.nr_runs * sizeof(r->runs[0]), e) < 0 ||
	    batch_check_runs(&r->head, r->runs, r->config.index, r->config.nr_channels,
			     &r->nr_data_pages, e) < 0 ||
	    check_ram(r, e) < 0)
		return -e->code;
	return r->head.kind == BATCH_WINDOW ? receive_window(r, e) : receive_pages(r, e);
}

/* All doors shut: the writer is idle, the queue pair is gone. */
static void seal(struct receiver *r)
{
	if (r->placement)
		r->placement->ops->seal(r->placement);
	pthread_mutex_lock(&r->lock);
	r->sealed = true;
	pthread_mutex_unlock(&r->lock);
	pthread_cond_broadcast(&r->changed);
}

static void conclude(struct receiver *r, const struct err *e)
{
	bool wanted;

	pthread_mutex_lock(&r->lock);
	wanted = r->ending || e->kind == ERR_NONE;
	if (!wanted)
		r->failure = *e;
	pthread_mutex_unlock(&r->lock);
	if (!wanted)
		cancel_request(r->config.abort);
}

/* A queue pair stays as long as the source may want to take its leave of it. */
static bool has_all(struct receiver *r)
{
	bool all;

	pthread_mutex_lock(&r->lock);
	all = r->last_round && r->round == r->last_round && !r->placement;
	pthread_mutex_unlock(&r->lock);
	return all;
}

/* A thread's end takes its time, which is the guest's where processors are few. */
static void await_dismissal(struct receiver *r)
{
	thread_step_back();
	pthread_mutex_lock(&r->lock);
	while (!r->dismissed)
		pthread_cond_wait(&r->changed, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

static void *receiver_main(void *arg)
{
	struct receiver *r = arg;
	struct err e = ERR_INIT;
	struct err cause = ERR_INIT;

	while (!has_all(r) && receive_batch(r, &e) == 0)
		;
	/* A writer that fails cancels; say why it did. */
	if (page_writer_drain(r->writer, &cause) < 0)
		e = cause;
	if (e.kind != ERR_NONE)
		err_prefix(&e, "channel %u", r->config.index);
	seal(r);
	end_placement(r); /* whatever the end was: nothing stays pinned */
	conclude(r, &e);
	await_dismissal(r);
	return NULL;
}

static void release(struct receiver *r)
{
	page_writer_free(r->writer);
	end_placement(r);
	link_free(r->link);
	free(r->packed);
	free(r->unpacked);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static int prepare(struct receiver *r, struct err *e)
{
	int ret;

	if (page_writer_new(guest_mem_fd(r->config.mem), r->config.abort, &r->writer, e) < 0)
		return -e->code;
	r->packed = malloc(BATCH_MAX_PAGES * PAGE_BYTES);
	r->unpacked = malloc(BATCH_MAX_PAGES * PAGE_BYTES);
	if (!r->packed || !r->unpacked)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a channel");
	ret = pthread_create(&r->thread, NULL, receiver_main, r);
	return ret ? err_set(e, ERR_SYS, ret, "cannot create a receiver thread") : 0;
}

static struct receiver *allocate(struct link *link, struct placement *placement, struct err *e)
{
	struct receiver *r = calloc(1, sizeof(*r));

	if (r)
		return r;
	if (placement)
		placement->ops->free(placement);
	link_free(link);
	err_set(e, ERR_SYS, ENOMEM, "out of memory for a channel");
	return NULL;
}

int receiver_new(const struct receiver_config *config, struct link *link,
		 struct placement *placement, struct receiver **out, struct err *e)
{
	struct receiver *r = allocate(link, placement, e);

	if (!r)
		return -e->code;
	r->config = *config;
	r->link = link;
	r->placement = placement;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	if (prepare(r, e) < 0) {
		release(r);
		return -e->code;
	}
	*out = r;
	return 0;
}

uint32_t receiver_round(struct receiver *r)
{
	uint32_t round;

	pthread_mutex_lock(&r->lock);
	round = r->round;
	pthread_mutex_unlock(&r->lock);
	return round;
}

uint64_t receiver_received_bytes(struct receiver *r)
{
	return link_received_bytes(r->link) + atomic_load(&r->placed_bytes);
}

void receiver_failure(struct receiver *r, struct err *e)
{
	pthread_mutex_lock(&r->lock);
	*e = r->failure;
	pthread_mutex_unlock(&r->lock);
}

void receiver_expect_last(struct receiver *r, uint32_t round)
{
	pthread_mutex_lock(&r->lock);
	r->last_round = round;
	pthread_mutex_unlock(&r->lock);
}

void receiver_seal(struct receiver *r)
{
	bool sealed;

	pthread_mutex_lock(&r->lock);
	r->ending = true;
	sealed = r->sealed;
	pthread_mutex_unlock(&r->lock);
	if (sealed)
		return;
	link_shutdown(r->link);
	pthread_mutex_lock(&r->lock);
	while (!r->sealed)
		pthread_cond_wait(&r->changed, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

static void dismiss(struct receiver *r)
{
	pthread_mutex_lock(&r->lock);
	r->dismissed = true;
	pthread_mutex_unlock(&r->lock);
	pthread_cond_broadcast(&r->changed);
}

void receiver_free(struct receiver *r)
{
	if (!r)
		return;
	link_shutdown(r->link);
	dismiss(r);
	pthread_join(r->thread, NULL);
	release(r);
}
