/* vmm/block/disk_queue.c over each engine, and over one that does as badly as the kernel may. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>

#include "tests/unit/block/images.h"
#include "vmm/block/engine.h"

#define MIB (1ull << 20)
#define NR  200

struct request {
	struct disk_request r;
	struct iovec iov[3];
	uint8_t data[3][512];
	int nr_done;
	int error;
};

static void on_done(struct disk_request *r, int error)
{
	struct request *q = (struct request *)r;

	q->nr_done++;
	q->error = error;
}

static void prepare(struct request *q, enum disk_op op, uint64_t offset)
{
	q->r = (struct disk_request){.op = op,
				     .offset = offset,
				     .bytes = 3 * 512,
				     .iov = q->iov,
				     .nr_iov = 3,
				     .done = on_done};
	for (int i = 0; i < 3; i++)
		q->iov[i] = (struct iovec){q->data[i], 512};
	q->nr_done = 0;
	q->error = -1;
}

static void go(struct disk_queue *q, struct request *r)
{
	assert_int_equal(disk_queue_submit(q, &r->r), 0);
	disk_queue_drain(q);
	assert_int_equal(r->nr_done, 1);
}

static void write_all(struct disk_queue *q, struct request *all)
{
	for (uint32_t i = 0; i < NR; i++) {
		prepare(&all[i], DISK_WRITE, i * 4096ull);
		memset(all[i].data, (int)i + 1, sizeof(all[i].data));
		assert_int_equal(disk_queue_submit(q, &all[i].r), 0);
	}
	disk_queue_drain(q);
	for (uint32_t i = 0; i < NR; i++)
		assert_true(all[i].nr_done == 1 && all[i].error == 0);
}

/* As a device waits: by poll, and not by drain. */
static void read_all(struct disk_queue *q, struct request *all)
{
	for (uint32_t i = 0; i < NR; i++) {
		prepare(&all[i], DISK_READ, i * 4096ull);
		memset(all[i].data, 0, sizeof(all[i].data));
		assert_int_equal(disk_queue_submit(q, &all[i].r), 0);
	}
	disk_queue_kick(q);
	while (disk_queue_in_flight(q)) {
		struct pollfd fd = {.fd = disk_queue_fd(q), .events = POLLIN};

		assert_int_equal(poll(&fd, 1, 60000), 1);
		disk_queue_reap(q);
	}
	for (uint32_t i = 0; i < NR; i++) {
		assert_true(all[i].nr_done == 1 && all[i].error == 0);
		for (size_t b = 0; b < sizeof(all[i].data); b++)
			assert_int_equal(((uint8_t *)all[i].data)[b], (uint8_t)(i + 1));
	}
}

static void exercise(const struct images *im, struct disk_engine *g, struct disk *d)
{
	struct request *all = test_calloc(NR, sizeof(*all));
	struct bitmap set;
	struct disk_queue *q;
	struct err e = ERR_INIT;

	(void)im;
	assert_int_equal(disk_queue_over(d, g, &q, &e), 0);
	assert_int_equal(bitmap_init(&set, disk_nr_blocks(d), &e), 0);
	assert_int_equal(disk_track_start(d, &e), 0);
	write_all(q, all);
	disk_track_take(d, &set);
	assert_int_equal(bitmap_count(&set), NR * 4096 / DISK_BLOCK_BYTES);
	read_all(q, all);
	bitmap_zero(&set);
	disk_track_take(d, &set);
	assert_int_equal(bitmap_count(&set), 0); /* reading changes nothing */
	prepare(&all[0], DISK_FLUSH, 0);
	go(q, &all[0]);
	assert_int_equal(all[0].error, 0);
	prepare(&all[0], DISK_DISCARD, 0);
	go(q, &all[0]);
	prepare(&all[1], DISK_WRITE_ZEROES, 4096);
	go(q, &all[1]);
	assert_int_equal(all[1].error, 0);
	disk_track_take(d, &set);
	assert_int_equal(bitmap_count(&set), 1);
	prepare(&all[1], DISK_READ, 4096);
	go(q, &all[1]);
	assert_int_equal(all[1].data[0][0] | all[1].data[2][511], 0);
	bitmap_fini(&set);
	disk_queue_free(q);
	test_free(all);
}

static void io_uring_engine(void **state)
{
	struct disk *d = image_open(image_make(*state, "a", MIB), DISK_OWNED, 0);
	struct disk_engine *g;
	struct err e = ERR_INIT;

	if (disk_engine_uring_new(disk_fd(d), 16, &g, &e) < 0) {
		print_message("SKIPPED: %s\n", e.msg);
		disk_close(d);
		skip();
	}
	exercise(*state, g, d); /* 200 requests through 16 places */
	disk_close(d);
}

static void threads_engine(void **state)
{
	struct disk *d = image_open(image_make(*state, "a", MIB), DISK_OWNED, 0);
	struct disk_engine *g;
	struct err e = ERR_INIT;

	assert_int_equal(disk_engine_threads_new(disk_fd(d), 4, &g, &e), 0);
	exercise(*state, g, d);
	disk_close(d);
}

static void what_does_not_fit_is_refused_at_once(void **state)
{
	struct disk_config config = {.path = image_make(*state, "a", MIB), .readonly = true};
	struct request r;
	struct disk_queue *q;
	struct disk *d;
	struct err e = ERR_INIT;

	assert_int_equal(disk_open(&config, &d, &e), 0);
	assert_int_equal(disk_queue_new(d, 8, &q, &e), 0);
	prepare(&r, DISK_WRITE, 0);
	assert_int_equal(disk_queue_submit(q, &r.r), -EROFS);
	prepare(&r, DISK_DISCARD, 0);
	assert_int_equal(disk_queue_submit(q, &r.r), -EROFS);
	prepare(&r, DISK_READ, MIB);
	assert_int_equal(disk_queue_submit(q, &r.r), -EINVAL);
	prepare(&r, DISK_READ, MIB - 1024); /* its end is outside */
	assert_int_equal(disk_queue_submit(q, &r.r), -EINVAL);
	prepare(&r, DISK_READ, 1);
	assert_int_equal(disk_queue_submit(q, &r.r), -EINVAL);
	prepare(&r, DISK_READ, UINT64_MAX - 511);
	assert_int_equal(disk_queue_submit(q, &r.r), -EINVAL);
	prepare(&r, DISK_READ, 0);
	r.r.bytes = 0;
	assert_int_equal(disk_queue_submit(q, &r.r), -EINVAL);
	assert_int_equal(r.nr_done, 0);
	prepare(&r, DISK_READ, MIB - 3 * 512);
	go(q, &r);
	assert_int_equal(r.error, 0);
	disk_queue_free(q);
	disk_close(d);
}

/* The disk is longer than its file, because somebody cut that: an error, not stale bytes. */
static void a_file_that_was_cut_is_an_error(void **state)
{
	const char *path = image_make(*state, "a", MIB);
	struct disk *d = image_open(path, DISK_OWNED, 0);
	struct disk_queue *q;
	struct request r;
	struct err e = ERR_INIT;

	assert_int_equal(truncate(path, 1024), 0);
	assert_int_equal(disk_queue_new(d, 8, &q, &e), 0);
	prepare(&r, DISK_READ, 0);
	go(q, &r);
	assert_int_equal(r.error, EIO);
	disk_queue_free(q);
	disk_close(d);
}

/* ---- An engine that plays back results ---- */

struct fake_engine {
	struct disk_engine base;
	const int64_t *results;
	struct disk_request *pending;
	uint64_t offsets[8]; /* with which it came */
	uint32_t nr;
};

static void fake_submit(struct disk_engine *g, struct disk_request *r)
{
	struct fake_engine *f = (struct fake_engine *)g;

	assert_null(f->pending);
	f->pending = r;
	f->offsets[f->nr] = r->offset;
}

static void fake_kick(struct disk_engine *g)
{
	(void)g;
}

static struct disk_request *fake_next(struct disk_engine *g, int64_t *result)
{
	struct fake_engine *f = (struct fake_engine *)g;
	struct disk_request *r = f->pending;

	f->pending = NULL;
	if (r)
		*result = f->results[f->nr++];
	return r;
}

static void fake_free(struct disk_engine *g)
{
	(void)g;
}

static const struct disk_engine_ops fake_ops = {.name = "fake",
						.submit = fake_submit,
						.kick = fake_kick,
						.next = fake_next,
						.wait = fake_kick,
						.free = fake_free};

static int play(struct disk *d, struct fake_engine *f, struct request *r, const int64_t *results)
{
	struct disk_queue *q;
	struct err e = ERR_INIT;

	*f = (struct fake_engine){.base = {.ops = &fake_ops, .poll_fd = -1}, .results = results};
	assert_int_equal(disk_queue_over(d, &f->base, &q, &e), 0);
	go(q, r);
	disk_queue_free(q);
	return r->error;
}

static void short_transfers_are_continued(void **state)
{
	static const int64_t results[] = {-EINTR, 100, -EAGAIN, 412 + 512, 512};
	struct disk *d = image_open(image_make(*state, "a", MIB), DISK_OWNED, 0);
	struct fake_engine f;
	struct request r;

	prepare(&r, DISK_WRITE, 8192);
	assert_int_equal(play(d, &f, &r, results), 0);
	assert_int_equal(f.nr, 5);
	assert_int_equal(f.offsets[1], 8192);
	assert_int_equal(f.offsets[2], 8292);
	assert_int_equal(f.offsets[4], 8192 + 1024);
	disk_close(d);
}

/* A write that failed half way may have changed the image: the next pass must look. */
static void what_fails_is_marked_all_the_same(void **state)
{
	static const int64_t results[] = {512, -ENOSPC};
	struct disk *d = image_open(image_make(*state, "a", MIB), DISK_OWNED, 0);
	struct fake_engine f;
	struct bitmap set;
	struct request r;
	struct err e = ERR_INIT;

	assert_int_equal(bitmap_init(&set, disk_nr_blocks(d), &e), 0);
	assert_int_equal(disk_track_start(d, &e), 0);
	prepare(&r, DISK_WRITE, 2 * DISK_BLOCK_BYTES);
	assert_int_equal(play(d, &f, &r, results), ENOSPC);
	disk_track_take(d, &set);
	assert_true(bitmap_test(&set, 2));
	assert_int_equal(bitmap_count(&set), 1);
	bitmap_fini(&set);
	disk_close(d);
}

static void storage_without_holes_still_gives_zeroes(void **state)
{
	static const int64_t results[] = {-EOPNOTSUPP};
	struct disk *d = image_open(image_make(*state, "a", MIB), DISK_OWNED, 0);
	char ones[4096];
	char is[4096];
	struct fake_engine f;
	struct request r;

	memset(ones, 1, sizeof(ones));
	assert_int_equal(pwrite(disk_fd(d), ones, sizeof(ones), 0), sizeof(ones));
	prepare(&r, DISK_DISCARD, 0);
	assert_int_equal(play(d, &f, &r, results), 0);
	assert_int_equal(pread(disk_fd(d), is, sizeof(is), 0), sizeof(is));
	assert_int_equal(is[0], 1); /* a hint */
	prepare(&r, DISK_WRITE_ZEROES, 0);
	assert_int_equal(play(d, &f, &r, results), 0);
	assert_int_equal(pread(disk_fd(d), is, sizeof(is), 0), sizeof(is));
	assert_int_equal(is[0] | is[1535], 0);
	assert_int_equal(is[1536], 1);
	disk_close(d);
}

#define T(test) cmocka_unit_test_setup_teardown(test, images_make, images_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(io_uring_engine),
		T(threads_engine),
		T(what_does_not_fit_is_refused_at_once),
		T(a_file_that_was_cut_is_an_error),
		T(short_transfers_are_continued),
		T(what_fails_is_marked_all_the_same),
		T(storage_without_holes_still_gives_zeroes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
