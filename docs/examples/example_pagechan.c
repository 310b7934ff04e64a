/*
 * Example: a page channel (docs/extending.md). `copy` puts batches straight into another guest's
 * memory in the same process: a transport without a wire.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/pagechan.h"
#include "tests/unit/cmocka_all.h"

struct copy_chan {
	struct pagechan base; /* first */
	const struct guest_mem *from;
	struct guest_mem *to;
};

static struct copy_chan *self(struct pagechan *c)
{
	return (struct copy_chan *)c;
}

static int copy_run(struct copy_chan *c, const struct batch_run *run, struct err *e)
{
	uint64_t gpa = run->gfn * PAGE_BYTES;
	uint64_t len = run->nr_pages * PAGE_BYTES;
	void *to = guest_mem_at_rw(c->to, gpa, len);

	if (!to)
		return err_set(e, ERR_STREAM, EPROTO, "gfn 0x%llx is not RAM there",
			       (unsigned long long)run->gfn);
	if (run->kind == RUN_ZERO)
		memset(to, 0, len);
	else
		memcpy(to, guest_mem_at(c->from, gpa, len), len);
	return 0;
}

static int copy_send(struct pagechan *chan, const struct page_batch *b, struct send_stats *stats,
		     struct err *e)
{
	struct copy_chan *c = self(chan);

	for (uint32_t i = 0; i < b->nr_runs; i++)
		if (copy_run(c, &b->runs[i], e) < 0)
			return -e->code;
	/* Zero pages are counted by the sender. */
	stats->raw_pages += b->nr_data_pages;
	stats->wire_bytes += b->nr_data_pages * PAGE_BYTES;
	return 0;
}

/* send() has copied everything already: nothing is under way. */
static int copy_barrier(struct pagechan *chan, uint32_t round, struct send_stats *stats,
			struct err *e)
{
	(void)chan;
	(void)round;
	(void)stats;
	(void)e;
	return 0;
}

static void copy_free(struct pagechan *chan)
{
	free(self(chan));
}

static const struct pagechan_ops copy_ops = {
	.name = "copy",
	.send = copy_send,
	.barrier = copy_barrier,
	.free = copy_free,
};

static int pagechan_copy_new(const struct guest_mem *from, struct guest_mem *to,
			     struct pagechan **out, struct err *e)
{
	struct copy_chan *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a page channel");
	c->base = (struct pagechan){.ops = &copy_ops, .batch_pages = BATCH_MAX_PAGES};
	c->from = from;
	c->to = to;
	*out = &c->base;
	return 0;
}

/* ---- The test: no KVM is needed, guest memory is plain memory ---- */

#define MEM_BYTES (4ull << 20)

static void test_pages_arrive(void **state)
{
	struct page_batch b = {.round = 1, .nr_runs = 2, .nr_data_pages = 2};
	struct send_stats stats = {0};
	struct guest_mem *from;
	struct guest_mem *to;
	struct pagechan *chan = NULL;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(guest_mem_new(MEM_BYTES, &from, &e), 0);
	assert_int_equal(guest_mem_new(MEM_BYTES, &to, &e), 0);
	memset(guest_mem_at_rw(from, 5 * PAGE_BYTES, 2 * PAGE_BYTES), 0xab, 2 * PAGE_BYTES);
	memset(guest_mem_at_rw(to, 9 * PAGE_BYTES, PAGE_BYTES), 0xcd, PAGE_BYTES);
	b.runs[0] = (struct batch_run){.gfn = 5, .nr_pages = 2, .kind = RUN_DATA};
	b.runs[1] = (struct batch_run){.gfn = 9, .nr_pages = 1, .kind = RUN_ZERO};

	assert_int_equal(pagechan_copy_new(from, to, &chan, &e), 0);
	assert_int_equal(chan->ops->send(chan, &b, &stats, &e), 0);
	assert_int_equal(chan->ops->barrier(chan, 1, &stats, &e), 0);
	assert_memory_equal(guest_mem_at(to, 0, MEM_BYTES), guest_mem_at(from, 0, MEM_BYTES),
			    MEM_BYTES);
	assert_int_equal(stats.raw_pages, 2);

	chan->ops->free(chan);
	guest_mem_free(from);
	guest_mem_free(to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_arrive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
