#include "proto/batch.h"

#include <errno.h>
#include <stdbool.h>

static bool has_runs(uint8_t kind)
{
	return kind == BATCH_PAGES || kind == BATCH_PLACED || kind == BATCH_WINDOW;
}

int batch_check_header(const struct batch_header *h, uint64_t want_sequence, struct err *e)
{
	if (h->magic != BATCH_MAGIC)
		return err_set(e, ERR_STREAM, EPROTO, "a batch begins with 0x%08x", h->magic);
	if (h->sequence != want_sequence)
		return err_set(e, ERR_STREAM, EPROTO, "batch %llu came where %llu was due",
			       (unsigned long long)h->sequence, (unsigned long long)want_sequence);
	if (h->kind < BATCH_PAGES || h->kind >= NR_BATCH_KINDS)
		return err_set(e, ERR_STREAM, EPROTO, "batch kind %u is unknown", h->kind);
	if (h->codec >= NR_BATCH_CODECS)
		return err_set(e, ERR_STREAM, EPROTO, "batch codec %u is unknown", h->codec);
	if (h->nr_runs > BATCH_MAX_RUNS || has_runs(h->kind) != (h->nr_runs > 0))
		return err_set(e, ERR_STREAM, EPROTO, "a batch of kind %u with %u runs", h->kind,
			       h->nr_runs);
	if (h->payload_bytes > BATCH_MAX_PAGES * BATCH_PAGE_BYTES ||
	    (h->kind != BATCH_PAGES && (h->payload_bytes || h->codec != BATCH_CODEC_NONE)))
		return err_set(e, ERR_STREAM, EPROTO, "a batch of kind %u with %u bytes of payload",
			       h->kind, h->payload_bytes);
	return 0;
}

/* The two kinds of run that a batch of kind @batch may have. */
static bool run_fits(uint8_t batch, uint8_t run)
{
	return batch == BATCH_WINDOW ? run == RUN_PIN || run == RUN_UNPIN
				     : run == RUN_DATA || run == RUN_ZERO;
}

static int check_run(const struct batch_run *run, uint8_t batch, uint32_t channel,
		     uint32_t nr_channels, struct err *e)
{
	if (!run_fits(batch, run->kind))
		return err_set(e, ERR_STREAM, EPROTO, "run kind %u in a batch of kind %u",
			       run->kind, batch);
	if (run->gfn >= BATCH_MAX_GFN)
		return err_set(e, ERR_STREAM, EPROTO, "gfn 0x%llx is beyond any guest's memory",
			       (unsigned long long)run->gfn);
	if (!run->nr_pages || run->gfn % CHUNK_PAGES + run->nr_pages > CHUNK_PAGES)
		return err_set(e, ERR_STREAM, EPROTO,
			       "a run of %u pages at gfn 0x%llx leaves its chunk", run->nr_pages,
			       (unsigned long long)run->gfn);
	if (batch_channel_of(run->gfn, nr_channels) != channel)
		return err_set(e, ERR_STREAM, EPROTO, "gfn 0x%llx does not belong on channel %u",
			       (unsigned long long)run->gfn, channel);
	return 0;
}

int batch_check_runs(const struct batch_header *h, const struct batch_run *runs, uint32_t channel,
		     uint32_t nr_channels, uint32_t *nr_data_pages, struct err *e)
{
	uint32_t pages = 0;
	uint32_t raw;

	for (uint32_t i = 0; i < h->nr_runs; i++) {
		if (check_run(&runs[i], h->kind, channel, nr_channels, e) < 0)
			return -e->code;
		if (runs[i].kind == RUN_DATA)
			pages += runs[i].nr_pages;
	}
	raw = pages * BATCH_PAGE_BYTES;
	if (pages > BATCH_MAX_PAGES)
		return err_set(e, ERR_STREAM, EPROTO, "a batch of %u data pages", pages);
	if (h->kind == BATCH_PAGES &&
	    (h->codec == BATCH_CODEC_NONE ? h->payload_bytes != raw
					  : !h->payload_bytes || h->payload_bytes >= raw))
		return err_set(e, ERR_STREAM, EPROTO, "%u bytes of payload for %u data pages",
			       h->payload_bytes, pages);
	*nr_data_pages = pages;
	return 0;
}
