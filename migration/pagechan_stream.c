/*
 * The stream channel: batches over TCP or a unix socket (proto/STREAM.md, section 3).
 *
 * Raw pages never pass through user space. Long runs go by sendfile(2) from the memfd, whose offset
 * is the gpa: the socket takes references to the page-cache pages, so nothing is copied until the
 * network card (or, on loopback, the receiver) reads them. Short runs are gathered by vmsplice(2),
 * which takes references to many of them in one call.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migration/pagechan.h"
#include "vmm/base/clock.h"

/* Shorter runs share a system call; from here on one each costs nothing beside what it moves. */
#define SENDFILE_MIN_PAGES 16

/* What the unprivileged may have by default (/proc/sys/fs/pipe-max-size); less is only slower. */
#define PIPE_BYTES (1 << 20)

/* Compressed batches are small enough that snapshot and output stay in the cache. */
#define COMPRESS_BATCH_PAGES 64

struct stream_chan {
	struct pagechan base; /* first */
	struct batch_out out;
	const struct guest_mem *mem;
	struct rate_limit *limit;
	struct codec_choice choice;
	const struct codec_ops *next_codec; /* for the next batch; NULL: raw */
	int pipe_fds[2];                    /* empty between calls */
	uint8_t *snapshot; /* BATCH_MAX_PAGES pages: the private copy that codecs read */
	uint8_t *packed;
};

static struct stream_chan *self(struct pagechan *c)
{
	return (struct stream_chan *)c;
}

static void plan_next(struct stream_chan *s)
{
	s->next_codec = codec_choose(&s->choice);
	s->base.batch_pages = s->next_codec ? COMPRESS_BATCH_PAGES : BATCH_MAX_PAGES;
}

static int send_head(struct stream_chan *s, const struct page_batch *b, enum batch_kind kind,
		     uint8_t codec, uint32_t payload_bytes, struct err *e)
{
	struct batch_head head = {
		.kind = kind, .codec = codec, .round = b->round, .payload_bytes = payload_bytes};

	return batch_out_send(&s->out, &head, b->runs, b->nr_runs, e);
}

static uint64_t run_gpa(const struct batch_run *run)
{
	return run->gfn * PAGE_BYTES;
}

static size_t run_bytes(const struct batch_run *run)
{
	return run->nr_pages * PAGE_BYTES;
}

/* Gather the short data runs from @i on, up to the next long one; returns the index after them. */
static uint32_t gather_short(struct stream_chan *s, const struct page_batch *b, uint32_t i,
			     struct iovec *iov, int *nr_iov)
{
	*nr_iov = 0;
	for (; i < b->nr_runs; i++) {
		const struct batch_run *run = &b->runs[i];
		const void *at;

		if (run->kind != RUN_DATA)
			continue;
		if (run->nr_pages >= SENDFILE_MIN_PAGES)
			break;
		at = guest_mem_at(s->mem, run_gpa(run), run_bytes(run));
		memcpy(&iov[*nr_iov].iov_base, &at, sizeof(at)); /* vmsplice takes it non-const */
		iov[(*nr_iov)++].iov_len = run_bytes(run);
	}
	return i;
}

static int send_raw(struct stream_chan *s, const struct page_batch *b, struct err *e)
{
	struct iovec iov[BATCH_MAX_RUNS];
	int nr_iov;

	for (uint32_t i = 0; i < b->nr_runs;) {
		i = gather_short(s, b, i, iov, &nr_iov);
		if (nr_iov && link_splicev(s->out.link, s->pipe_fds, iov, nr_iov, e) < 0)
			return -e->code;
		if (i == b->nr_runs)
			break;
		if (link_sendfile(s->out.link, guest_mem_fd(s->mem), run_gpa(&b->runs[i]),
				  run_bytes(&b->runs[i]), e) < 0)
			return -e->code;
		i++;
	}
	return 0;
}

/* Copy the data pages aside: the guest may write while the codec reads, and a block in which page A
 * refers to bytes of page B that have changed since would unpack to garbage in A. */
static size_t take_snapshot(struct stream_chan *s, const struct page_batch *b)
{
	size_t len = 0;

	for (uint32_t i = 0; i < b->nr_runs; i++) {
		const struct batch_run *run = &b->runs[i];

		if (run->kind != RUN_DATA)
			continue;
		memcpy(s->snapshot + len, guest_mem_at(s->mem, run_gpa(run), run_bytes(run)),
		       run_bytes(run));
		len += run_bytes(run);
	}
	return len;
}

/* The payload's size, or 0 when these pages are better sent raw. */
static size_t pack(struct stream_chan *s, const struct page_batch *b)
{
	uint64_t start_ns = clock_now_ns();
	size_t len = take_snapshot(s, b);
	/* At least an eighth saved, or the receiver's unpacking is not worth it. */
	size_t packed = s->next_codec->compress(s->snapshot, len, s->packed, len - len / 8);

	codec_note_codec(&s->choice, clock_now_ns() - start_ns, len, packed ? packed : len);
	return packed;
}

static int transmit(struct stream_chan *s, const struct page_batch *b, size_t packed, struct err *e)
{
	uint32_t raw_bytes = b->nr_data_pages * BATCH_PAGE_BYTES;

	if (packed) {
		if (send_head(s, b, BATCH_PAGES, s->next_codec->wire_id, (uint32_t)packed, e) < 0)
			return -e->code;
		return link_send(s->out.link, s->packed, packed, e);
	}
	if (send_head(s, b, BATCH_PAGES, BATCH_CODEC_NONE, raw_bytes, e) < 0)
		return -e->code;
	return send_raw(s, b, e);
}

static int stream_send(struct pagechan *c, const struct page_batch *b, struct send_stats *stats,
		       struct err *e)
{
	struct stream_chan *s = self(c);
	size_t packed = s->next_codec && b->nr_data_pages ? pack(s, b) : 0;
	size_t payload = packed ? packed : b->nr_data_pages * PAGE_BYTES;
	size_t wire = batch_out_bytes(b->nr_runs) + payload;
	uint64_t start_ns = clock_now_ns();

	if (rate_limit_take(s->limit, wire, e) < 0 || transmit(s, b, packed, e) < 0)
		return -e->code;
	codec_note_link(&s->choice, clock_now_ns() - start_ns, wire);
	stats->wire_bytes += wire;
	if (packed)
		stats->compressed_pages += b->nr_data_pages;
	else
		stats->raw_pages += b->nr_data_pages;
	plan_next(s);
	return 0;
}

static int stream_barrier(struct pagechan *c, uint32_t round, struct send_stats *stats,
			  struct err *e)
{
	struct stream_chan *s = self(c);
	struct page_batch none = {.round = round};

	if (send_head(s, &none, BATCH_BARRIER, BATCH_CODEC_NONE, 0, e) < 0 ||
	    batch_out_await_back(&s->out, round, e) < 0)
		return -e->code;
	stats->wire_bytes += sizeof(struct batch_header);
	return 0;
}

static void stream_free(struct pagechan *c)
{
	struct stream_chan *s = self(c);

	link_free(s->out.link);
	if (s->pipe_fds[0] >= 0) {
		close(s->pipe_fds[0]);
		close(s->pipe_fds[1]);
	}
	free(s->snapshot);
	free(s->packed);
	free(s);
}

static const struct pagechan_ops stream_ops = {
	.name = "stream",
	.send = stream_send,
	.barrier = stream_barrier,
	.free = stream_free,
};

static int prepare(struct stream_chan *s, const char *codec, struct err *e)
{
	if (pipe2(s->pipe_fds, O_CLOEXEC) < 0) {
		s->pipe_fds[0] = -1;
		return err_sys(e, "cannot create a pipe");
	}
	fcntl(s->pipe_fds[0], F_SETPIPE_SZ, PIPE_BYTES);
	s->snapshot = malloc(BATCH_MAX_PAGES * PAGE_BYTES);
	s->packed = malloc(BATCH_MAX_PAGES * PAGE_BYTES);
	if (!s->snapshot || !s->packed)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a page channel");
	return codec_choice_init(&s->choice, codec, e);
}

int pagechan_stream_resume(const struct batch_out *out, const struct guest_mem *mem,
			   const char *codec, struct rate_limit *limit, struct pagechan **chan,
			   struct err *e)
{
	struct stream_chan *s = calloc(1, sizeof(*s));

	if (!s) {
		link_free(out->link);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a page channel");
	}
	s->base.ops = &stream_ops;
	s->out = *out;
	s->mem = mem;
	s->limit = limit;
	if (prepare(s, codec, e) < 0) {
		stream_free(&s->base);
		return -e->code;
	}
	plan_next(s);
	*chan = &s->base;
	return 0;
}

int pagechan_stream_open(const struct pagechan_source *src, struct link *link,
			 struct pagechan **chan, struct err *e)
{
	struct batch_out out = {.link = link};

	return pagechan_stream_resume(&out, src->mem, src->params->codec, src->limit, chan, e);
}
