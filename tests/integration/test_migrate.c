/* Good migrations: every tracker, codec, channel count and transport, checked page by page. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>

#include <cmocka.h>

#include "tests/rig/rig.h"
#include "vmm/base/clock.h"

static void move_once(const char *tracker, const char *codec, uint32_t nr_channels, bool verify,
		      const char *listen)
{
	struct rig_migration m;
	struct vm *vm;

	rig_need_kvm();
	rig_migration_init(&m);
	strcpy(m.params.tracker, tracker);
	strcpy(m.params.codec, codec);
	m.params.nr_channels = nr_channels;
	m.params.verify = verify;
	m.listen = listen;
	vm = rig_move(rig_boot(NULL), &m);
	assert_int_equal(m.source.verified, verify);
	assert_true(m.source.nr_rounds >= 2);
	assert_true(m.source.downtime_ns > 0);
	assert_int_equal(vm_status(vm), VM_RUNNING);
	vm_free(vm);
}

static void bitmap_over_tcp(void **state)
{
	(void)state;
	move_once("bitmap", "none", 1, true, NULL);
}

static void clear_log_over_tcp(void **state)
{
	(void)state;
	move_once("clear-log", "none", 1, true, NULL);
}

static void four_channels(void **state)
{
	(void)state;
	move_once("clear-log", "auto", 4, true, NULL);
}

static void lz4_codec(void **state)
{
	struct rig_guest guest = {.memory_bytes = 64 << 20,
				  .nr_cpus = 1,
				  .append = "fill=24M ws=8M rate=500 quiet=1 compress=75"};
	struct rig_migration m;
	uint64_t compressed = 0;

	(void)state;
	rig_need_kvm();
	rig_migration_init(&m);
	strcpy(m.params.codec, "lz4");
	m.params.verify = true;
	vm_free(rig_move(rig_boot(&guest), &m));
	for (uint32_t i = 0; i < m.source.nr_rounds; i++)
		compressed += m.source.rounds[i].compressed_pages;
	assert_true(compressed > 4000);
	/* 24 MiB of pages of which a quarter is noise; so slow a guest hardly adds to it even where
	 * sanitizers make the codec slow */
	assert_true(m.source.wire_bytes < 20 << 20);
}

/* A guest that writes while its pages are packed: torn ones come again, and all must be right. How
 * much is sent depends on how fast this machine packs; what every page must be does not. */
static void lz4_and_a_busy_guest(void **state)
{
	struct rig_guest guest = {.memory_bytes = 64 << 20,
				  .nr_cpus = 1,
				  .append = "fill=24M ws=8M rate=20000 quiet=1 compress=75"};
	struct rig_migration m;
	uint64_t compressed = 0;

	(void)state;
	rig_need_kvm();
	rig_migration_init(&m);
	strcpy(m.params.codec, "lz4");
	m.params.verify = true;
	m.params.auto_converge = true; /* it ends also where packing is slow */
	vm_free(rig_move(rig_boot(&guest), &m));
	assert_true(m.source.nr_rounds >= 2);
	for (uint32_t i = 1; i < m.source.nr_rounds; i++)
		compressed += m.source.rounds[i].compressed_pages;
	assert_true(compressed > 0); /* pages that the guest had written again */
}

/* ThreadSanitizer makes the codec about as slow as 20 MiB/s, and so may an emulated host that
 * others take the processor from: packing pays only below that. */
#define SLOW_LINK_BYTES_PER_S (5 << 20)

/* On such a link packing pays, on any machine: auto must find that out by itself and keep to it,
 * for a guest that goes on writing. */
static void auto_packs_for_a_slow_link(void **state)
{
	struct rig_guest guest = {.memory_bytes = 64 << 20,
				  .nr_cpus = 1,
				  .append = "fill=32M ws=8M rate=1000 quiet=1 compress=75"};
	struct rig_migration m;
	uint64_t packed = 0;
	uint64_t raw = 0;

	(void)state;
	rig_need_kvm();
	rig_migration_init(&m);
	strcpy(m.params.codec, "auto");
	m.params.max_bytes_per_s = SLOW_LINK_BYTES_PER_S;
	m.params.verify = true;
	vm_free(rig_move(rig_boot(&guest), &m));
	for (uint32_t i = 0; i < m.source.nr_rounds; i++) {
		packed += m.source.rounds[i].compressed_pages;
		raw += m.source.rounds[i].raw_pages;
	}
	print_message("  %llu pages packed, %llu raw, %u rounds\n", (unsigned long long)packed,
		      (unsigned long long)raw, m.source.nr_rounds);
	assert_true(packed > 2 * raw);
	assert_true(m.source.nr_rounds >= 2);
}

static void over_a_unix_socket(void **state)
{
	char uri[64];

	(void)state;
	snprintf(uri, sizeof(uri), "unix:/tmp/godwit-test-%d.sock", (int)getpid());
	move_once("bitmap", "auto", 2, true, uri);
}

static void two_vcpus(void **state)
{
	struct rig_guest guest = {.memory_bytes = 64 << 20,
				  .nr_cpus = 2,
				  .append = "fill=24M ws=8M rate=20000 quiet=1 cpus=2"};
	struct rig_migration m;

	(void)state;
	rig_need_kvm();
	rig_migration_init(&m);
	m.params.verify = true;
	vm_free(rig_move(rig_boot(&guest), &m));
}

static void describe(struct vm *vm, struct buf *out)
{
	struct err e = ERR_INIT;

	if (vm_describe(vm, out, &e) < 0)
		fail_msg("%s", e.msg);
}

/* What the guest was told of its CPU goes with it, although this host could offer more. */
static void a_cpu_model_moves_along(void **state)
{
	struct rig_guest model = {.memory_bytes = 64 << 20, .nr_cpus = 1, .cpu = "x86-64-v1"};
	struct buf told[2] = {BUF_INIT, BUF_INIT};
	struct buf all = BUF_INIT;
	struct rig_migration m;
	struct vm *vm;

	(void)state;
	rig_need_kvm();
	vm = rig_boot(NULL);
	describe(vm, &all);
	vm_free(vm);
	vm = rig_boot(&model);
	describe(vm, &told[0]);
	rig_migration_init(&m);
	m.params.verify = true;
	vm = rig_move(vm, &m);
	describe(vm, &told[1]);
	assert_true(told[0].len != all.len || memcmp(told[0].data, all.data, all.len) != 0);
	assert_int_equal(told[0].len, told[1].len);
	assert_memory_equal(told[0].data, told[1].data, told[0].len);
	vm_free(vm);
	buf_fini(&told[0]);
	buf_fini(&told[1]);
	buf_fini(&all);
}

/* Memory on both sides of the PCI hole, most of it never touched. */
static void beyond_4_gib(void **state)
{
	struct rig_guest guest = {.memory_bytes = 8ull << 30,
				  .nr_cpus = 1,
				  .append = "fill=24M ws=8M rate=20000 quiet=1"};
	struct rig_migration m;
	struct vm *vm;

	(void)state;
	rig_need_kvm();
	rig_migration_init(&m);
	strcpy(m.params.tracker, "clear-log");
	vm = rig_boot(&guest);
	/* what the VMM itself writes high up must arrive too */
	struct err e = ERR_INIT;
	char text[32] = "";

	assert_int_equal(guest_mem_write(vm_mem(vm), 8ull << 30, "beyond", 7, &e), 0);
	vm = rig_move(vm, &m);
	assert_int_equal(guest_mem_read(vm_mem(vm), 8ull << 30, text, 7, &e), 0);
	assert_string_equal(text, "beyond");
	assert_true(m.source.rounds[0].skipped_pages > (7ull << 30) / PAGE_BYTES);
	assert_true(m.source.wire_bytes < 200 << 20);
	vm_free(vm);
}

static void a_paused_guest_stays_paused(void **state)
{
	struct rig_migration m;
	struct err e = ERR_INIT;
	struct vm *vm;

	(void)state;
	rig_need_kvm();
	rig_migration_init(&m);
	m.params.verify = true;
	vm = rig_boot(NULL);
	assert_int_equal(vm_pause(vm, &e), 0);
	vm = rig_move(vm, &m);
	assert_int_equal(vm_status(vm), VM_PAUSED);
	assert_false(rig_alive(vm, 20 * NS_PER_MS));
	assert_int_equal(vm_resume(vm, &e), 0);
	rig_check(vm);
	vm_free(vm);
}

static void the_rate_limit_holds(void **state)
{
	/* a guest that dirties faster than the limit allows would rightly never converge */
	struct rig_guest guest = {.memory_bytes = 64 << 20,
				  .nr_cpus = 1,
				  .append = "fill=24M ws=8M rate=500 quiet=1"};
	struct rig_migration m;
	double seconds;

	(void)state;
	rig_need_kvm();
	rig_migration_init(&m);
	m.params.max_bytes_per_s = 50 << 20;
	strcpy(m.params.codec, "none");
	vm_free(rig_move(rig_boot(&guest), &m));
	seconds = (double)m.source.rounds[0].duration_ns / 1e9;
	assert_true((double)m.source.rounds[0].wire_bytes / seconds < 1.1 * (50 << 20));
}

/* What a progress display reads never goes back, and is no faster than the wire. */
static void watch_progress(struct migration_source *s, struct migration_destination *d, void *ctx)
{
	uint64_t limit = *(const uint64_t *)ctx;
	struct migration_report r;
	uint64_t bytes = 0;
	uint64_t data_pages = 0;

	(void)d;
	do {
		migration_source_query(s, &r);
		assert_true(r.wire_bytes >= bytes);
		/* What was sent when we asked before, by the time of now: between its own two we
		 * may have stood still. The limiter lets a batch go ahead of its time. */
		assert_true(bytes < limit * (r.total_ns + NS_PER_S) / NS_PER_S);
		assert_true(r.remaining_bytes <= r.ram_bytes);
		bytes = r.wire_bytes;
		if (r.nr_rounds == 0 && r.round_data_pages > data_pages)
			data_pages = r.round_data_pages;
	} while (!r.ended);
	assert_in_range(data_pages, 1, r.rounds[0].raw_pages);
}

static void progress_is_what_was_sent(void **state)
{
	struct rig_guest guest = {.memory_bytes = 64 << 20,
				  .nr_cpus = 1,
				  .append = "fill=24M ws=8M rate=500 quiet=1"};
	struct rig_migration m;

	(void)state;
	rig_need_kvm();
	rig_migration_init(&m);
	m.params.max_bytes_per_s = 20 << 20;
	strcpy(m.params.codec, "none");
	m.meanwhile = watch_progress;
	m.ctx = &m.params.max_bytes_per_s;
	vm_free(rig_move(rig_boot(&guest), &m));
}

/*
 * 20,000 pages a second are eight times what 10 MiB/s carry, so that a machine under load is too
 * slow for neither side of this; and 1024 of them are more than fits into 20 ms: this guest never
 * converges by itself. Throttled to 99 % it writes 400 a second: it may catch up 10 ms of each
 * second, and runs for 10.
 */
static struct vm *boot_too_busy(struct rig_migration *m)
{
	struct rig_guest guest = {.memory_bytes = 64 << 20,
				  .nr_cpus = 1,
				  .append = "fill=8M ws=4M rate=20000 quiet=1"};

	rig_migration_init(m);
	m->params.max_bytes_per_s = 10 << 20;
	strcpy(m->params.codec, "none");
	return rig_boot(&guest);
}

static void too_busy_for_the_rate_limit(void **state)
{
	struct rig_migration m;
	struct vm *vm;

	(void)state;
	rig_need_kvm();
	vm = boot_too_busy(&m);
	m.params.max_rounds = 8;
	assert_null(rig_migrate(vm, &m));
	assert_int_equal(m.source.status, MIGRATION_FAILED);
	assert_non_null(strstr(m.source.error.msg, "not converged within the allowed rounds (8)"));
	assert_int_equal(m.source.nr_rounds, 8);
	assert_int_equal(vm_status(vm), VM_RUNNING);
	rig_check(vm);
	vm_free(vm);
}

static void throttling_makes_it_converge(void **state)
{
	struct rig_migration m;
	struct vm *vm;

	(void)state;
	rig_need_kvm();
	vm = boot_too_busy(&m);
	m.params.auto_converge = true;
	vm = rig_move(vm, &m);
	print_message("  held back up to %u %% for %llu ms, %u rounds; felt %llu ms before\n",
		      m.source.throttle_max_percent,
		      (unsigned long long)(m.source.throttled_ns / NS_PER_MS), m.source.nr_rounds,
		      (unsigned long long)(m.source.blackout.precopy_max_ns / NS_PER_MS));
	assert_true(m.source.throttle_max_percent >= 20);
	assert_int_equal(m.source.throttle_percent, 0); /* lifted */
	assert_true(m.source.throttled_ns > 0);
	/* what it cost the guest: it never rests for less than a quarter of its 10 ms */
	assert_true(m.source.blackout.precopy_max_ns > 5 * NS_PER_MS / 2);
	vm_free(vm);
}

/* Looked at for half a second, or longer if the machine stands still meanwhile. */
static uint64_t pages_per_s(struct vm *vm)
{
	uint64_t start_ns = clock_now_ns();
	uint64_t before = rig_pages_written(vm);
	uint64_t nr;

	clock_sleep_until_ns(start_ns + NS_PER_S / 2);
	nr = rig_pages_written(vm) - before;
	return nr * NS_PER_S / (clock_now_ns() - start_ns);
}

/* On a machine under load half a second may be a bad one; a guest that is held back to a tenth has
 * no good one. */
static bool writes_again(struct vm *vm, uint64_t before)
{
	uint64_t deadline = clock_now_ns() + 120 * NS_PER_S;

	do
		if (pages_per_s(vm) > before / 2)
			return true;
	while (clock_now_ns() < deadline);
	return false;
}

static void cancel_when_throttled(struct migration_source *s, struct migration_destination *d,
				  void *ctx)
{
	struct migration_report r;

	(void)d;
	(void)ctx;
	do
		migration_source_query(s, &r);
	while (r.throttle_percent < 90 && !r.ended);
	migration_source_cancel(s);
}

/* A guest that was held back to a tenth is as fast as before when the migration is cancelled. */
static void a_cancelled_migration_throttles_nobody(void **state)
{
	struct rig_migration m;
	struct vm *vm;
	uint64_t before;

	(void)state;
	rig_need_kvm();
	vm = boot_too_busy(&m);
	before = pages_per_s(vm);
	m.params.auto_converge = true;
	m.params.downtime_limit_ns = 2 * NS_PER_MS; /* so that it takes long */
	m.params.max_bytes_per_s = 5 << 20;
	m.params.throttle_initial = 90;
	m.meanwhile = cancel_when_throttled;
	assert_null(rig_migrate(vm, &m));
	assert_int_equal(m.source.status, MIGRATION_CANCELLED);
	assert_true(m.source.throttle_max_percent >= 90);
	assert_true(writes_again(vm, before));
	rig_check(vm);
	vm_free(vm);
}

static void the_guest_says_what_it_felt(void **state)
{
	struct rig_guest guest = {.memory_bytes = 64 << 20,
				  .nr_cpus = 1,
				  .append = "fill=24M ws=8M rate=20000 quiet=1 longgap=50"};
	struct rig_migration m;

	(void)state;
	rig_need_kvm();
	rig_migration_init(&m);
	vm_free(rig_move(rig_boot(&guest), &m));
	assert_true(m.source.blackout.present);
	assert_true(m.destination.blackout.present);
	assert_int_equal(m.source.blackout.gap_ns, m.destination.blackout.gap_ns);
	assert_true(m.source.blackout.gap_ns > 0);
}

/* GODWIT_HOPS=200 for the long run of docs/performance.md. */
static int nr_hops(void)
{
	const char *wanted = getenv("GODWIT_HOPS");

	return wanted ? atoi(wanted) : 20;
}

static void *end_at_once(void *arg)
{
	return arg;
}

/* On a host with one processor the kernel lists nearly each of these for a while. */
static void ended_threads_are_no_growth(void **state)
{
	uint32_t before = rig_take_census().nr_threads;

	(void)state;
	for (int i = 0; i < 200; i++) {
		pthread_t thread;

		assert_int_equal(pthread_create(&thread, NULL, end_at_once, NULL), 0);
		pthread_join(thread, NULL);
		assert_int_equal(rig_take_census().nr_threads, before);
	}
}

static void *end_when_told(void *arg)
{
	sem_wait(arg);
	return NULL;
}

static void a_thread_that_lives_is_growth(void **state)
{
	uint32_t before = rig_take_census().nr_threads;
	pthread_t thread;
	sem_t told;

	(void)state;
	sem_init(&told, 0, 0);
	assert_int_equal(pthread_create(&thread, NULL, end_when_told, &told), 0);
	assert_int_equal(rig_take_census().nr_threads, before + 1);
	sem_post(&told);
	pthread_join(thread, NULL);
	sem_destroy(&told);
}

static void back_and_forth_without_growth(void **state)
{
	struct rig_census before = {0};
	struct rig_census after;
	struct vm *vm;

	(void)state;
	rig_need_kvm();
	vm = rig_boot(NULL);
	for (int i = 0; i < nr_hops(); i++) {
		struct rig_migration m;

		if (i == 8) /* allocators, thread stacks and libraries have settled */
			before = rig_take_census();
		rig_migration_init(&m);
		m.params.verify = true;
		m.params.nr_channels = 1 + (uint32_t)i % 3;
		strcpy(m.params.tracker, i % 2 ? "bitmap" : "clear-log");
		vm = rig_move(vm, &m);
	}
	after = rig_take_census();
	print_message(
		"  %d hops: fds %u -> %u, threads %u -> %u, private memory %llu -> %llu KiB\n",
		nr_hops(), before.nr_fds, after.nr_fds, before.nr_threads, after.nr_threads,
		(unsigned long long)before.rss_kib, (unsigned long long)after.rss_kib);
	assert_int_equal(after.nr_fds, before.nr_fds);
	assert_int_equal(after.nr_threads, before.nr_threads);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they keep freed memory */
	assert_true(after.rss_kib < before.rss_kib + 4096);
#endif
	vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bitmap_over_tcp),
		cmocka_unit_test(clear_log_over_tcp),
		cmocka_unit_test(four_channels),
		cmocka_unit_test(lz4_codec),
		cmocka_unit_test(lz4_and_a_busy_guest),
		cmocka_unit_test(auto_packs_for_a_slow_link),
		cmocka_unit_test(over_a_unix_socket),
		cmocka_unit_test(two_vcpus),
		cmocka_unit_test(a_cpu_model_moves_along),
		cmocka_unit_test(beyond_4_gib),
		cmocka_unit_test(a_paused_guest_stays_paused),
		cmocka_unit_test(the_rate_limit_holds),
		cmocka_unit_test(progress_is_what_was_sent),
		cmocka_unit_test(too_busy_for_the_rate_limit),
		cmocka_unit_test(throttling_makes_it_converge),
		cmocka_unit_test(a_cancelled_migration_throttles_nobody),
		cmocka_unit_test(the_guest_says_what_it_felt),
		cmocka_unit_test(ended_threads_are_no_growth),
		cmocka_unit_test(a_thread_that_lives_is_growth),
		cmocka_unit_test(back_and_forth_without_growth),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
