#include "migration/digest.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "migration/zero_page.h"
#include "proto/batch.h"

#define MAX_THREADS 8

struct share {
	const struct guest_mem *mem;
	uint32_t index;
	uint32_t nr_shares;
	uint64_t low;
	uint64_t high;
};

/* Addition does not care about order, so threads need not agree on one; the seed ties each page to
 * its address. Zero pages count as nothing, like memory that was never touched. */
static void add_data(struct share *s, uint64_t start, uint64_t stop)
{
	for (uint64_t at = start / PAGE_BYTES * PAGE_BYTES; at < stop; at += PAGE_BYTES) {
		const void *page = guest_mem_at(s->mem, at, PAGE_BYTES);
		XXH128_hash_t h;

		if (!page || page_is_zero(page))
			continue;
		h = XXH3_128bits_withSeed(page, PAGE_BYTES, at / PAGE_BYTES);
		s->low += h.low64;
		s->high += h.high64;
	}
}

static void *share_main(void *arg)
{
	struct share *s = arg;
	const uint64_t stripe = 16 * CHUNK_PAGES * PAGE_BYTES;
	uint64_t end = guest_mem_nr_gfns(s->mem) * PAGE_BYTES;
	struct mem_extent seen = {0};

	for (uint64_t from = stripe * s->index; from < end; from += stripe * s->nr_shares) {
		uint64_t to = from + stripe < end ? from + stripe : end;
		uint64_t start = from;
		uint64_t stop;

		while (guest_mem_next_data(s->mem, &seen, start, to, &start, &stop)) {
			add_data(s, start, stop);
			start = stop;
		}
	}
	return NULL;
}

void digest_ram(const struct guest_mem *mem, struct digest *out)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t nr = cpus < 1 ? 1 : cpus > MAX_THREADS ? MAX_THREADS : (uint32_t)cpus;
	struct share shares[MAX_THREADS];
	pthread_t threads[MAX_THREADS];
	bool started[MAX_THREADS] = {false};

	for (uint32_t i = 0; i < nr; i++)
		shares[i] = (struct share){.mem = mem, .index = i, .nr_shares = nr};
	for (uint32_t i = 1; i < nr; i++)
		started[i] = pthread_create(&threads[i], NULL, share_main, &shares[i]) == 0;
	for (uint32_t i = 0; i < nr; i++) {
		if (started[i])
			pthread_join(threads[i], NULL);
		else
			share_main(&shares[i]);
		out->ram_low += shares[i].low;
		out->ram_high += shares[i].high;
	}
}

int digest_make(struct vm *vm, const uint8_t *state, size_t state_len, struct digest *out,
		struct err *e)
{
	struct buf canonical = BUF_INIT;
	XXH128_hash_t h;

	memset(out, 0, sizeof(*out));
	if (vm_state_canonical(state, state_len, &canonical, e) < 0) {
		buf_fini(&canonical);
		return -e->code;
	}
	h = XXH3_128bits(canonical.data, canonical.len);
	buf_fini(&canonical);
	out->state_low = h.low64;
	out->state_high = h.high64;
	digest_ram(vm_mem(vm), out);
	return vm_nr_disks(vm) ? digest_disks(vm, out, e) : 0;
}

struct differences {
	char list[64];
	int nr;
};

static void note(struct differences *d, bool differs, const char *what)
{
	size_t len = strlen(d->list);

	if (!differs)
		return;
	snprintf(d->list + len, sizeof(d->list) - len, "%s%s", len ? " and " : "", what);
	d->nr++;
}

int digest_compare(const struct digest *source, const struct digest *destination, struct err *e)
{
	const struct digest *s = source;
	const struct digest *t = destination;
	struct differences d = {.nr = 0};

	note(&d, s->ram_low != t->ram_low || s->ram_high != t->ram_high, "memory");
	note(&d, s->state_low != t->state_low || s->state_high != t->state_high, "device state");
	note(&d, s->disk_low != t->disk_low || s->disk_high != t->disk_high, "disk content");
	if (!d.nr)
		return 0;
	return err_set(e, ERR_STATE, EBADMSG,
		       "verification failed: %s at the destination differ%s from the source's",
		       d.list, d.nr == 1 ? "s" : "");
}
