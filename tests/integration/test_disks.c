/* A guest's disks move with it: handed over, or copied while somebody writes them. */
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "tests/rig/disks.h"
#include "tests/rig/must.h"
#include "tests/rig/rig.h"
#include "vmm/base/clock.h"
#include "vmm/block/disk.h"

#define MIB (1ull << 20)

static int make_folder(void **state)
{
	*state = rig_disks_new();
	return 0;
}

static int remove_folder(void **state)
{
	rig_disks_free(*state);
	return 0;
}

static struct vm *boot(const char *first, const char *second)
{
	/* Quiet, so that it converges over the slow links below. */
	struct rig_guest guest = {.memory_bytes = 64 << 20,
				  .nr_cpus = 1,
				  .append = "fill=8M ws=1M rate=100 quiet=1",
				  .disks = {first, second}};

	return rig_boot(&guest);
}

static void init(struct rig_migration *m, const char *copy, const char *first, const char *second)
{
	rig_migration_init(m);
	m->params.verify = true;
	strcpy(m->params.copy_disks, copy);
	m->disks[0] = first;
	m->disks[1] = second;
}

static void shared_disks_are_handed_over(void **state)
{
	const char *a = rig_disks_make(*state, "a", 16 * MIB);
	const char *b = rig_disks_make(*state, "b", 4 * MIB);
	struct rig_migration m;
	struct vm *vm;
	struct err e = ERR_INIT;

	rig_need_kvm();
	vm = boot(a, b);
	for (int i = 0; i < 4; i++) {
		init(&m, "", a, b);
		rig_disks_write(vm_disk(vm, 0), 100, (uint64_t)i);
		vm = rig_move(vm, &m);
		assert_true(m.source.verified);
		assert_int_equal(m.source.disks.nr, 2);
		assert_int_equal(m.source.disks.nr_copied, 0);
		rig_disks_assert_locked(a);
		rig_disks_assert_locked(b);
	}
	assert_int_equal(vm_seize_disks(vm, &e), 0);
	vm_free(vm);
}

struct writer {
	struct vm *source;
	struct fault *hold; /* the source's: it does not pause the guest before that is so */
	uint64_t seed;
	atomic_bool done;
};

/* A guest that is paused writes nothing, and so must we. */
static void hold_the_pause(void *ctx, const char *name)
{
	struct writer *w = ctx;

	while (!strcmp(name, "src.pause") && !atomic_load(&w->done))
		clock_sleep_until_ns(clock_now_ns() + NS_PER_MS);
}

/* While the bulk is sent, slowly enough. */
static void write_meanwhile(struct migration_source *s, struct migration_destination *d, void *ctx)
{
	struct writer *w = ctx;
	struct migration_report r;

	(void)d;
	do {
		migration_source_query(s, &r);
	} while (!r.ended && r.phase < PHASE_DISKS);
	for (uint64_t i = 0; i < 10; i++)
		rig_disks_write(vm_disk(w->source, 1), 20, w->seed * 10 + i);
	atomic_store(&w->done, true);
}

/* There and back again; the first disk is shared all the time. */
static void a_disk_in_use_is_copied(void **state)
{
	const char *shared = rig_disks_make(*state, "shared", 4 * MIB);
	const char *here = rig_disks_make(*state, "b0", 32 * MIB + 512);
	struct writer w = {.seed = 1};
	struct vm *vm;

	rig_need_kvm();
	must(fault_new(&w.hold, e));
	fault_observe(w.hold, hold_the_pause, &w);
	vm = boot(shared, here);
	for (int i = 1; i <= 3; i++) {
		char name[8] = {'b', (char)('0' + i), '\0'};
		const char *there = rig_disks_path(*state, name);
		struct rig_migration m;
		struct stat from;
		struct stat to;

		init(&m, "1", shared, there);
		m.params.max_bytes_per_s = 20 * MIB;
		m.meanwhile = write_meanwhile;
		m.ctx = &w;
		m.source_fault = w.hold;
		w.source = vm;
		w.seed++;
		atomic_store(&w.done, false);
		vm = rig_move(vm, &m);
		assert_true(m.source.verified);
		assert_int_equal(m.source.disks.nr_copied, 1);
		assert_true(m.source.disks.nr_passes >= 3);
		rig_disks_assert_equal(here, there);
		assert_int_equal(stat(here, &from), 0);
		assert_int_equal(stat(there, &to), 0);
		assert_true(to.st_blocks < from.st_blocks + 64); /* holes stayed holes */
		rig_disks_assert_locked(there);
		here = there;
	}
	vm_free(vm);
	fault_free(w.hold);
}

/* What the destination lacks or has wrong fails before anything is sent. */
static void what_cannot_be_is_refused(void **state)
{
	const char *a = rig_disks_make(*state, "a", 4 * MIB);
	const char *b = rig_disks_make(*state, "b", 4 * MIB);
	const char *small = rig_disks_make(*state, "small", MIB);
	static const struct {
		const char *copy;
		int where; /* 0: nowhere, 1: itself, 2: an equal file, 3: a smaller one */
		const char *words;
	} cases[] = {
		{"", 0, "give --disk PATH"},
		{"", 2, "not the one the guest uses"},
		{"all", 1, "a copy needs a place of its own"},
		{"all", 3, "the guest's disk 4194304"},
		{"1", 1, "but the guest has 1"},
	};
	struct vm *vm;

	rig_need_kvm();
	vm = boot(a, NULL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *where[] = {NULL, a, b, small};
		struct rig_migration m;

		init(&m, cases[i].copy, where[cases[i].where], NULL);
		assert_null(rig_migrate(vm, &m));
		assert_int_equal(m.source.status, MIGRATION_FAILED);
		if (!strstr(m.source.error.msg, cases[i].words))
			fail_msg("'%s' lacks '%s'", m.source.error.msg, cases[i].words);
		assert_int_equal(vm_status(vm), VM_RUNNING);
	}
	vm_free(vm);
}

#define T(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(shared_disks_are_handed_over),
		T(a_disk_in_use_is_copied),
		T(what_cannot_be_is_refused),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
