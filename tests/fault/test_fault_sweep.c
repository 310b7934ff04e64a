/*
 * The fault sweep: count the fault points of one good migration, then fail the Nth for every N, on
 * each side, and check the promises each time:
 *   - at most one side runs the guest;
 *   - before COMMIT the source's guest goes on, undamaged;
 *   - no descriptor or thread is leaked;
 *   - a clean retry works.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "tests/rig/fake_verbs.h"
#include "tests/rig/rig.h"
#include "vmm/base/clock.h"

/* src.send and dst.batch are passed once a batch: the first, and then ever larger steps, are
 * enough. */
#define SWEEP_DENSE 40

struct sides {
	struct fake_verbs *verbs; /* NULL: over TCP */
	struct fault *source;
	struct fault *destination;
};

static int make_faults(void **state)
{
	static const struct sides none;
	struct sides *s = test_malloc(sizeof(*s));
	struct err e = ERR_INIT;

	*s = none;
	if (fault_new(&s->source, &e) < 0 || fault_new(&s->destination, &e) < 0)
		return -1;
	*state = s;
	return 0;
}

static int make_rdma_faults(void **state)
{
	struct sides *s;

	if (make_faults(state) < 0)
		return -1;
	s = *state;
	s->verbs = fake_verbs_new(1);
	return 0;
}

static int free_faults(void **state)
{
	struct sides *s = *state;

	if (s->verbs)
		fake_verbs_free(s->verbs);

	fault_free(s->source);
	fault_free(s->destination);
	test_free(s);
	return 0;
}

static void init(struct rig_migration *m, const struct sides *s)
{
	rig_migration_init(m);
	m->source_fault = s->source;
	m->destination_fault = s->destination;
	m->params.verify = true;
	m->params.nr_channels = 2;
	m->params.stall_timeout_ns = 600 * NS_PER_S; /* nobody finds out by waiting */
	if (s->verbs) {
		m->listen = "rdma:127.0.0.1:0";
		m->params.verbs = fake_verbs_ops(s->verbs);
		m->params.rdma_pin_bytes = 8 << 20;
	}
}

/* After COMMIT the outcome is unknown to the source: it stays paused, and the destination runs. */
static struct vm *judge_after_commit(struct vm *source, struct vm *moved)
{
	assert_int_equal(vm_status(source), VM_POSTMIGRATE);
	assert_false(rig_alive(source, 20 * NS_PER_MS));
	assert_non_null(moved);
	vm_free(source);
	rig_check(moved);
	return moved;
}

static struct vm *judge(struct vm *source, struct vm *moved, const struct rig_migration *m,
			const char *fired)
{
	if (m->source.status == MIGRATION_COMPLETED || m->source.status == MIGRATION_UNKNOWN)
		return judge_after_commit(source, moved);
	print_message("  %s: %s\n", fired, m->source.error.msg);
	assert_int_equal(m->source.status, MIGRATION_FAILED);
	assert_null(moved); /* the destination never ran, and is gone */
	assert_int_equal(vm_status(source), VM_RUNNING);
	assert_true(strlen(m->source.error.msg) > 20);
	rig_check(source);
	return source;
}

/* Once both sides have ended, whichever way, no queue pair, region or byte is left. */
static void assert_nothing_left(const struct sides *s)
{
	if (!s->verbs)
		return;
	assert_int_equal(fake_verbs_alive(s->verbs), 0);
	assert_int_equal(fake_verbs_pinned(s->verbs, false), 0);
	assert_int_equal(fake_verbs_pinned(s->verbs, true), 0);
}

/* But where nobody has accepted: there is nobody to say anything. */
static void wait_little(struct rig_migration *m)
{
	m->params.stall_timeout_ns = NS_PER_S;
}

/* Fail the @nth point of @victim; false when the migration has fewer. */
static bool fail_nth(struct vm **vm, const struct sides *s, struct fault *victim, uint64_t nth)
{
	struct rig_migration m;
	struct vm *moved;

	init(&m, s);
	fault_arm(s->source, 0);
	fault_arm(s->destination, 0);
	fault_arm(victim, nth);
	if (victim == s->destination && nth == 1)
		wait_little(&m);
	moved = rig_migrate(*vm, &m);
	assert_nothing_left(s);
	if (!fault_fired(victim)) {
		assert_int_equal(m.source.status, MIGRATION_COMPLETED);
		vm_free(*vm);
		*vm = moved;
		return false;
	}
	*vm = judge(*vm, moved, &m, fault_fired(victim));
	return true;
}

static struct vm *retry_cleanly(struct vm *vm, const struct sides *s)
{
	struct rig_migration m;

	init(&m, s);
	fault_arm(s->source, 0);
	fault_arm(s->destination, 0);
	return rig_move(vm, &m);
}

static void sweep(const struct sides *s, struct fault *victim)
{
	struct vm *vm = retry_cleanly(rig_boot(NULL), s);
	struct rig_census before;
	struct rig_census after;
	uint64_t nr_failed = 0;

	vm = retry_cleanly(vm, s);
	before = rig_take_census();
	for (uint64_t nth = 1; fail_nth(&vm, s, victim, nth);
	     nth += nth < SWEEP_DENSE ? 1 : nth / 4)
		nr_failed++;
	vm = retry_cleanly(vm, s);
	after = rig_take_census();
	assert_true(nr_failed >= 10);
	assert_int_equal(after.nr_fds, before.nr_fds);
	assert_int_equal(after.nr_threads, before.nr_threads);
	print_message("  %llu faults injected\n", (unsigned long long)nr_failed);
	vm_free(vm);
}

static void every_source_step(void **state)
{
	struct sides *s = *state;

	rig_need_kvm();
	sweep(s, s->source);
}

static void every_destination_step(void **state)
{
	struct sides *s = *state;

	rig_need_kvm();
	sweep(s, s->destination);
}

/* Fail a named step, which a sweep by number might miss in a short migration. */
static void fail_named(const struct sides *s, struct vm **vm, struct fault *victim,
		       const char *name)
{
	struct rig_migration m;
	struct vm *moved;

	init(&m, s);
	fault_arm(s->source, 0);
	fault_arm(s->destination, 0);
	fault_arm_name(victim, name);
	if (!strcmp(name, "dst.accept"))
		wait_little(&m);
	moved = rig_migrate(*vm, &m);
	assert_nothing_left(s);
	if (!fault_fired(victim))
		fail_msg("%s was not passed: %s", name, m.source.error.msg);
	*vm = judge(*vm, moved, &m, name);
}

static void every_named_step(void **state)
{
	static const char *const source_names[] = {
		"src.negotiate", "src.describe", "src.image",     "src.channel",  "src.track",
		"src.disks",     "src.precopy",  "src.round",     "src.send",     "src.barrier",
		"src.pause",     "src.capture",  "src.final_ram", "src.offer",    "src.state",
		"src.verify",    "src.ready",    "src.commit",    "src.committed"};
	static const char *const destination_names[] = {
		"dst.accept",   "dst.negotiate", "dst.describe", "dst.image",
		"dst.channels", "dst.channel",   "dst.batch",    "dst.receive",
		"dst.load",     "dst.verify",    "dst.ready"};
	struct sides *s = *state;
	struct vm *vm;

	rig_need_kvm();
	vm = rig_boot(NULL);
	for (size_t i = 0; i < sizeof(source_names) / sizeof(source_names[0]); i++)
		fail_named(s, &vm, s->source, source_names[i]);
	for (size_t i = 0; i < sizeof(destination_names) / sizeof(destination_names[0]); i++)
		fail_named(s, &vm, s->destination, destination_names[i]);
	vm = retry_cleanly(vm, s);
	vm_free(vm);
}

/* ---- over RDMA ---- */

static void every_named_step_of_rdma(void **state)
{
	static const char *const source_names[] = {"src.rdma_connect", "src.rdma_pin",
						   "src.rdma_write"};
	static const char *const destination_names[] = {"dst.rdma_accept", "dst.rdma_pin"};
	struct sides *s = *state;
	struct vm *vm;

	rig_need_kvm();
	vm = rig_boot(NULL);
	for (size_t i = 0; i < sizeof(source_names) / sizeof(source_names[0]); i++)
		fail_named(s, &vm, s->source, source_names[i]);
	for (size_t i = 0; i < sizeof(destination_names) / sizeof(destination_names[0]); i++)
		fail_named(s, &vm, s->destination, destination_names[i]);
	vm_free(retry_cleanly(vm, s));
}

struct door_watch {
	struct fake_verbs *verbs;
	uint32_t open_before_load;
	uint32_t open_when_ready;
};

static void look_at_doors(void *ctx, const char *name)
{
	struct door_watch *w = ctx;

	if (!strcmp(name, "dst.load"))
		w->open_before_load = fake_verbs_open_ends(w->verbs);
	if (!strcmp(name, "dst.ready"))
		w->open_when_ready = fake_verbs_open_ends(w->verbs);
}

/* A source that goes on writing after STATE would write into a guest that has been verified, or
 * runs. */
static void no_queue_pair_is_left_when_the_guest_may_run(void **state)
{
	struct sides *s = *state;
	struct door_watch w = {.verbs = s->verbs, .open_when_ready = 99};
	struct rig_migration m;

	rig_need_kvm();
	init(&m, s);
	fault_arm(s->source, 0);
	fault_arm(s->destination, 0);
	fault_observe(s->destination, look_at_doors, &w);
	vm_free(rig_move(rig_boot(NULL), &m));
	assert_int_equal(w.open_before_load, 2 * m.params.nr_channels);
	assert_int_equal(w.open_when_ready, 0);
}

/* The same steps, and the guest goes all the same. */
static void every_named_step_of_rdma_falls_back(void **state)
{
	static const char *const names[] = {"src.rdma_connect", "src.rdma_region", "src.rdma_pin",
					    "src.rdma_write", "dst.rdma_pin"};
	struct sides *s = *state;
	struct vm *vm;

	rig_need_kvm();
	vm = rig_boot(NULL);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct rig_migration m;

		init(&m, s);
		m.params.rdma_fallback = true;
		fault_arm(s->source, 0);
		fault_arm(s->destination, 0);
		fault_arm_name(names[i][0] == 's' ? s->source : s->destination, names[i]);
		vm = rig_move(vm, &m);
		assert_true(fault_fired(s->source) || fault_fired(s->destination));
		assert_nothing_left(s);
	}
	vm_free(vm);
}

/* Many migrations in a row, half of them with a library call or a completion that fails. */
static void many_in_a_row(void **state)
{
	struct sides *s = *state;
	struct rig_census before;
	struct rig_census after;
	uint32_t nr_failed = 0;
	struct vm *vm;

	rig_need_kvm();
	vm = retry_cleanly(rig_boot(NULL), s);
	before = rig_take_census();
	for (uint32_t i = 0; i < 20; i++) {
		struct rig_migration m;
		struct vm *moved;

		init(&m, s);
		if (i % 2)
			fake_verbs_fail_call(s->verbs, 1 + i * 5, i % 4 == 1 ? EIO : ENODEV);
		else /* each round has at least its mark on each channel */
			fake_verbs_fail_completion(s->verbs, 1 + i / 6, IBV_WC_RETRY_EXC_ERR);
		moved = rig_migrate(vm, &m);
		assert_nothing_left(s);
		fake_verbs_fail_call(s->verbs, 0, 0);
		fake_verbs_fail_completion(s->verbs, 0, IBV_WC_SUCCESS);
		nr_failed += m.source.status == MIGRATION_FAILED;
		vm = judge(vm, moved, &m, "verbs");
		vm = retry_cleanly(vm, s);
	}
	after = rig_take_census();
	print_message("  %u of 20 failed\n", nr_failed);
	assert_int_equal(after.nr_fds, before.nr_fds);
	assert_int_equal(after.nr_threads, before.nr_threads);
	assert_true(nr_failed >= 12);
	vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_named_step, make_faults, free_faults),
		cmocka_unit_test_setup_teardown(every_source_step, make_faults, free_faults),
		cmocka_unit_test_setup_teardown(every_destination_step, make_faults, free_faults),
		cmocka_unit_test_setup_teardown(every_named_step_of_rdma, make_rdma_faults,
						free_faults),
		cmocka_unit_test_setup_teardown(no_queue_pair_is_left_when_the_guest_may_run,
						make_rdma_faults, free_faults),
		cmocka_unit_test_setup_teardown(every_named_step_of_rdma_falls_back,
						make_rdma_faults, free_faults),
		cmocka_unit_test_setup_teardown(many_in_a_row, make_rdma_faults, free_faults),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
