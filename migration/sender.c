#include "migration/sender.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "migration/zero_page.h"
#include "vmm/base/priority.h"

struct sender {
	/* immutable after new */
	struct sender_config config;
	struct pagechan *chan;
	pthread_t thread;

	/* owned by the sender's thread while it has a round */
	struct page_batch batch;
	struct send_stats stats;
	struct mem_extent seen;

	struct {
		_Atomic uint64_t zero_pages, raw_pages, compressed_pages, wire_bytes;
	} so_far; /* the stats of this round as of the last batch, for progress */

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t changed;
	struct round *round; /* NULL: idle */
	bool quit;
	struct err err; /* of the last round */
};

static void publish(struct sender *s)
{
	const struct send_stats *stats = &s->stats;

	atomic_store_explicit(&s->so_far.zero_pages, stats->zero_pages, memory_order_relaxed);
	atomic_store_explicit(&s->so_far.raw_pages, stats->raw_pages, memory_order_relaxed);
	atomic_store_explicit(&s->so_far.compressed_pages, stats->compressed_pages,
			      memory_order_relaxed);
	atomic_store_explicit(&s->so_far.wire_bytes, stats->wire_bytes, memory_order_relaxed);
}

static int flush(struct sender *s, struct err *e)
{
	struct page_batch *b = &s->batch;

	if (!b->nr_runs)
		return 0;
	if (fault_point(s->config.fault, "src.send", e) < 0 ||
	    s->chan->ops->send(s->chan, b, &s->stats, e) < 0)
		return -e->code;
	publish(s);
	b->nr_runs = 0;
	b->nr_data_pages = 0;
	return 0;
}

static int add_run(struct sender *s, uint64_t gfn, uint64_t nr, enum run_kind kind, struct err *e)
{
	struct page_batch *b = &s->batch;

	/* A run that fits one batch goes in one piece: whole chunks stay whole at the other end. */
	if (kind == RUN_DATA && nr > s->chan->batch_pages - b->nr_data_pages &&
	    nr <= s->chan->batch_pages && flush(s, e) < 0)
		return -e->code;
	while (nr) {
		uint64_t room = kind == RUN_DATA ? s->chan->batch_pages - b->nr_data_pages : nr;
		uint64_t now = nr < room ? nr : room;

		b->runs[b->nr_runs++] = (struct batch_run){
			.gfn = gfn, .nr_pages = (uint16_t)now, .kind = (uint8_t)kind};
		if (kind == RUN_DATA)
			b->nr_data_pages += (uint32_t)now;
		else
			s->stats.zero_pages += now;
		gfn += now;
		nr -= now;
		if (b->nr_runs == BATCH_MAX_RUNS || b->nr_data_pages >= s->chan->batch_pages)
			if (flush(s, e) < 0)
				return -e->code;
	}
	return 0;
}

/* A page that was given back to the host is zero, and stays with the host only if nobody looks. */
static enum run_kind kind_of(const struct guest_mem *mem, uint64_t gfn)
{
	if (guest_mem_is_discarded(mem, gfn))
		return RUN_ZERO;
	return page_is_zero(guest_mem_at(mem, gfn * PAGE_BYTES, PAGE_BYTES)) ? RUN_ZERO : RUN_DATA;
}

/* Cut pages [gfn, end), all to be sent, into runs of one kind. */
static int add_pages(struct sender *s, uint64_t gfn, uint64_t end, struct err *e)
{
	while (gfn < end) {
		enum run_kind kind = kind_of(s->config.mem, gfn);
		uint64_t next = gfn + 1;

		while (next < end && kind_of(s->config.mem, next) == kind)
			next++;
		if (add_run(s, gfn, next - gfn, kind, e) < 0)
			return -e->code;
		gfn = next;
	}
	return 0;
}

/* Of a run in the first round only what the memfd holds; looking (even reading through the mapping)
 * must not allocate pages that nobody touched. The chunk has been claimed already: what is touched
 * after this look is dirty and comes again. */
static int add_touched(struct sender *s, const struct bitmap_run *run, struct err *e)
{
	uint64_t at = run->first * PAGE_BYTES;
	uint64_t end = (run->first + run->nr) * PAGE_BYTES;
	uint64_t start;
	uint64_t stop;
	uint64_t present = 0;

	while (guest_mem_next_data(s->config.mem, &s->seen, at, end, &start, &stop)) {
		uint64_t first = start / PAGE_BYTES;
		uint64_t last = (stop + PAGE_BYTES - 1) / PAGE_BYTES;

		if (add_pages(s, first, last, e) < 0)
			return -e->code;
		present += last - first;
		at = stop;
	}
	s->stats.skipped_pages += run->nr - present;
	return 0;
}

static int send_chunk(struct sender *s, struct round *r, uint64_t first, uint64_t end,
		      struct err *e)
{
	struct bitmap_run run;

	if (!bitmap_next_run(&r->set, first, end, &run))
		return 0;
	if (r->claim && dirty_claim(s->config.tracker, &r->set, first, end - first, e) < 0)
		return -e->code;
	bitmap_for_each_run (&r->set, &run, first, end) {
		int ret = r->first ? add_touched(s, &run, e)
				   : add_pages(s, run.first, run.first + run.nr, e);

		if (ret < 0)
			return ret;
		atomic_fetch_add_explicit(&r->seen_pages, run.nr, memory_order_relaxed);
	}
	return 0;
}

static int send_share(struct sender *s, struct round *r, struct err *e)
{
	uint64_t stride = (uint64_t)CHUNK_PAGES * s->config.nr_channels;

	s->seen = (struct mem_extent){0};
	s->batch.round = r->number;
	s->batch.nr_runs = 0;
	s->batch.nr_data_pages = 0;
	for (uint64_t first = (uint64_t)CHUNK_PAGES * s->config.index; first < r->set.nr_bits;
	     first += stride) {
		uint64_t end = first + CHUNK_PAGES;

		if (send_chunk(s, r, first, end < r->set.nr_bits ? end : r->set.nr_bits, e) < 0)
			return -e->code;
	}
	if (flush(s, e) < 0 || fault_point(s->config.fault, "src.barrier", e) < 0)
		return -e->code;
	return s->chan->ops->barrier(s->chan, r->number, &s->stats, e);
}

static void *sender_main(void *arg)
{
	struct sender *s = arg;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		struct round *r;
		struct err e = ERR_INIT;

		while (!s->round && !s->quit)
			pthread_cond_wait(&s->changed, &s->lock);
		if (s->quit)
			break;
		r = s->round;
		pthread_mutex_unlock(&s->lock);
		if (send_share(s, r, &e) < 0) {
			err_prefix(&e, "round %u: channel %u", r->number, s->config.index);
			cancel_request(s->config.abort);
		}
		pthread_mutex_lock(&s->lock);
		s->err = e;
		s->round = NULL;
		/* Without the lock: where processors are few, the engine runs at once and wants it.
		 */
		pthread_mutex_unlock(&s->lock);
		pthread_cond_broadcast(&s->changed);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	thread_step_back(); /* ending takes its time, too */
	return NULL;
}

int sender_new(const struct sender_config *config, struct pagechan *chan, struct sender **out,
	       struct err *e)
{
	struct sender *s = calloc(1, sizeof(*s));
	int ret;

	if (!s) {
		chan->ops->free(chan);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a sender");
	}
	s->config = *config;
	s->chan = chan;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	ret = pthread_create(&s->thread, NULL, sender_main, s);
	if (ret) {
		chan->ops->free(chan);
		free(s);
		return err_set(e, ERR_SYS, ret, "cannot create a sender thread");
	}
	*out = s;
	return 0;
}

void sender_free(struct sender *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->quit = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	s->chan->ops->free(s->chan);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void sender_begin(struct sender *s, struct round *r)
{
	pthread_mutex_lock(&s->lock);
	publish(s); /* nothing yet */
	s->round = r;
	pthread_mutex_unlock(&s->lock);
	pthread_cond_broadcast(&s->changed);
}

static void add_stats(struct send_stats *to, const struct send_stats *from)
{
	to->skipped_pages += from->skipped_pages;
	to->zero_pages += from->zero_pages;
	to->raw_pages += from->raw_pages;
	to->compressed_pages += from->compressed_pages;
	to->wire_bytes += from->wire_bytes;
	to->nr_fallbacks += from->nr_fallbacks;
}

int sender_finish(struct sender *s, struct send_stats *stats, struct err *e)
{
	pthread_mutex_lock(&s->lock);
	while (s->round)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
	add_stats(stats, &s->stats);
	s->stats = (struct send_stats){0};
	if (s->err.kind == ERR_NONE)
		return 0;
	*e = s->err;
	return -e->code;
}

void sender_add_progress(const struct sender *s, struct send_stats *to)
{
	const struct send_stats so_far = {
		.zero_pages = atomic_load_explicit(&s->so_far.zero_pages, memory_order_relaxed),
		.raw_pages = atomic_load_explicit(&s->so_far.raw_pages, memory_order_relaxed),
		.compressed_pages =
			atomic_load_explicit(&s->so_far.compressed_pages, memory_order_relaxed),
		.wire_bytes = atomic_load_explicit(&s->so_far.wire_bytes, memory_order_relaxed)};

	add_stats(to, &so_far);
}
