#include "vmm/virtio/virtqueue.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

/* Ring sizes; 2.7. With EVENT_IDX a 16-bit event index follows either ring; it is always counted,
 * because a driver that does not use it reserves it too (2.7.6, 2.7.8: "only if", but Linux and
 * everybody else lay rings out with it). */
#define DESC_BYTES(n)  (16ull * (n))
#define AVAIL_BYTES(n) (4 + 2ull * (n) + 2)
#define USED_BYTES(n)  (4 + 8ull * (n) + 2)

struct virtq {
	/* immutable after new */
	struct guest_mem *mem;
	struct virtq_owner owner;
	struct virtq_layout at;
	uint16_t size;
	bool event_idx;
	/* guest memory: hostile, changes at any moment */
	const uint8_t *desc;   /* struct vring_desc[size] */
	const uint16_t *avail; /* flags, idx, ring[size], used_event */
	uint8_t *used;         /* flags, idx (16 bits each), ring[size], avail_event */

	/* the I/O thread's */
	bool broken;
	uint16_t next_avail; /* of the next pop */
	uint16_t seen_avail; /* the driver's index when it was last read */
	uint16_t next_used;  /* of the next push */
	uint16_t flushed;    /* what the driver has been shown */
};

/* ---- The ring's words. Guest memory is little-endian, as this host is (x86). ---- */

static uint16_t load(const uint16_t *from)
{
	return __atomic_load_n(from, __ATOMIC_RELAXED);
}

static uint16_t driver_index(const struct virtq *q)
{
	return __atomic_load_n(&q->avail[1], __ATOMIC_ACQUIRE);
}

static uint16_t used_event(const struct virtq *q)
{
	return load(&q->avail[2 + q->size]);
}

/* A 16-bit word of the used ring, and the page marked after the write. */
static void store_used(struct virtq *q, uint64_t offset, uint16_t value)
{
	__atomic_store_n((uint16_t *)(void *)(q->used + offset), value, __ATOMIC_RELEASE);
	guest_mem_mark(q->mem, q->at.used_gpa + offset, sizeof(value));
}

static uint64_t avail_event_offset(const struct virtq *q)
{
	return 4 + 8ull * q->size;
}

static int break_queue(struct virtq *q, const char *why)
{
	if (!q->broken) {
		q->broken = true;
		q->owner.broken(q->owner.ctx, why);
	}
	return -EPROTO;
}

/* ---- Making one ---- */

static int check_part(const struct guest_mem *mem, const char *what, uint64_t gpa, uint64_t bytes,
		      uint64_t align, struct err *e)
{
	if (gpa % align == 0 && guest_mem_contains(mem, gpa, bytes))
		return 0;
	return err_set(e, ERR_STREAM, EFAULT,
		       "the %s at 0x%" PRIx64 " (%" PRIu64 " bytes) is not aligned or not all RAM",
		       what, gpa, bytes);
}

int virtq_check(const struct guest_mem *mem, const struct virtq_layout *at, struct err *e)
{
	uint32_t n = at->size;
	int ret;

	if (n == 0 || n > VIRTQ_MAX_SIZE || (n & (n - 1)))
		return err_set(e, ERR_STREAM, EINVAL, "a ring of %u descriptors", n);
	ret = check_part(mem, "descriptor table", at->desc_gpa, DESC_BYTES(n), 16, e);
	if (ret == 0)
		ret = check_part(mem, "available ring", at->avail_gpa, AVAIL_BYTES(n), 2, e);
	if (ret == 0)
		ret = check_part(mem, "used ring", at->used_gpa, USED_BYTES(n), 4, e);
	return ret;
}

int virtq_new(struct guest_mem *mem, const struct virtq_layout *at, uint16_t next, bool event_idx,
	      const struct virtq_owner *owner, struct virtq **out, struct err *e)
{
	struct virtq *q;
	int ret = virtq_check(mem, at, e);

	if (ret < 0)
		return ret;
	q = calloc(1, sizeof(*q));
	if (!q)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a virtqueue");
	*q = (struct virtq){.mem = mem,
			    .owner = *owner,
			    .at = *at,
			    .size = (uint16_t)at->size,
			    .event_idx = event_idx,
			    .next_avail = next,
			    .seen_avail = next,
			    .next_used = next,
			    .flushed = next};
	q->desc = guest_mem_at(mem, at->desc_gpa, DESC_BYTES(at->size));
	q->avail = guest_mem_at(mem, at->avail_gpa, AVAIL_BYTES(at->size));
	q->used = guest_mem_at_rw(mem, at->used_gpa, USED_BYTES(at->size));
	*out = q;
	return 0;
}

void virtq_free(struct virtq *q)
{
	free(q);
}

/* ---- Popping: a chain of descriptors, none of which is believed ---- */

/* A table of descriptors: the queue's own, or an indirect one. */
struct table {
	const uint8_t *desc; /* of any alignment, if indirect */
	uint32_t nr;
	bool indirect;
};

static const char *add_segment(struct virtq *q, const struct vring_desc *d, struct virtq_chain *c)
{
	bool in = d->flags & VRING_DESC_F_WRITE;
	uint32_t *bytes = in ? &c->in_bytes : &c->out_bytes;
	uint32_t nr = (uint32_t)c->nr_out + c->nr_in;
	void *at = guest_mem_at_rw(q->mem, d->addr, d->len);

	if (!in && c->nr_in)
		return "a readable descriptor after a writable one";
	if (nr == VIRTQ_MAX_SIZE)
		return "a chain longer than any queue";
	if (!at || d->len == 0)
		return "a descriptor of memory that is not RAM, or of none";
	if (d->len > UINT32_MAX - *bytes)
		return "a chain of 4 GiB or more";
	c->iov[nr] = (struct iovec){.iov_base = at, .iov_len = d->len};
	*bytes += d->len;
	if (in)
		c->nr_in++;
	else
		c->nr_out++;
	return NULL;
}

/* 2.7.5.3. An indirect descriptor ends its chain and points at the table that has the chain. */
static const char *enter_indirect(struct virtq *q, const struct vring_desc *d, struct table *t)
{
	if (t->indirect)
		return "an indirect descriptor inside an indirect table";
	if (d->flags & VRING_DESC_F_NEXT)
		return "an indirect descriptor that goes on";
	if (d->len == 0 || d->len % sizeof(*d) || d->len / sizeof(*d) > UINT16_MAX + 1u)
		return "an indirect table of an impossible length";
	*t = (struct table){.desc = guest_mem_at(q->mem, d->addr, d->len),
			    .nr = d->len / (uint32_t)sizeof(*d),
			    .indirect = true};
	return t->desc ? NULL : "an indirect table that is not in RAM";
}

/* Every turn adds a segment, of which there is a limit, or enters the one indirect table: a loop of
 * descriptors ends as a chain that is too long. */
static const char *walk(struct virtq *q, uint16_t head, struct virtq_chain *c)
{
	struct table t = {.desc = q->desc, .nr = q->size};
	const char *wrong = NULL;
	uint32_t i = head;

	while (!wrong) {
		struct vring_desc d;

		if (i >= t.nr)
			return "a descriptor index outside its table";
		/* Once: the driver may rewrite it meanwhile. */
		memcpy(&d, t.desc + i * sizeof(d), sizeof(d));
		if (d.flags & VRING_DESC_F_INDIRECT) {
			/* Offered always, so no need to ask whether it was negotiated. */
			wrong = enter_indirect(q, &d, &t);
			i = 0;
			continue;
		}
		wrong = add_segment(q, &d, c);
		if (wrong || !(d.flags & VRING_DESC_F_NEXT))
			return wrong;
		i = d.next;
	}
	return wrong;
}

bool virtq_waiting(struct virtq *q)
{
	if (q->broken)
		return false;
	if (q->seen_avail == q->next_avail)
		q->seen_avail = driver_index(q);
	return q->seen_avail != q->next_avail;
}

int virtq_pop(struct virtq *q, struct virtq_chain *c)
{
	const char *wrong;

	if (q->broken)
		return -EPROTO;
	if (!virtq_waiting(q))
		return 0;
	/* Waiting and in flight together are never more than the ring holds. */
	if ((uint16_t)(q->seen_avail - q->next_used) > q->size)
		return break_queue(q, "an available index beyond the ring");
	/* Not all of *c, which is 4 KiB. */
	c->head = load(&q->avail[2 + q->next_avail % q->size]);
	c->nr_out = c->nr_in = 0;
	c->out_bytes = c->in_bytes = 0;
	wrong = walk(q, c->head, c);
	if (wrong)
		return break_queue(q, wrong);
	q->next_avail++;
	return 1;
}

void virtq_unpop(struct virtq *q)
{
	if (!q->broken && virtq_in_flight(q))
		q->next_avail--;
}

/* ---- Pushing ---- */

static void mark_written(struct virtq *q, const struct virtq_chain *c, uint32_t written)
{
	const uint8_t *base = guest_mem_at(q->mem, 0, 0);
	const struct iovec *in = c->iov + c->nr_out;

	for (uint32_t i = 0; i < c->nr_in && written; i++) {
		uint64_t gpa = (uint64_t)((const uint8_t *)in[i].iov_base - base);
		uint32_t len = written < in[i].iov_len ? written : (uint32_t)in[i].iov_len;

		guest_mem_mark(q->mem, gpa, len);
		written -= len;
	}
}

void virtq_push(struct virtq *q, const struct virtq_chain *c, uint32_t written)
{
	uint64_t offset = 4 + 8ull * (q->next_used % q->size);
	struct vring_used_elem elem = {.id = c->head, .len = written};

	/* What was written was written, whether or not the ring is still to be believed. */
	mark_written(q, c, written);
	if (q->broken || !virtq_in_flight(q))
		return;
	memcpy(q->used + offset, &elem, sizeof(elem));
	guest_mem_mark(q->mem, q->at.used_gpa + offset, sizeof(elem));
	q->next_used++;
}

/* 2.7.7.2 and 2.7.10: did the index that the driver waits for come by? */
static bool wants_interrupt(const struct virtq *q, uint16_t before)
{
	if (!q->event_idx)
		return !(load(&q->avail[0]) & VRING_AVAIL_F_NO_INTERRUPT);
	return vring_need_event(used_event(q), q->next_used, before);
}

void virtq_flush(struct virtq *q)
{
	uint16_t before = q->flushed;

	if (q->broken || q->next_used == before)
		return;
	store_used(q, 2, q->next_used);
	q->flushed = q->next_used;
	/* The index must be out before the driver's wish is read: it writes the wish and then looks
	 * at the index, and one of the two must see the other. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (wants_interrupt(q, before))
		q->owner.interrupt(q->owner.ctx);
}

/* ---- Kicks ---- */

void virtq_kicks_off(struct virtq *q)
{
	/* With an event index there is nothing to write: the driver kicks when it passes the one
	 * written last, which is behind it. */
	if (!q->broken && !q->event_idx)
		store_used(q, 0, VRING_USED_F_NO_NOTIFY);
}

bool virtq_kicks_on(struct virtq *q)
{
	if (q->broken)
		return false;
	if (q->event_idx)
		store_used(q, avail_event_offset(q), q->next_avail);
	else
		store_used(q, 0, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* as in virtq_flush() */
	return virtq_waiting(q);
}

/* ---- Facts ---- */

uint32_t virtq_in_flight(const struct virtq *q)
{
	return (uint16_t)(q->next_avail - q->next_used);
}

uint16_t virtq_next(const struct virtq *q)
{
	return q->next_used;
}

uint32_t virtq_size(const struct virtq *q)
{
	return q->size;
}

/* ---- The bytes of a chain ---- */

/* How much of @iov there is from *@offset on, at most @want; 0 passes it by. */
static size_t part(const struct iovec *iov, size_t *offset, size_t want, uint8_t **at)
{
	size_t has = iov->iov_len;

	if (*offset >= has) {
		*offset -= has;
		return 0;
	}
	*at = (uint8_t *)iov->iov_base + *offset;
	has -= *offset;
	*offset = 0;
	return has < want ? has : want;
}

size_t virtq_read(const struct virtq_chain *c, size_t offset, void *data, size_t len)
{
	size_t done = 0;

	for (uint32_t i = 0; i < c->nr_out && done < len; i++) {
		uint8_t *at;
		size_t n = part(&c->iov[i], &offset, len - done, &at);

		if (n)
			memcpy((uint8_t *)data + done, at, n);
		done += n;
	}
	return done;
}

size_t virtq_write(const struct virtq_chain *c, size_t offset, const void *data, size_t len)
{
	size_t done = 0;

	for (uint32_t i = 0; i < c->nr_in && done < len; i++) {
		uint8_t *at;
		size_t n = part(&c->iov[c->nr_out + i], &offset, len - done, &at);

		if (n)
			memcpy(at, (const uint8_t *)data + done, n);
		done += n;
	}
	return done;
}
