/* migration/disk_sender.c against migration/disk_receiver.c: a disk that is written while it is
 * copied is the same at the end; holes stay holes; whatever fails is told. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "migration/disk_receiver.h"
#include "migration/disk_sender.h"
#include "tests/unit/block/images.h"
#include "vmm/base/clock.h"
#include "vmm/block/disk_queue.h"

#define MIB        (1ull << 20)
#define DISK_BYTES (64 * MIB + 512)

struct pair {
	struct disk *source;
	struct disk *destination;
	struct disk_set source_set;
	struct disk_set destination_set;
	struct cancel *source_cancel;
	struct cancel *destination_cancel;
	struct rate_limit *limit;
	struct fault *fault;
	struct disk_sender *sender;
	struct disk_receiver *receiver;
};

static struct disk_set set_of(struct disk *d)
{
	struct disk_set set = {.nr = 2, .at = {{NULL, false}, {d, true}}};

	set.at[0].disk = d; /* disk 0 is "shared": present and not copied */
	return set;
}

static void connect_pair(struct pair *p, struct link **a, struct link **b)
{
	struct err e = ERR_INIT;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(link_from_fd(fds[0], p->source_cancel, a, &e), 0);
	assert_int_equal(link_from_fd(fds[1], p->destination_cancel, b, &e), 0);
}

static void start(struct pair *p, const struct images *im, const char *copy)
{
	struct disk_sender_config s = {.set = &p->source_set, .stall_timeout_ns = 60 * NS_PER_S};
	struct disk_receiver_config r = {.set = &p->destination_set};
	struct err e = ERR_INIT;
	struct link *link;

	p->destination = image_open(image_path(im, copy), DISK_COPY, DISK_BYTES);
	p->source_set = set_of(p->source);
	p->destination_set = set_of(p->destination);
	assert_int_equal(cancel_new(&p->source_cancel, &e), 0);
	assert_int_equal(cancel_new(&p->destination_cancel, &e), 0);
	assert_int_equal(rate_limit_new(0, p->source_cancel, &p->limit, &e), 0);
	assert_int_equal(fault_new(&p->fault, &e), 0);
	connect_pair(p, &s.link, &link);
	s.limit = p->limit;
	s.abort = p->source_cancel;
	s.fault = r.fault = p->fault;
	r.abort = p->destination_cancel;
	assert_int_equal(disk_receiver_new(&r, link, &p->receiver, &e), 0);
	assert_int_equal(disk_sender_new(&s, &p->sender, &e), 0);
}

static void stop(struct pair *p)
{
	disk_sender_free(p->sender);
	disk_receiver_free(p->receiver);
	disk_close(p->destination);
	rate_limit_free(p->limit);
	fault_free(p->fault);
	cancel_free(p->source_cancel);
	cancel_free(p->destination_cancel);
}

static int pass(struct pair *p, bool last, struct disk_stats *stats, struct err *e)
{
	*stats = (struct disk_stats){.data_bytes = 0};
	disk_sender_collect(p->sender);
	disk_sender_begin(p->sender, last);
	return disk_sender_finish(p->sender, stats, e);
}

static void passes(struct pair *p, bool last, struct disk_stats *stats)
{
	struct err e = ERR_INIT;
	struct err there;

	if (pass(p, last, stats, &e) < 0) {
		disk_receiver_failure(p->receiver, &there);
		fail_msg("%s; there: %s", e.msg, there.msg);
	}
	assert_int_equal(disk_receiver_pass(p->receiver), disk_sender_pass(p->sender));
	assert_int_equal(disk_sender_remaining_bytes(p->sender), 0);
}

static void put(struct disk *d, uint64_t offset, uint64_t bytes, int value)
{
	char *data = test_malloc(bytes);

	memset(data, value, bytes);
	assert_int_equal(pwrite(disk_fd(d), data, bytes, (off_t)offset), bytes);
	disk_mark(d, offset, bytes);
	test_free(data);
}

static void assert_same(struct disk *a, struct disk *b)
{
	static char one[65536];
	static char other[65536];

	for (uint64_t at = 0; at < DISK_BYTES; at += sizeof(one)) {
		ssize_t n = pread(disk_fd(a), one, sizeof(one), (off_t)at);

		assert_true(n > 0);
		assert_int_equal(pread(disk_fd(b), other, sizeof(other), (off_t)at), n);
		assert_memory_equal(one, other, (size_t)n);
	}
}

static uint64_t allocated(const struct disk *d)
{
	struct stat st;

	assert_int_equal(fstat(disk_fd(d), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void what_was_written_comes_again(void **state)
{
	struct pair p = {.source = image_open(image_make(*state, "a", DISK_BYTES), DISK_OWNED, 0)};
	struct disk_stats stats;

	put(p.source, 0, MIB, 1);
	put(p.source, 5 * MIB, 3 * MIB, 2);
	put(p.source, DISK_BYTES - 512, 512, 3);
	start(&p, *state, "b");
	passes(&p, false, &stats);
	assert_in_range(stats.data_bytes, 4 * MIB + 512, 4 * MIB + 65536);
	assert_int_equal(stats.zero_bytes, 0);
	assert_same(p.source, p.destination);
	passes(&p, false, &stats); /* nothing was written */
	assert_int_equal(stats.data_bytes, 0);
	put(p.source, 6 * MIB, 4096, 4);
	put(p.source, 40 * MIB, 4096, 5);
	passes(&p, false, &stats);
	assert_in_range(stats.data_bytes, 8192, 2 * DISK_BLOCK_BYTES);
	assert_same(p.source, p.destination);
	assert_true(allocated(p.destination) < 6 * MIB);
	stop(&p);
	disk_close(p.source);
}

static void holes_stay_holes_and_become_holes(void **state)
{
	struct pair p = {.source = image_open(image_make(*state, "a", DISK_BYTES), DISK_OWNED, 0)};
	struct disk_stats stats;
	struct err e = ERR_INIT;

	put(p.source, 0, 8 * MIB, 1);
	start(&p, *state, "b");
	passes(&p, false, &stats);
	assert_int_equal(disk_zero(p.source, MIB, 6 * MIB, true, &e), 0);
	disk_mark(p.source, MIB, 6 * MIB);
	passes(&p, true, &stats);
	assert_int_equal(stats.data_bytes, 0);
	assert_int_equal(stats.zero_bytes, 6 * MIB);
	assert_same(p.source, p.destination);
	assert_true(allocated(p.destination) < 3 * MIB);
	stop(&p);
	disk_close(p.source);
}

/* ---- While somebody writes ---- */

struct writer {
	struct disk *disk;
	pthread_t thread;
	atomic_bool stop;
	uint64_t nr;
};

struct write {
	struct disk_request r;
	struct iovec iov;
	uint64_t data[512];
};

static void written(struct disk_request *r, int error)
{
	(void)r;
	assert_int_equal(error, 0);
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	struct write at[8];
	struct disk_queue *q;
	struct err e = ERR_INIT;
	uint64_t x = 1;

	assert_int_equal(disk_queue_new(w->disk, 8, &q, &e), 0);
	while (!atomic_load(&w->stop)) {
		for (int i = 0; i < 8; i++) {
			uint64_t block;

			x = x * 6364136223846793005ull + 1442695040888963407ull;
			block = (x >> 33) % (DISK_BYTES / 4096);
			for (int k = 0; k < 512; k++)
				at[i].data[k] = x + (uint64_t)k;
			at[i].iov = (struct iovec){at[i].data, sizeof(at[i].data)};
			at[i].r = (struct disk_request){.op = x >> 60 == 0 ? DISK_DISCARD
									   : DISK_WRITE,
							.offset = block * 4096,
							.bytes = 4096,
							.iov = &at[i].iov,
							.nr_iov = 1,
							.done = written};
			assert_int_equal(disk_queue_submit(q, &at[i].r), 0);
		}
		disk_queue_drain(q);
		w->nr += 8;
	}
	disk_queue_free(q);
	return NULL;
}

static void a_disk_in_use_is_the_same_in_the_end(void **state)
{
	struct pair p = {.source = image_open(image_make(*state, "a", DISK_BYTES), DISK_OWNED, 0)};
	struct writer w = {.disk = p.source};
	struct disk_stats stats;

	put(p.source, 0, 32 * MIB, 1);
	start(&p, *state, "b");
	assert_int_equal(pthread_create(&w.thread, NULL, writer_main, &w), 0);
	for (int i = 0; i < 6; i++)
		passes(&p, false, &stats);
	atomic_store(&w.stop, true);
	pthread_join(w.thread, NULL);
	assert_true(w.nr > 100);
	passes(&p, true, &stats);
	assert_same(p.source, p.destination);
	stop(&p);
	disk_close(p.source);
}

/* ---- What fails ---- */

/* As the destination's engine does it: its end of the connection closes. */
static void await_failure(struct pair *p, struct err *e)
{
	while (!cancel_requested(p->destination_cancel))
		clock_sleep_until_ns(clock_now_ns() + NS_PER_MS);
	disk_receiver_failure(p->receiver, e);
	disk_receiver_free(p->receiver);
	p->receiver = NULL;
}

static void fails(const struct images *im, const char *point, const char *words)
{
	struct pair p = {.source = image_open(image_path(im, "a"), DISK_OWNED, 0)};
	struct disk_stats stats;
	struct err there = ERR_INIT;
	struct err e = ERR_INIT;

	start(&p, im, "b");
	fault_arm_name(p.fault, point);
	disk_sender_collect(p.sender);
	disk_sender_begin(p.sender, false);
	if (point[0] == 'd')
		await_failure(&p, &there);
	assert_true(disk_sender_finish(p.sender, &stats, &e) < 0);
	assert_true(cancel_requested(p.source_cancel));
	if (point[0] == 'd')
		assert_int_equal(e.kind, ERR_PEER);
	else
		there = e;
	assert_int_equal(there.kind, ERR_INJECTED);
	if (!strstr(there.msg, words))
		fail_msg("'%s' lacks '%s'", there.msg, words);
	stop(&p);
	disk_close(p.source);
	assert_true(access(image_path(im, "b"), F_OK) < 0);
	assert_true(access(image_path(im, "b.part"), F_OK) < 0);
}

static void every_step_that_fails_is_told(void **state)
{
	struct disk *d = image_open(image_make(*state, "a", DISK_BYTES), DISK_OWNED, 0);

	put(d, 0, 4 * MIB, 1);
	disk_close(d);
	fails(*state, "src.disk_pass", "src.disk_pass");
	fails(*state, "src.disk_data", "disk 1");
	fails(*state, "src.disk_barrier", "src.disk_barrier");
	fails(*state, "dst.disk_piece", "disk 1's copy at");
	fails(*state, "dst.disk_barrier", "disks");
}

/* It ends before the guest runs there, and what the source does later must not reach it. */
static void the_end_of_the_receiver_is_no_failure(void **state)
{
	struct pair p = {.source = image_open(image_make(*state, "a", DISK_BYTES), DISK_OWNED, 0)};
	struct disk_stats stats;

	start(&p, *state, "b");
	passes(&p, true, &stats);
	disk_receiver_free(p.receiver);
	p.receiver = NULL;
	assert_false(cancel_requested(p.destination_cancel));
	stop(&p);
	disk_close(p.source);
}

static void a_list_of_disks(void **state)
{
	struct err e = ERR_INIT;
	uint64_t mask;

	(void)state;
	assert_int_equal(disk_set_parse("", &mask, &e), 0);
	assert_int_equal(mask, 0);
	assert_int_equal(disk_set_parse("all", &mask, &e), 0);
	assert_int_equal(mask, UINT64_MAX);
	assert_int_equal(disk_set_parse("0,2,15", &mask, &e), 0);
	assert_int_equal(mask, 0x8005);
	assert_true(disk_set_parse("16", &mask, &e) < 0);
	assert_true(disk_set_parse("1,", &mask, &e) < 0);
	assert_true(disk_set_parse(",1", &mask, &e) < 0);
	assert_true(disk_set_parse("-1", &mask, &e) < 0);
	assert_true(disk_set_parse("1 2", &mask, &e) < 0);
	assert_true(disk_set_parse("some", &mask, &e) < 0);
}

#define T(test) cmocka_unit_test_setup_teardown(test, images_make, images_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_was_written_comes_again),          T(holes_stay_holes_and_become_holes),
		T(a_disk_in_use_is_the_same_in_the_end),  T(every_step_that_fails_is_told),
		T(the_end_of_the_receiver_is_no_failure), T(a_list_of_disks),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
