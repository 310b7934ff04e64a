/* vmm/virtio/blk.c, as a guest's driver meets it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <linux/virtio_blk.h>

#include "tests/unit/block/images.h"
#include "tests/unit/virtio/driver.h"
#include "vmm/block/disk.h"
#include "vmm/block/disk_spec.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/kinds.h"

#define MIB    (1ull << 20)
#define HEADER DRIVER_DATA
#define STATUS (DRIVER_DATA + 0x1000)
#define DATA   (DRIVER_DATA + 0x2000)

#define NEXT  VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE

struct rig {
	struct fake_machine f;
	struct driver g;
	struct disk *disk;
};

static void plug(struct rig *r, const char *spec, const struct virtio_face *face)
{
	struct virtio_spec s = {.type = VIRTIO_BLK_TYPE, .has_face = face != NULL};
	struct virtio_kind *kind;
	struct err e = ERR_INIT;

	snprintf(s.spec, sizeof(s.spec), "%s", spec);
	if (face)
		s.face = *face;
	fake_init(&r->f);
	if (virtio_kind_new(&s, 0, &kind, &e) < 0)
		fail_msg("%s", e.msg);
	r->disk = virtio_blk_disk(kind);
	assert_int_equal(virtio_mmio_new(&r->f.m, kind, 0, 0, face, &r->g.d, &e), 0);
	r->g.f = &r->f;
	r->g.slot = 0;
}

static void unplug(struct rig *r)
{
	r->g.d->ops->free(r->g.d);
	fake_fini(&r->f);
}

static void begin(struct rig *r, const struct images *im, const char *options)
{
	char spec[256];

	snprintf(spec, sizeof(spec), "%s%s", image_make(im, "a", MIB), options);
	plug(r, spec, NULL);
	driver_start(&r->g, 1);
}

/* One request as Linux makes it: header, data (one piece), status. */
static void ask(struct rig *r, uint32_t type, uint64_t sector, uint32_t data_len,
		uint16_t data_flags)
{
	const struct virtio_blk_outhdr head = {.type = type, .sector = sector};
	uint8_t none = 0xff;

	driver_put(&r->g, HEADER, &head, sizeof(head));
	driver_put(&r->g, STATUS, &none, 1);
	driver_desc(&r->g, 0, 0, HEADER, sizeof(head), NEXT, data_len ? 1 : 2);
	driver_desc(&r->g, 0, 1, DATA, data_len, NEXT | data_flags, 2);
	driver_desc(&r->g, 0, 2, STATUS, 1, WRITE, 0);
	driver_offer(&r->g, 0, 0);
	driver_kick(&r->g, 0);
}

static uint8_t answer(struct rig *r, uint32_t want_len)
{
	struct vring_used_elem used = driver_take(&r->g, 0);

	assert_int_equal(used.id, 0);
	assert_int_equal(used.len, want_len);
	return *(const uint8_t *)driver_at(&r->g, STATUS);
}

static void what_is_written_is_read(void **state)
{
	struct rig r;
	uint8_t data[4096];
	uint8_t back[4096];

	begin(&r, *state, "");
	memset(data, 0x5a, sizeof(data));
	driver_put(&r.g, DATA, data, sizeof(data));
	ask(&r, VIRTIO_BLK_T_OUT, 8, sizeof(data), 0);
	assert_int_equal(answer(&r, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(pread(disk_fd(r.disk), back, sizeof(back), 4096), sizeof(back));
	assert_memory_equal(data, back, sizeof(data));
	memset(data, 0, sizeof(data));
	driver_put(&r.g, DATA, data, sizeof(data));
	ask(&r, VIRTIO_BLK_T_IN, 8, sizeof(data), WRITE);
	assert_int_equal(answer(&r, sizeof(data) + 1), VIRTIO_BLK_S_OK);
	assert_memory_equal(driver_at(&r.g, DATA), back, sizeof(back));
	ask(&r, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	assert_int_equal(answer(&r, 1), VIRTIO_BLK_S_OK);
	assert_true(driver_line(&r.g));
	unplug(&r);
}

/* What the device wrote into guest memory is dirty: data and status (vmm/mem.h). */
static void reading_dirties_memory(void **state)
{
	struct bitmap set;
	struct rig r;
	struct err e = ERR_INIT;

	begin(&r, *state, "");
	assert_int_equal(bitmap_init(&set, guest_mem_nr_gfns(r.f.m.mem), &e), 0);
	guest_mem_take_marks(r.f.m.mem, &set);
	assert_false(bitmap_test(&set, DATA / PAGE_BYTES + 1));
	ask(&r, VIRTIO_BLK_T_IN, 0, 8192, WRITE);
	assert_int_equal(answer(&r, 8193), VIRTIO_BLK_S_OK);
	driver_sync(&r.g);
	guest_mem_take_marks(r.f.m.mem, &set);
	assert_true(bitmap_test(&set, DATA / PAGE_BYTES));
	assert_true(bitmap_test(&set, DATA / PAGE_BYTES + 1));
	assert_true(bitmap_test(&set, STATUS / PAGE_BYTES));
	bitmap_fini(&set);
	unplug(&r);
}

static void ranges_are_discarded_and_zeroed(void **state)
{
	struct virtio_blk_discard_write_zeroes range = {.sector = 8, .num_sectors = 8};
	uint8_t data[4096];
	struct rig r;

	begin(&r, *state, "");
	memset(data, 0x5a, sizeof(data));
	assert_int_equal(pwrite(disk_fd(r.disk), data, sizeof(data), 4096), sizeof(data));
	range.flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	driver_put(&r.g, DATA, &range, sizeof(range));
	ask(&r, VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof(range), 0);
	assert_int_equal(answer(&r, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(pread(disk_fd(r.disk), data, sizeof(data), 4096), sizeof(data));
	assert_int_equal(data[0] | data[4095], 0);
	/* discard knows no flags */
	ask(&r, VIRTIO_BLK_T_DISCARD, 0, sizeof(range), 0);
	assert_int_equal(answer(&r, 1), VIRTIO_BLK_S_UNSUPP);
	range.flags = 0;
	driver_put(&r.g, DATA, &range, sizeof(range));
	ask(&r, VIRTIO_BLK_T_DISCARD, 0, sizeof(range), 0);
	assert_int_equal(answer(&r, 1), VIRTIO_BLK_S_OK);
	range.num_sectors = 1u << 22;
	driver_put(&r.g, DATA, &range, sizeof(range));
	ask(&r, VIRTIO_BLK_T_DISCARD, 0, sizeof(range), 0);
	assert_int_equal(answer(&r, 1), VIRTIO_BLK_S_IOERR);
	unplug(&r);
}

static void errors_are_told(void **state)
{
	struct rig r;

	begin(&r, *state, "");
	ask(&r, VIRTIO_BLK_T_IN, MIB / 512, 512, WRITE);
	assert_int_equal(answer(&r, 513), VIRTIO_BLK_S_IOERR);
	ask(&r, VIRTIO_BLK_T_IN, UINT64_MAX, 512, WRITE);
	assert_int_equal(answer(&r, 513), VIRTIO_BLK_S_IOERR);
	ask(&r, VIRTIO_BLK_T_OUT, 0, 100, 0);
	assert_int_equal(answer(&r, 1), VIRTIO_BLK_S_IOERR);
	ask(&r, 77, 0, 0, 0);
	assert_int_equal(answer(&r, 1), VIRTIO_BLK_S_UNSUPP);
	/* The image is cut under a running guest. */
	assert_int_equal(ftruncate(disk_fd(r.disk), 4096), 0);
	ask(&r, VIRTIO_BLK_T_IN, 1000, 512, WRITE);
	assert_int_equal(answer(&r, 513), VIRTIO_BLK_S_IOERR);
	assert_false(driver_broken(&r.g));
	unplug(&r);
}

static void a_read_only_disk(void **state)
{
	struct rig r;

	begin(&r, *state, ",readonly=on");
	assert_true(driver_offered(&r.g) & VIRTIO_BIT(VIRTIO_BLK_F_RO));
	assert_false(driver_offered(&r.g) & VIRTIO_BIT(VIRTIO_BLK_F_DISCARD));
	ask(&r, VIRTIO_BLK_T_OUT, 0, 512, 0);
	assert_int_equal(answer(&r, 1), VIRTIO_BLK_S_IOERR);
	ask(&r, VIRTIO_BLK_T_IN, 0, 512, WRITE);
	assert_int_equal(answer(&r, 513), VIRTIO_BLK_S_OK);
	unplug(&r);
}

static void the_serial(void **state)
{
	struct rig r;

	begin(&r, *state, ",serial=ABC-1");
	ask(&r, VIRTIO_BLK_T_GET_ID, 0, 20, WRITE);
	assert_int_equal(answer(&r, 21), VIRTIO_BLK_S_OK);
	assert_string_equal(driver_at(&r.g, DATA), "ABC-1");
	unplug(&r);
	begin(&r, *state, "");
	ask(&r, VIRTIO_BLK_T_GET_ID, 0, 20, WRITE);
	assert_int_equal(answer(&r, 21), VIRTIO_BLK_S_OK);
	assert_string_equal(driver_at(&r.g, DATA), "godwit-0");
	unplug(&r);
}

/* A driver may cut a request into descriptors as it likes (virtio 1.2, 2.7.4). */
static void any_framing_will_do(void **state)
{
	const struct virtio_blk_outhdr head = {.type = VIRTIO_BLK_T_OUT, .sector = 0};
	uint8_t data[512];
	uint8_t back[512];
	struct rig r;

	begin(&r, *state, "");
	memset(data, 0x77, sizeof(data));
	/* 8 bytes of the header | the rest and 100 bytes of data | 412 bytes | status */
	driver_put(&r.g, HEADER, &head, sizeof(head));
	driver_put(&r.g, HEADER + sizeof(head), data, sizeof(data));
	driver_desc(&r.g, 0, 0, HEADER, 8, NEXT, 1);
	driver_desc(&r.g, 0, 1, HEADER + 8, 108, NEXT, 3);
	driver_desc(&r.g, 0, 3, HEADER + 116, 412, NEXT, 2);
	driver_desc(&r.g, 0, 2, STATUS, 1, WRITE, 0);
	driver_offer(&r.g, 0, 0);
	driver_kick(&r.g, 0);
	assert_int_equal(answer(&r, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(pread(disk_fd(r.disk), back, sizeof(back), 0), sizeof(back));
	assert_memory_equal(data, back, sizeof(data));
	unplug(&r);
}

static void a_request_without_header_or_status_breaks_it(void **state)
{
	struct rig r;

	begin(&r, *state, "");
	driver_desc(&r.g, 0, 0, HEADER, 15, NEXT, 1);
	driver_desc(&r.g, 0, 1, STATUS, 1, WRITE, 0);
	driver_offer(&r.g, 0, 0);
	driver_kick(&r.g, 0);
	driver_sync(&r.g);
	assert_true(driver_broken(&r.g));
	unplug(&r);
	begin(&r, *state, "");
	driver_desc(&r.g, 0, 0, HEADER, 16, 0, 0);
	driver_offer(&r.g, 0, 0);
	driver_kick(&r.g, 0);
	driver_sync(&r.g);
	assert_true(driver_broken(&r.g));
	unplug(&r);
}

static uint64_t config(struct rig *r, uint32_t offset, uint32_t len)
{
	uint64_t value = 0;

	bus_read(r->f.m.bus, BUS_MMIO, virtio_mmio_base(0) + VIRTIO_MMIO_CONFIG + offset, &value,
		 len);
	return value;
}

/* The destination's disk looks like the source's, serial included, and takes it over. */
static void it_moves(void **state)
{
	struct virtio_face face;
	struct buf saved = BUF_INIT;
	struct err e = ERR_INIT;
	struct rig a;
	struct rig b;

	begin(&a, *state, ",serial=XYZ,queues=4");
	ask(&a, VIRTIO_BLK_T_IN, 0, 512, WRITE); /* perhaps in flight, but not after quiesce */
	assert_int_equal(a.g.d->ops->quiesce(a.g.d, &e), 0);
	assert_int_equal(answer(&a, 513), VIRTIO_BLK_S_OK);
	virtio_mmio_face(a.g.d, &face);
	assert_int_equal(a.g.d->ops->save(a.g.d, &saved, &e), 0);
	plug(&b, image_path(*state, "a"), &face);
	assert_int_equal(b.g.d->ops->quiesce(b.g.d, &e), 0);
	memcpy(guest_mem_at_rw(b.f.m.mem, 0, 8 * MIB), guest_mem_at(a.f.m.mem, 0, 8 * MIB),
	       8 * MIB);
	memcpy(b.g.avail, a.g.avail, sizeof(a.g.avail));
	memcpy(b.g.used, a.g.used, sizeof(a.g.used));
	assert_int_equal(b.g.d->ops->load(b.g.d, 1, saved.data, saved.len, &e), 0);
	assert_int_equal(disk_offer(a.disk, &e), 0);
	assert_int_equal(disk_accept(b.disk, &e), 0);
	unplug(&a);
	b.g.d->ops->unquiesce(b.g.d);
	assert_int_equal(config(&b, 0, 4), MIB / 512);
	assert_int_equal(config(&b, offsetof(struct virtio_blk_config, num_queues), 2), 4);
	ask(&b, VIRTIO_BLK_T_OUT, 0, 512, 0);
	assert_int_equal(answer(&b, 1), VIRTIO_BLK_S_OK);
	ask(&b, VIRTIO_BLK_T_GET_ID, 0, 20, WRITE);
	assert_int_equal(answer(&b, 21), VIRTIO_BLK_S_OK);
	assert_string_equal(driver_at(&b.g, DATA), "XYZ");
	buf_fini(&saved);
	unplug(&b);
}

static void what_does_not_fit_is_refused(void **state)
{
	struct virtio_spec s = {.type = VIRTIO_BLK_TYPE, .has_face = true};
	struct virtio_kind *kind;
	struct err e = ERR_INIT;
	struct rig r;

	begin(&r, *state, "");
	virtio_mmio_face(r.g.d, &s.face);
	assert_true(virtio_kind_new(&s, 3, &kind, &e) < 0);
	assert_non_null(strstr(e.msg, "disk 3, of 1048576 bytes"));
	snprintf(s.spec, sizeof(s.spec), "%s", image_make(*state, "b", 2 * MIB));
	assert_true(virtio_kind_new(&s, 0, &kind, &e) < 0);
	assert_non_null(strstr(e.msg, "not the one the guest uses"));
	snprintf(s.spec, sizeof(s.spec), "%s,readonly=on", image_path(*state, "a"));
	assert_true(virtio_kind_new(&s, 0, &kind, &e) < 0);
	assert_non_null(strstr(e.msg, "the guest writes this disk"));
	s.face.config_bytes = 8;
	assert_true(virtio_kind_new(&s, 0, &kind, &e) < 0);
	assert_int_equal(e.kind, ERR_STREAM);
	s.face.config_bytes = r.g.d ? 60 : 0;
	memset(s.face.config, 0xff, 8);
	assert_true(virtio_kind_new(&s, 0, &kind, &e) < 0);
	assert_int_equal(e.kind, ERR_STREAM);
	unplug(&r);
}

#define T(test) cmocka_unit_test_setup_teardown(test, images_make, images_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_written_is_read),
		T(reading_dirties_memory),
		T(ranges_are_discarded_and_zeroed),
		T(errors_are_told),
		T(a_read_only_disk),
		T(the_serial),
		T(any_framing_will_do),
		T(a_request_without_header_or_status_breaks_it),
		T(it_moves),
		T(what_does_not_fit_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
