/* vmm/virtio/virtqueue.c on rings in guest memory, good and hostile. */
#include <errno.h>

#include "tests/unit/cmocka_all.h"

#include "tests/unit/virtio/driver.h"

struct fixture {
	struct fake_machine f;
	struct driver g; /* its rings only: there is no device */
	struct virtq *q;
	int nr_interrupts;
	int nr_broken;
	const char *why;
	struct virtq_chain chain;
};

static void on_interrupt(void *ctx)
{
	((struct fixture *)ctx)->nr_interrupts++;
}

static void on_broken(void *ctx, const char *why)
{
	((struct fixture *)ctx)->nr_broken++;
	((struct fixture *)ctx)->why = why;
}

static const struct virtq_layout layout = {.size = DRIVER_SIZE,
					   .desc_gpa = RING_DESC(0),
					   .avail_gpa = RING_AVAIL(0),
					   .used_gpa = RING_USED(0)};

static void make(struct fixture *x, uint16_t next, bool event_idx)
{
	const struct virtq_owner owner = {on_interrupt, on_broken, x};
	struct err e = ERR_INIT;

	assert_int_equal(virtq_new(x->f.m.mem, &layout, next, event_idx, &owner, &x->q, &e), 0);
}

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));

	fake_init(&x->f);
	x->g = (struct driver){.f = &x->f};
	make(x, 0, false);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	virtq_free(x->q);
	fake_fini(&x->f);
	free(x);
	return 0;
}

/* Offers a chain at @head and expects it to break the queue. */
static void expect_broken(struct fixture *x, uint16_t head, const char *why)
{
	driver_offer(&x->g, 0, head);
	assert_int_equal(virtq_pop(x->q, &x->chain), -EPROTO);
	assert_int_equal(x->nr_broken, 1);
	assert_non_null(strstr(x->why, why));
	/* For good. */
	assert_int_equal(virtq_pop(x->q, &x->chain), -EPROTO);
	assert_false(virtq_waiting(x->q));
	assert_false(virtq_kicks_on(x->q));
	assert_int_equal(x->nr_broken, 1);
}

static void test_a_chain_comes_whole_and_in_order(void **state)
{
	struct fixture *x = *state;
	struct driver *g = &x->g;

	driver_desc(g, 0, 3, DRIVER_DATA, 16, VRING_DESC_F_NEXT, 5);
	driver_desc(g, 0, 5, DRIVER_DATA + 0x100, 4, VRING_DESC_F_NEXT, 0);
	driver_desc(g, 0, 0, DRIVER_DATA + 0x200, 512, VRING_DESC_F_WRITE, 0);
	assert_int_equal(virtq_pop(x->q, &x->chain), 0);
	driver_offer(g, 0, 3);
	assert_int_equal(virtq_pop(x->q, &x->chain), 1);
	assert_int_equal(x->chain.head, 3);
	assert_int_equal(x->chain.nr_out, 2);
	assert_int_equal(x->chain.nr_in, 1);
	assert_int_equal(x->chain.out_bytes, 20);
	assert_int_equal(x->chain.in_bytes, 512);
	assert_ptr_equal(virtq_out(&x->chain)[1].iov_base, driver_at(g, DRIVER_DATA + 0x100));
	assert_ptr_equal(virtq_in(&x->chain)[0].iov_base, driver_at(g, DRIVER_DATA + 0x200));
	assert_int_equal(virtq_in_flight(x->q), 1);
}

static void test_bytes_cross_descriptors(void **state)
{
	struct fixture *x = *state;
	struct driver *g = &x->g;
	char got[8] = "";

	driver_put(g, DRIVER_DATA, "abc", 3);
	driver_put(g, DRIVER_DATA + 0x100, "defg", 4);
	driver_desc(g, 0, 0, DRIVER_DATA, 3, VRING_DESC_F_NEXT, 1);
	driver_desc(g, 0, 1, DRIVER_DATA + 0x100, 4, VRING_DESC_F_NEXT, 2);
	driver_desc(g, 0, 2, DRIVER_DATA + 0x200, 2, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 3);
	driver_desc(g, 0, 3, DRIVER_DATA + 0x300, 9, VRING_DESC_F_WRITE, 0);
	driver_offer(g, 0, 0);
	assert_int_equal(virtq_pop(x->q, &x->chain), 1);
	assert_int_equal(virtq_read(&x->chain, 2, got, 7), 5);
	assert_string_equal(got, "cdefg");
	assert_int_equal(virtq_write(&x->chain, 1, "12345", 5), 5);
	assert_memory_equal(driver_at(g, DRIVER_DATA + 0x201), "1", 1);
	assert_memory_equal(driver_at(g, DRIVER_DATA + 0x300), "2345", 4);
	assert_int_equal(virtq_write(&x->chain, 9, "12345", 5), 2);
	assert_int_equal(virtq_read(&x->chain, 7, got, 7), 0);
}

static bool marked(struct fixture *x, uint64_t gpa)
{
	struct bitmap set;
	struct err e = ERR_INIT;
	bool is;

	assert_int_equal(bitmap_init(&set, guest_mem_nr_gfns(x->f.m.mem), &e), 0);
	guest_mem_take_marks(x->f.m.mem, &set);
	is = bitmap_test(&set, gpa >> PAGE_SHIFT);
	bitmap_fini(&set);
	return is;
}

static void test_pushed_bytes_are_dirty(void **state)
{
	struct fixture *x = *state;
	struct driver *g = &x->g;

	driver_desc(g, 0, 0, DRIVER_DATA, 0x1000, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
	driver_desc(g, 0, 1, DRIVER_DATA + 0x8000, 0x2000, VRING_DESC_F_WRITE, 0);
	driver_offer(g, 0, 0);
	assert_int_equal(virtq_pop(x->q, &x->chain), 1);
	marked(x, 0); /* forget the driver's */
	virtq_push(x->q, &x->chain, 0x1001);
	virtq_flush(x->q);
	assert_true(marked(x, DRIVER_DATA + 0x8000));
	virtq_push(x->q, &x->chain, 0x1001); /* nothing in flight: no element, but marks */
	assert_false(marked(x, RING_USED(0)));
	assert_int_equal(driver_word(g, RING_USED(0) + 2), 1);
}

static void test_nothing_is_seen_before_flush(void **state)
{
	struct fixture *x = *state;
	struct driver *g = &x->g;

	driver_desc(g, 0, 0, DRIVER_DATA, 8, VRING_DESC_F_WRITE, 0);
	driver_desc(g, 0, 1, DRIVER_DATA, 8, VRING_DESC_F_WRITE, 0);
	driver_offer(g, 0, 1);
	driver_offer(g, 0, 0);
	assert_int_equal(virtq_pop(x->q, &x->chain), 1);
	virtq_push(x->q, &x->chain, 7);
	assert_int_equal(virtq_pop(x->q, &x->chain), 1);
	virtq_push(x->q, &x->chain, 8);
	assert_false(driver_has_used(g, 0));
	assert_int_equal(x->nr_interrupts, 0);
	virtq_flush(x->q);
	assert_int_equal(x->nr_interrupts, 1);
	assert_int_equal(driver_take(g, 0).len, 7);
	assert_int_equal(driver_take(g, 0).id, 0);
	virtq_flush(x->q); /* nothing new */
	assert_int_equal(x->nr_interrupts, 1);
	marked(x, 0);
}

static void test_unpop_gives_it_again(void **state)
{
	struct fixture *x = *state;
	struct driver *g = &x->g;

	driver_desc(g, 0, 2, DRIVER_DATA, 8, VRING_DESC_F_WRITE, 0);
	driver_offer(g, 0, 2);
	assert_int_equal(virtq_pop(x->q, &x->chain), 1);
	virtq_unpop(x->q);
	assert_int_equal(virtq_in_flight(x->q), 0);
	assert_int_equal(virtq_next(x->q), 0);
	x->chain.head = 7;
	assert_int_equal(virtq_pop(x->q, &x->chain), 1);
	assert_int_equal(x->chain.head, 2);
}

static void test_indirect(void **state)
{
	struct fixture *x = *state;
	struct driver *g = &x->g;
	const struct vring_desc table[] = {
		{.addr = DRIVER_DATA, .len = 8, .flags = VRING_DESC_F_NEXT, .next = 2},
		{.addr = 1ull << 50, .len = 8},
		{.addr = DRIVER_DATA + 64, .len = 32, .flags = VRING_DESC_F_WRITE},
	};
	uint64_t odd = DRIVER_DATA + 0x1003; /* tables have no alignment */

	driver_put(g, odd, table, sizeof(table));
	driver_desc(g, 0, 4, odd, sizeof(table), VRING_DESC_F_INDIRECT, 0);
	driver_offer(g, 0, 4);
	assert_int_equal(virtq_pop(x->q, &x->chain), 1);
	assert_int_equal(x->chain.head, 4);
	assert_int_equal(x->chain.out_bytes, 8);
	assert_int_equal(x->chain.in_bytes, 32);
}

static void test_interrupt_wishes(void **state)
{
	struct fixture *x = *state;
	struct driver *g = &x->g;

	driver_put_word(g, RING_AVAIL(0), VRING_AVAIL_F_NO_INTERRUPT);
	driver_desc(g, 0, 0, DRIVER_DATA, 8, VRING_DESC_F_WRITE, 0);
	driver_offer(g, 0, 0);
	assert_int_equal(virtq_pop(x->q, &x->chain), 1);
	virtq_push(x->q, &x->chain, 8);
	virtq_flush(x->q);
	assert_int_equal(x->nr_interrupts, 0);
	virtq_kicks_off(x->q);
	assert_int_equal(driver_word(g, RING_USED(0)), VRING_USED_F_NO_NOTIFY);
	assert_false(virtq_kicks_on(x->q));
	assert_int_equal(driver_word(g, RING_USED(0)), 0);
	driver_offer(g, 0, 0);
	assert_true(virtq_kicks_on(x->q));
}

static void one(struct fixture *x)
{
	driver_offer(&x->g, 0, 0);
	assert_int_equal(virtq_pop(x->q, &x->chain), 1);
	virtq_push(x->q, &x->chain, 8);
	virtq_flush(x->q);
}

static void test_event_index(void **state)
{
	struct fixture *x = *state;
	struct driver *g = &x->g;
	uint64_t used_event = RING_AVAIL(0) + 4 + 2 * DRIVER_SIZE;
	uint64_t avail_event = RING_USED(0) + 4 + 8 * DRIVER_SIZE;

	virtq_free(x->q);
	make(x, 0xfffe, true); /* across the wrap */
	g->avail[0] = 0xfffe;
	driver_put_word(g, used_event, 0xffff);
	driver_desc(g, 0, 0, DRIVER_DATA, 8, VRING_DESC_F_WRITE, 0);
	one(x);
	assert_int_equal(x->nr_interrupts, 0);
	one(x); /* uses 0xffff: the index passes it */
	assert_int_equal(x->nr_interrupts, 1);
	one(x);
	assert_int_equal(x->nr_interrupts, 1);
	assert_false(virtq_kicks_on(x->q));
	assert_int_equal(driver_word(g, avail_event), 1);
	assert_int_equal(virtq_next(x->q), 1);
}

/* ---- Hostile rings ---- */

static void test_loop(void **state)
{
	struct driver *g = &((struct fixture *)*state)->g;

	driver_desc(g, 0, 0, DRIVER_DATA, 8, VRING_DESC_F_NEXT, 1);
	driver_desc(g, 0, 1, DRIVER_DATA, 8, VRING_DESC_F_NEXT, 0);
	expect_broken(*state, 0, "longer than any queue");
}

static void test_outside_ram(void **state)
{
	struct driver *g = &((struct fixture *)*state)->g;

	driver_desc(g, 0, 0, FAKE_MEMORY_BYTES - 4, 8, 0, 0);
	expect_broken(*state, 0, "not RAM");
}

static void test_address_that_wraps(void **state)
{
	struct driver *g = &((struct fixture *)*state)->g;

	driver_desc(g, 0, 0, UINT64_MAX - 3, 8, VRING_DESC_F_WRITE, 0);
	expect_broken(*state, 0, "not RAM");
}

static void test_empty_descriptor(void **state)
{
	struct driver *g = &((struct fixture *)*state)->g;

	driver_desc(g, 0, 0, DRIVER_DATA, 0, 0, 0);
	expect_broken(*state, 0, "or of none");
}

static void test_head_outside(void **state)
{
	expect_broken(*state, DRIVER_SIZE, "outside its table");
}

static void test_next_outside(void **state)
{
	struct driver *g = &((struct fixture *)*state)->g;

	driver_desc(g, 0, 0, DRIVER_DATA, 8, VRING_DESC_F_NEXT, DRIVER_SIZE);
	expect_broken(*state, 0, "outside its table");
}

static void test_out_after_in(void **state)
{
	struct driver *g = &((struct fixture *)*state)->g;

	driver_desc(g, 0, 0, DRIVER_DATA, 8, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
	driver_desc(g, 0, 1, DRIVER_DATA, 8, 0, 0);
	expect_broken(*state, 0, "after a writable");
}

static void test_index_beyond_the_ring(void **state)
{
	struct fixture *x = *state;

	x->g.avail[0] = DRIVER_SIZE;
	expect_broken(x, 0, "beyond the ring");
}

static void test_indirect_in_indirect(void **state)
{
	struct driver *g = &((struct fixture *)*state)->g;
	const struct vring_desc inner = {
		.addr = DRIVER_DATA, .len = 16, .flags = VRING_DESC_F_INDIRECT};

	driver_put(g, DRIVER_DATA, &inner, sizeof(inner));
	driver_desc(g, 0, 0, DRIVER_DATA, 16, VRING_DESC_F_INDIRECT, 0);
	expect_broken(*state, 0, "inside an indirect");
}

static void test_indirect_that_goes_on(void **state)
{
	struct driver *g = &((struct fixture *)*state)->g;

	driver_desc(g, 0, 0, DRIVER_DATA, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
	expect_broken(*state, 0, "goes on");
}

static void test_indirect_of_odd_length(void **state)
{
	struct driver *g = &((struct fixture *)*state)->g;

	driver_desc(g, 0, 0, DRIVER_DATA, 17, VRING_DESC_F_INDIRECT, 0);
	expect_broken(*state, 0, "impossible length");
}

static void test_indirect_outside_ram(void **state)
{
	struct driver *g = &((struct fixture *)*state)->g;

	driver_desc(g, 0, 0, FAKE_MEMORY_BYTES, 16, VRING_DESC_F_INDIRECT, 0);
	expect_broken(*state, 0, "not in RAM");
}

/* A broken queue takes no elements, yet what was written to memory stays dirty. */
static void test_push_on_a_broken_queue(void **state)
{
	struct fixture *x = *state;
	struct driver *g = &x->g;
	struct virtq_chain held;

	driver_desc(g, 0, 1, DRIVER_DATA, 8, VRING_DESC_F_WRITE, 0);
	driver_offer(g, 0, 1);
	assert_int_equal(virtq_pop(x->q, &held), 1);
	expect_broken(x, 77, "outside its table");
	marked(x, 0);
	virtq_push(x->q, &held, 8);
	virtq_flush(x->q);
	assert_true(marked(x, DRIVER_DATA));
	assert_false(driver_has_used(g, 0));
	assert_int_equal(x->nr_interrupts, 0);
}

static void test_rings_that_cannot_be(void **state)
{
	static const struct virtq_layout bad[] = {
		{0, RING_DESC(0), RING_AVAIL(0), RING_USED(0)},
		{3, RING_DESC(0), RING_AVAIL(0), RING_USED(0)},
		{512, RING_DESC(0), RING_AVAIL(0), RING_USED(0)},
		{8, RING_DESC(0) + 8, RING_AVAIL(0), RING_USED(0)},
		{8, RING_DESC(0), RING_AVAIL(0) + 1, RING_USED(0)},
		{8, RING_DESC(0), RING_AVAIL(0), RING_USED(0) + 2},
		{8, FAKE_MEMORY_BYTES - 112, RING_AVAIL(0), RING_USED(0)},
		{8, RING_DESC(0), FAKE_MEMORY_BYTES - 20, RING_USED(0)},
		{8, RING_DESC(0), RING_AVAIL(0), FAKE_MEMORY_BYTES - 68},
		{8, UINT64_MAX - 15, RING_AVAIL(0), RING_USED(0)},
	};
	struct fixture *x = *state;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct err e = ERR_INIT;

		assert_true(virtq_check(x->f.m.mem, &bad[i], &e) < 0);
		assert_int_equal(e.kind, ERR_STREAM);
	}
}

#define WITH_QUEUE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_QUEUE(test_a_chain_comes_whole_and_in_order),
		WITH_QUEUE(test_bytes_cross_descriptors),
		WITH_QUEUE(test_pushed_bytes_are_dirty),
		WITH_QUEUE(test_nothing_is_seen_before_flush),
		WITH_QUEUE(test_unpop_gives_it_again),
		WITH_QUEUE(test_indirect),
		WITH_QUEUE(test_interrupt_wishes),
		WITH_QUEUE(test_event_index),
		WITH_QUEUE(test_loop),
		WITH_QUEUE(test_outside_ram),
		WITH_QUEUE(test_address_that_wraps),
		WITH_QUEUE(test_empty_descriptor),
		WITH_QUEUE(test_head_outside),
		WITH_QUEUE(test_next_outside),
		WITH_QUEUE(test_out_after_in),
		WITH_QUEUE(test_index_beyond_the_ring),
		WITH_QUEUE(test_indirect_in_indirect),
		WITH_QUEUE(test_indirect_that_goes_on),
		WITH_QUEUE(test_indirect_of_odd_length),
		WITH_QUEUE(test_indirect_outside_ram),
		WITH_QUEUE(test_push_on_a_broken_queue),
		WITH_QUEUE(test_rings_that_cannot_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
