#include "path.h"

#include <stdlib.h>
#include <string.h>

#define QUEUE_NS              50000000
#define QUEUE_MIN_BYTES       131072 /* two of the largest frames: a slow path must pass those too */
#define UNLIMITED_QUEUE_BYTES (4u << 20)
#define BURST_NS              1000000 /* poll()'s oversleep must not cost rate */

void path_init(struct path *p)
{
	*p = (struct path){0};
	p->last = &p->first;
}

static struct frame *take_first(struct path *p)
{
	struct frame *f = p->first;

	if (f == NULL)
		return NULL;
	p->first = f->next;
	if (p->first == NULL)
		p->last = &p->first;
	p->queued_bytes -= f->bytes;
	return f;
}

void path_cut(struct path *p, bool cut)
{
	struct frame *f;

	p->cut = cut;
	while (cut && (f = take_first(p)) != NULL) {
		p->nr_dropped++;
		free(f);
	}
}

void path_rate(struct path *p, uint64_t rate)
{
	p->rate = rate;
}

static uint64_t queue_limit(const struct path *p)
{
	uint64_t bytes = (uint64_t)((double)p->rate * QUEUE_NS / 1e9);

	if (p->rate == 0)
		return UNLIMITED_QUEUE_BYTES;
	return bytes > QUEUE_MIN_BYTES ? bytes : QUEUE_MIN_BYTES;
}

void path_push(struct path *p, const void *data, uint32_t bytes, uint64_t now_ns)
{
	struct frame *f;

	if (p->cut || p->queued_bytes + bytes > queue_limit(p) ||
	    (f = malloc(sizeof(*f) + bytes)) == NULL) {
		p->nr_dropped++;
		return;
	}
	if (p->first == NULL && p->free_at_ns < now_ns)
		p->free_at_ns = now_ns;
	f->next = NULL;
	f->bytes = bytes;
	memcpy(f->data, data, bytes);
	*p->last = f;
	p->last = &f->next;
	p->queued_bytes += bytes;
}

static uint64_t time_of(const struct path *p, const struct frame *f)
{
	return p->rate == 0 ? 0 : (uint64_t)((double)f->bytes * 1e9 / (double)p->rate);
}

struct frame *path_pop(struct path *p, uint64_t now_ns)
{
	struct frame *f;

	if (path_due_ns(p) > now_ns || (f = take_first(p)) == NULL)
		return NULL;
	p->free_at_ns += time_of(p, f); /* not now_ns: a late poll() costs no rate */
	return f;
}

uint64_t path_due_ns(const struct path *p)
{
	return p->first == NULL ? UINT64_MAX : p->free_at_ns + time_of(p, p->first);
}
