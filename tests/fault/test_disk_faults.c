/*
 * As the fault sweep (test_fault_sweep.c), for a guest with disks: one shared, one copied. Each
 * time: at most one side runs; before COMMIT the source's guest goes on with its own images, which
 * are as they were and which nobody else can open; nothing is left of the copy; a clean retry
 * works.
 */
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "tests/rig/disks.h"
#include "tests/rig/rig.h"
#include "vmm/base/clock.h"
#include "vmm/block/disk.h"

#define MIB (1ull << 20)

struct bench {
	struct rig_disks *images;
	const char *shared;
	const char *here;     /* the copied disk's image at the source */
	const char *there;    /* and where it goes to */
	const char *original; /* what it must be equal to */
	struct fault *source;
	struct fault *destination;
	struct vm *vm;
};

static int set_up(void **state)
{
	struct bench *b = test_calloc(1, sizeof(*b));
	struct err e = ERR_INIT;

	*state = b;
	b->images = rig_disks_new();
	b->shared = rig_disks_make(b->images, "shared", MIB);
	b->original = rig_disks_make(b->images, "original", 4 * MIB);
	b->here = rig_disks_make(b->images, "one", 4 * MIB);
	b->there = rig_disks_path(b->images, "two");
	return fault_new(&b->source, &e) < 0 || fault_new(&b->destination, &e) < 0;
}

static int tear_down(void **state)
{
	struct bench *b = *state;

	fault_free(b->source);
	fault_free(b->destination);
	rig_disks_free(b->images);
	test_free(b);
	return 0;
}

static void boot(struct bench *b)
{
	struct rig_guest guest = {.memory_bytes = 64 << 20,
				  .nr_cpus = 1,
				  .append = "fill=8M ws=1M rate=1000 quiet=1",
				  .disks = {b->shared, b->here}};

	b->vm = rig_boot(&guest);
}

static void init(struct rig_migration *m, const struct bench *b)
{
	rig_migration_init(m);
	m->params.verify = true;
	strcpy(m->params.copy_disks, "1");
	m->source_fault = b->source;
	m->destination_fault = b->destination;
	m->disks[0] = b->shared;
	m->disks[1] = b->there;
}

/* The guest has moved: its disk is the copy now, the old one is removed. */
static void adopt(struct bench *b, struct vm *moved)
{
	const char *old = b->here;

	assert_non_null(moved);
	vm_free(b->vm);
	b->vm = moved;
	rig_check(moved);
	rig_disks_assert_equal(b->there, b->original);
	assert_int_equal(unlink(old), 0);
	b->here = b->there;
	b->there = old;
	rig_disks_assert_locked(b->shared);
	rig_disks_assert_locked(b->here);
}

static void judge(struct bench *b, struct vm *moved, const struct rig_migration *m,
		  const char *fired)
{
	if (m->source.status == MIGRATION_UNKNOWN) {
		assert_int_equal(vm_status(b->vm), VM_POSTMIGRATE);
		adopt(b, moved);
		return;
	}
	print_message("  %s: %s\n", fired, m->source.error.msg);
	assert_int_equal(m->source.status, MIGRATION_FAILED);
	assert_null(moved);
	assert_int_equal(vm_status(b->vm), VM_RUNNING);
	rig_check(b->vm);
	rig_disks_assert_locked(b->shared);
	rig_disks_assert_locked(b->here);
	rig_disks_assert_equal(b->here, b->original);
	assert_int_not_equal(access(b->there, F_OK), 0);
	rig_disks_write(vm_disk(b->vm, 0), 4, 7); /* it goes on with its disks */
}

static void disarm(struct bench *b)
{
	fault_arm(b->source, 0);
	fault_arm(b->destination, 0);
}

static void fail_named(struct bench *b, struct fault *victim, const char *name)
{
	struct rig_migration m;
	struct vm *moved;

	init(&m, b);
	disarm(b);
	fault_arm_name(victim, name);
	moved = rig_migrate(b->vm, &m);
	if (!fault_fired(victim))
		fail_msg("%s was not passed: %s", name, m.source.error.msg);
	judge(b, moved, &m, name);
}

static void succeed(struct bench *b)
{
	struct rig_migration m;
	struct vm *moved;

	init(&m, b);
	disarm(b);
	moved = rig_migrate(b->vm, &m);
	if (m.source.status != MIGRATION_COMPLETED)
		fail_msg("a clean retry: %s", m.source.error.msg);
	adopt(b, moved);
}

static void every_step_of_the_disks(void **state)
{
	static const char *const source_names[] = {
		"src.describe",  "src.disk_channel", "src.disks",    "src.disk_pass",
		"src.disk_data", "src.disk_barrier", "src.precopy",  "src.pause",
		"src.final_ram", "src.offer",        "src.state",    "src.verify",
		"src.ready",     "src.commit",       "src.committed"};
	static const char *const destination_names[] = {
		"dst.channels", "dst.disk_piece",  "dst.disk_barrier", "dst.receive",
		"dst.load",     "dst.accept_disk", "dst.verify",       "dst.ready"};
	struct bench *b = *state;
	struct rig_census before;
	struct rig_census after;

	rig_need_kvm();
	boot(b);
	succeed(b);
	before = rig_take_census();
	for (size_t i = 0; i < sizeof(source_names) / sizeof(source_names[0]); i++)
		fail_named(b, b->source, source_names[i]);
	for (size_t i = 0; i < sizeof(destination_names) / sizeof(destination_names[0]); i++)
		fail_named(b, b->destination, destination_names[i]);
	succeed(b);
	after = rig_take_census();
	assert_int_equal(after.nr_fds, before.nr_fds);
	assert_int_equal(after.nr_threads, before.nr_threads);
	vm_free(b->vm);
}

/* The same point may be passed more than once: in the bulk, beside a round, in the last pass. */
static void every_point_of_the_source(void **state)
{
	struct bench *b = *state;
	uint64_t nth = 1;
	uint64_t nr_failed = 0;

	rig_need_kvm();
	boot(b);
	for (;; nth++) {
		struct rig_migration m;
		struct vm *moved;

		init(&m, b);
		disarm(b);
		fault_arm(b->source, nth);
		moved = rig_migrate(b->vm, &m);
		if (!fault_fired(b->source)) {
			assert_int_equal(m.source.status, MIGRATION_COMPLETED);
			adopt(b, moved);
			break;
		}
		judge(b, moved, &m, fault_fired(b->source));
		nr_failed++;
		nth += nth > 30 ? nth / 4 : 0;
	}
	assert_true(nr_failed >= 15);
	vm_free(b->vm);
}

#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_step_of_the_disks),
		T(every_point_of_the_source),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
