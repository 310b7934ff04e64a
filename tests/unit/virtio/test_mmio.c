/* vmm/virtio/mmio.c, transport.c and transport_state.c, with the rng as the device behind them. */
#include <errno.h>

#include "tests/unit/cmocka_all.h"

#include "proto/virtio.pb-c.h"
#include "tests/unit/virtio/driver.h"
#include "vmm/virtio/kinds.h"

#define SLOT 2

static int setup(void **state)
{
	return driver_setup(state, virtio_rng_new, SLOT);
}

/* One request of 64 random bytes at DRIVER_DATA. */
static void ask(struct driver *g)
{
	driver_desc(g, 0, 0, DRIVER_DATA, 64, VRING_DESC_F_WRITE, 0);
	driver_offer(g, 0, 0);
	driver_kick(g, 0);
}

static void check_answer(struct driver *g)
{
	static const uint8_t zeroes[64];
	struct vring_used_elem elem = driver_take(g, 0);

	assert_int_equal(elem.id, 0);
	assert_int_equal(elem.len, 64);
	assert_memory_not_equal(driver_at(g, DRIVER_DATA), zeroes, 64);
	driver_put(g, DRIVER_DATA, zeroes, 64);
}

static void test_identity(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;

	assert_int_equal(driver_reg(g, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_VERSION), 2);
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_RNG);
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX);
	assert_true(driver_offered(g) & VIRTIO_BIT(VIRTIO_F_VERSION_1));
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_SEL, 1);
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_SEL, UINT32_MAX);
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_QUEUE_READY), 0);
}

static void test_every_slot_has_its_own_line(void **state)
{
	uint32_t seen = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 8 | 1 << 9 | 1 << 12;

	(void)state;
	for (uint32_t i = 0; i < VIRTIO_MAX_DEVICES; i++) {
		uint32_t gsi = virtio_mmio_gsi(i);

		assert_true(gsi < 24 && !(seen >> gsi & 1));
		seen |= 1u << gsi;
		assert_true(virtio_mmio_base(i) >= MEM_HOLE_START);
		assert_true(virtio_mmio_base(i) < BOARD_IOAPIC_ADDRESS);
	}
}

static void test_a_request_is_answered(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;

	driver_start(g, 1);
	for (int i = 0; i < 20; i++) { /* around the ring */
		ask(g);
		check_answer(g);
		driver_sync(g);
		assert_true(driver_line(g));
		assert_int_equal(driver_ack(g), VIRTIO_MMIO_INT_VRING);
		assert_false(driver_line(g));
	}
}

/* 3.1.1: what was put there before DRIVER_OK is found without a kick. */
static void test_nothing_that_waits_is_forgotten(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;

	driver_negotiate(g, driver_offered(g));
	driver_set_queue(g, 0, DRIVER_SIZE);
	ask(g);
	driver_sync(g);
	assert_false(driver_has_used(g, 0));
	driver_ok(g);
	check_answer(g);
}

static void test_features_not_offered(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;

	driver_negotiate(g, driver_offered(g) | VIRTIO_BIT(40));
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_STATUS), 3);
	driver_negotiate(g, 0); /* nor the interface before 1.0 */
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_STATUS), 3);
	driver_ok(g);
	assert_true(driver_broken(g));
}

static void test_a_bad_ring_needs_a_reset(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;

	driver_negotiate(g, driver_offered(g));
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_SEL, 0);
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_NUM, DRIVER_SIZE);
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_DESC_HIGH, 1);
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_true(driver_broken(g));
	assert_int_equal(driver_ack(g), VIRTIO_MMIO_INT_CONFIG);
	driver_start(g, 1);
	ask(g);
	check_answer(g);
}

static void test_a_hostile_chain_needs_a_reset(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;

	driver_start(g, 1);
	driver_desc(g, 0, 0, FAKE_MEMORY_BYTES, 64, VRING_DESC_F_WRITE, 0);
	driver_offer(g, 0, 0);
	driver_kick(g, 0);
	driver_sync(g);
	assert_true(driver_broken(g));
	assert_int_equal(driver_ack(g), VIRTIO_MMIO_INT_CONFIG);
	ask(g);
	driver_sync(g);
	assert_false(driver_has_used(g, 0));
	driver_start(g, 1);
	ask(g);
	check_answer(g);
}

static void test_reset_forgets(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;

	driver_start(g, 1);
	ask(g);
	check_answer(g);
	driver_set_reg(g, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_STATUS), 0);
	assert_false(driver_line(g));
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_SEL, 0);
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_QUEUE_READY), 0);
	ask(g); /* into memory that is no ring any more */
	driver_sync(g);
	assert_false(driver_has_used(g, 0));
}

static void test_a_queue_is_retired(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;

	driver_start(g, 1);
	driver_set_reg(g, VIRTIO_MMIO_QUEUE_READY, 0);
	assert_int_equal(driver_reg(g, VIRTIO_MMIO_QUEUE_READY), 0);
	ask(g);
	driver_sync(g);
	assert_false(driver_has_used(g, 0));
	assert_false(driver_broken(g));
}

static void test_quiesced_it_does_nothing(void **state)
{
	struct driver *g = &((struct driver_bench *)*state)->g;
	struct err e = ERR_INIT;

	driver_start(g, 1);
	assert_int_equal(g->d->ops->quiesce(g->d, &e), 0);
	ask(g);
	driver_sync(g);
	assert_false(driver_has_used(g, 0));
	g->d->ops->unquiesce(g->d);
	check_answer(g);
}

static void copy_memory(struct driver_bench *to, const struct driver_bench *from)
{
	memcpy(guest_mem_at_rw(to->f.m.mem, 0, FAKE_MEMORY_BYTES),
	       guest_mem_at(from->f.m.mem, 0, FAKE_MEMORY_BYTES), FAKE_MEMORY_BYTES);
}

/* A kick that was not served before the pause is served at the destination, and the interrupt that
 * was not acknowledged is still up there. */
static void test_it_moves(void **state)
{
	struct driver_bench *x = *state;
	struct driver_bench y;
	struct err e = ERR_INIT;

	driver_start(&x->g, 1);
	ask(&x->g);
	check_answer(&x->g);
	driver_sync(&x->g);
	assert_int_equal(x->g.d->ops->quiesce(x->g.d, &e), 0);
	ask(&x->g);
	driver_plug(&y, virtio_rng_new, SLOT);
	memcpy(y.g.avail, x->g.avail, sizeof(y.g.avail));
	memcpy(y.g.used, x->g.used, sizeof(y.g.used));
	copy_memory(&y, x);
	dev_migrate(&x->f, x->g.d, &y.f, y.g.d);
	check_answer(&y.g);
	assert_true(driver_line(&y.g));
	driver_ack(&y.g);
	assert_false(driver_line(&y.g));
	ask(&y.g);
	check_answer(&y.g);
	driver_unplug(&y);
}

static void test_a_broken_device_moves(void **state)
{
	struct driver_bench *x = *state;
	struct driver_bench y;

	driver_start(&x->g, 1);
	driver_offer(&x->g, 0, 99);
	driver_kick(&x->g, 0);
	driver_sync(&x->g);
	driver_plug(&y, virtio_rng_new, SLOT);
	copy_memory(&y, x);
	dev_migrate(&x->f, x->g.d, &y.f, y.g.d);
	assert_true(driver_broken(&y.g));
	driver_start(&y.g, 1);
	ask(&y.g);
	check_answer(&y.g);
	driver_unplug(&y);
}

/* ---- State that cannot be ---- */

typedef void (*spoil_fn)(Godwit__VirtioState *m);

static void spoil_status(Godwit__VirtioState *m)
{
	m->status = 0x104;
}

static void spoil_features(Godwit__VirtioState *m)
{
	m->driver_features |= VIRTIO_BIT(50);
}

static void spoil_no_features_ok(Godwit__VirtioState *m)
{
	m->status = VIRTIO_CONFIG_S_DRIVER_OK;
}

static void spoil_isr(Godwit__VirtioState *m)
{
	m->isr = 4;
}

static void spoil_address(Godwit__VirtioState *m)
{
	m->queues[0]->used_gpa = FAKE_MEMORY_BYTES;
}

static void spoil_size(Godwit__VirtioState *m)
{
	m->queues[0]->size = 128; /* the rng's rings have 64 */
}

static void spoil_index(Godwit__VirtioState *m)
{
	m->queues[0]->next = 0x10000;
}

static void spoil_nr_queues(Godwit__VirtioState *m)
{
	godwit__virtio_queue_state__free_unpacked(m->queues[0], NULL);
	m->n_queues = 0;
}

static void spoil_field(Godwit__VirtioState *m)
{
	m->queues[0]->has_avail_gpa = false;
}

static void spoil_kind(Godwit__VirtioState *m)
{
	m->kind.data = malloc(1);
	m->kind.data[0] = 1;
	m->kind.len = 1;
}

static void test_hostile_state_changes_nothing(void **state)
{
	static const spoil_fn spoils[] = {
		spoil_status, spoil_features, spoil_no_features_ok, spoil_isr,   spoil_address,
		spoil_size,   spoil_index,    spoil_nr_queues,      spoil_field, spoil_kind};
	struct driver *g = &((struct driver_bench *)*state)->g;
	struct buf before = BUF_INIT;
	struct buf after = BUF_INIT;
	struct err e = ERR_INIT;

	driver_start(g, 1);
	ask(g);
	check_answer(g);
	assert_int_equal(g->d->ops->quiesce(g->d, &e), 0);
	dev_save(g->d, &before);
	for (size_t i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++) {
		Godwit__VirtioState *m =
			godwit__virtio_state__unpack(NULL, before.len, before.data);
		uint8_t bad[1024];

		spoils[i](m);
		assert_true(godwit__virtio_state__get_packed_size(m) <= sizeof(bad));
		assert_true(g->d->ops->load(g->d, 1, bad, godwit__virtio_state__pack(m, bad), &e) <
			    0);
		godwit__virtio_state__free_unpacked(m, NULL);
		dev_save(g->d, &after);
		assert_int_equal(before.len, after.len);
		assert_memory_equal(before.data, after.data, before.len);
	}
	g->d->ops->unquiesce(g->d);
	ask(g);
	check_answer(g);
	buf_fini(&before);
	buf_fini(&after);
}

static void test_a_face_is_kept_or_refused(void **state)
{
	struct driver_bench *x = *state;
	struct driver_bench y = {.g = {.f = &y.f, .slot = 0}};
	struct virtio_face face;
	struct virtio_kind *kind;
	struct err e = ERR_INIT;

	virtio_mmio_face(x->g.d, &face);
	fake_init(&y.f);
	face.features &= ~VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX);
	assert_int_equal(virtio_rng_new("", 0, &face, &kind, &e), 0);
	assert_int_equal(virtio_mmio_new(&y.f.m, kind, 0, 0, &face, &y.g.d, &e), 0);
	assert_int_equal(driver_offered(&y.g), face.features);
	face.features |= VIRTIO_BIT(60);
	assert_int_equal(virtio_rng_new("", 1, &face, &kind, &e), 0);
	assert_int_equal(virtio_mmio_new(&y.f.m, kind, 1, 1, &face, &y.g.d, &e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "0x1000000000000000"));
	face.features &= ~VIRTIO_BIT(60);
	face.nr_queues = 3;
	assert_int_equal(virtio_rng_new("", 1, &face, &kind, &e), 0);
	assert_int_equal(virtio_mmio_new(&y.f.m, kind, 1, 1, &face, &y.g.d, &e), -ENOTSUP);
	driver_unplug(&y);
}

#define WITH_RNG(test) cmocka_unit_test_setup_teardown(test, setup, driver_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_RNG(test_identity),
		cmocka_unit_test(test_every_slot_has_its_own_line),
		WITH_RNG(test_a_request_is_answered),
		WITH_RNG(test_nothing_that_waits_is_forgotten),
		WITH_RNG(test_features_not_offered),
		WITH_RNG(test_a_bad_ring_needs_a_reset),
		WITH_RNG(test_a_hostile_chain_needs_a_reset),
		WITH_RNG(test_reset_forgets),
		WITH_RNG(test_a_queue_is_retired),
		WITH_RNG(test_quiesced_it_does_nothing),
		WITH_RNG(test_it_moves),
		WITH_RNG(test_a_broken_device_moves),
		WITH_RNG(test_hostile_state_changes_nothing),
		WITH_RNG(test_a_face_is_kept_or_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
