/* vmm/virtio/balloon.c: what leaves memory, what QMP is told, and that all of it moves. */
#include <errno.h>

#include "tests/unit/cmocka_all.h"

#include <linux/virtio_balloon.h>

#include "tests/unit/virtio/driver.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/kinds.h"

#define NR_QUEUES 4
#define STATS     2u
#define REPORTING 3u
#define PAGE(gpa) ((gpa) >> PAGE_SHIFT)

static int setup(void **state)
{
	return driver_setup(state, virtio_balloon_new, 0);
}

static uint32_t config(struct driver *g, uint32_t offset)
{
	return driver_reg(g, VIRTIO_MMIO_CONFIG + offset);
}

static void touch(struct driver *g, uint64_t gpa)
{
	static const uint8_t page[PAGE_BYTES] = {1, 2, 3};

	driver_put(g, gpa, page, sizeof(page));
}

static bool present(struct driver *g, uint64_t gpa)
{
	uint64_t start, stop;

	return guest_mem_next_data(g->f->m.mem, NULL, gpa, gpa + PAGE_BYTES, &start, &stop);
}

static void put_pfns(struct driver *g, uint32_t queue, const uint32_t *pfns, uint32_t nr)
{
	driver_put(g, DRIVER_DATA, pfns, nr * sizeof(*pfns));
	driver_desc(g, queue, 0, DRIVER_DATA, nr * (uint32_t)sizeof(*pfns), 0, 0);
	driver_offer(g, queue, 0);
	driver_kick(g, queue);
	assert_int_equal(driver_take(g, queue).id, 0);
}

static void test_inflated_pages_leave_memory(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;
	const uint64_t at = 0x800000;
	/* A run, one alone, one that is not RAM. */
	const uint32_t pfns[] = {PAGE(at), PAGE(at) + 1, PAGE(at) + 2, PAGE(at) + 7, 0xfffffff0};
	struct bitmap marks;
	struct err e = ERR_INIT;

	driver_start(g, NR_QUEUES);
	for (uint64_t i = 0; i < 9; i++)
		touch(g, at + i * PAGE_BYTES);
	guest_mem_drop_marks(g->f->m.mem);
	put_pfns(g, 0, pfns, 5);
	for (uint64_t i = 0; i < 9; i++)
		assert_int_equal(present(g, at + i * PAGE_BYTES), i > 2 && i != 7);
	assert_int_equal(bitmap_init(&marks, guest_mem_nr_gfns(g->f->m.mem), &e), 0);
	guest_mem_take_marks(g->f->m.mem, &marks);
	assert_true(bitmap_test(&marks, PAGE(at) + 2));
	assert_false(bitmap_test(&marks, PAGE(at) + 3));
	bitmap_fini(&marks);
	assert_false(driver_broken(g));
	put_pfns(g, 1, pfns, 5);
	assert_int_equal(*(const uint8_t *)driver_at(g, at), 0);
}

static void report(struct driver *g, uint64_t gpa, uint32_t len)
{
	driver_desc(g, REPORTING, 0, gpa, len, VRING_DESC_F_WRITE, 0);
	driver_offer(g, REPORTING, 0);
	driver_kick(g, REPORTING);
	assert_int_equal(driver_take(g, REPORTING).id, 0);
}

static void test_reported_pages_leave_memory(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;

	driver_start(g, NR_QUEUES);
	touch(g, 0x800000);
	touch(g, 0x9ff000);
	touch(g, 0xa00000);
	report(g, 0x800000, 0x200000);
	assert_false(present(g, 0x800000));
	assert_false(present(g, 0x9ff000));
	assert_true(present(g, 0xa00000));
	report(g, 0xa00800, 0x1000); /* whole pages only */
	assert_true(present(g, 0xa00000));
}

static void test_a_poisoned_page_stays(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;

	driver_start(g, NR_QUEUES);
	driver_set_reg(g, VIRTIO_MMIO_CONFIG + 12, 0xaaaaaaaa);
	touch(g, 0x800000);
	report(g, 0x800000, 0x200000);
	assert_true(present(g, 0x800000));
}

static void test_held_memory_stays(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;
	const uint32_t pfn = PAGE(0x800000);

	driver_start(g, NR_QUEUES);
	touch(g, 0x800000);
	guest_mem_hold(g->f->m.mem);
	put_pfns(g, 0, &pfn, 1);
	assert_true(present(g, 0x800000));
	guest_mem_release(g->f->m.mem);
	put_pfns(g, 0, &pfn, 1);
	assert_false(present(g, 0x800000));
}

/* 5.5.2: without statistics, reports come one queue earlier. */
static void test_queues_move_up(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;

	driver_negotiate(g, driver_offered(g) & ~(VIRTIO_BIT(VIRTIO_BALLOON_F_STATS_VQ) |
						  VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX)));
	for (uint32_t i = 0; i < 3; i++)
		driver_set_queue(g, i, DRIVER_SIZE);
	driver_ok(g);
	touch(g, 0x800000);
	driver_desc(g, 2, 0, 0x800000, 0x1000, VRING_DESC_F_WRITE, 0);
	driver_offer(g, 2, 0);
	driver_kick(g, 2);
	driver_take(g, 2);
	assert_false(present(g, 0x800000));
}

static void put_stats(struct driver *g, uint64_t free_bytes)
{
	const struct virtio_balloon_stat s[] = {
		{.tag = VIRTIO_BALLOON_S_MEMFREE, .val = free_bytes},
		{.tag = 999, .val = 1},
	};

	driver_put(g, DRIVER_DATA, s, sizeof(s));
	driver_desc(g, STATS, 0, DRIVER_DATA, sizeof(s), 0, 0);
	driver_offer(g, STATS, 0);
	driver_kick(g, STATS);
	driver_sync(g);
}

static void test_statistics(void **state)
{
	struct driver_bench *x = *state;
	struct driver *g = &x->g;
	struct balloon_stats stats;

	assert_string_equal(balloon_stat_name(VIRTIO_BALLOON_S_MEMFREE), "stat-free-memory");
	virtio_balloon_stats(x->kind, &stats);
	assert_true(stats.value[VIRTIO_BALLOON_S_MEMFREE] == UINT64_MAX);
	driver_start(g, NR_QUEUES);
	put_stats(g, 1234);
	assert_false(driver_has_used(g, STATS)); /* kept until somebody asks */
	virtio_balloon_stats(x->kind, &stats);
	assert_int_equal(stats.value[VIRTIO_BALLOON_S_MEMFREE], 1234);
	driver_take(g, STATS);
	put_stats(g, 5678);
	virtio_balloon_stats(x->kind, &stats);
	assert_int_equal(stats.value[VIRTIO_BALLOON_S_MEMFREE], 5678);
}

static void test_the_wish_and_what_came_of_it(void **state)
{
	struct driver_bench *x = *state;
	struct driver *g = &x->g;
	uint32_t generation = driver_reg(g, VIRTIO_MMIO_CONFIG_GENERATION);

	driver_start(g, NR_QUEUES);
	virtio_balloon_set_target(x->kind, 100);
	assert_int_not_equal(driver_reg(g, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	assert_true(driver_line(g));
	assert_int_equal(driver_ack(g), VIRTIO_MMIO_INT_CONFIG);
	assert_int_equal(config(g, 0), 100);
	driver_set_reg(g, VIRTIO_MMIO_CONFIG + 4, 70);
	assert_int_equal(virtio_balloon_actual(x->kind), 70);
	driver_set_reg(g, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(virtio_balloon_actual(x->kind), 0);
	assert_int_equal(config(g, 0), 100);
}

/* The statistics' buffer, which waits in the ring, is found again at the destination. */
static void test_it_moves(void **state)
{
	struct driver_bench *x = *state;
	struct driver_bench y;
	struct balloon_stats stats;
	struct err e = ERR_INIT;

	driver_start(&x->g, NR_QUEUES);
	virtio_balloon_set_target(x->kind, 100);
	driver_set_reg(&x->g, VIRTIO_MMIO_CONFIG + 4, 70);
	put_stats(&x->g, 4321);
	assert_int_equal(x->g.d->ops->quiesce(x->g.d, &e), 0);
	driver_plug(&y, virtio_balloon_new, 0);
	memcpy(guest_mem_at_rw(y.f.m.mem, 0, FAKE_MEMORY_BYTES),
	       guest_mem_at(x->f.m.mem, 0, FAKE_MEMORY_BYTES), FAKE_MEMORY_BYTES);
	dev_migrate(&x->f, x->g.d, &y.f, y.g.d);
	driver_sync(&y.g);
	assert_int_equal(virtio_balloon_actual(y.kind), 70);
	assert_int_equal(config(&y.g, 0), 100);
	virtio_balloon_stats(y.kind, &stats);
	assert_int_equal(stats.value[VIRTIO_BALLOON_S_MEMFREE], 4321);
	assert_true(driver_has_used(&y.g, STATS));
	driver_unplug(&y);
}

#define WITH_BALLOON(test) cmocka_unit_test_setup_teardown(test, setup, driver_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_BALLOON(test_inflated_pages_leave_memory),
		WITH_BALLOON(test_reported_pages_leave_memory),
		WITH_BALLOON(test_a_poisoned_page_stays),
		WITH_BALLOON(test_held_memory_stays),
		WITH_BALLOON(test_queues_move_up),
		WITH_BALLOON(test_statistics),
		WITH_BALLOON(test_the_wish_and_what_came_of_it),
		WITH_BALLOON(test_it_moves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
