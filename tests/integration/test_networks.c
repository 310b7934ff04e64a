/* A guest's network hears of a migration: when the guest is paused, and when it stays after all. */
#include <net/ethernet.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "tests/rig/rig.h"
#include "vmm/net/net_announce.h"
#include "vmm/net/net_backend.h"

#define MAC "52:54:00:00:00:07"

/* A cable for each side; the test has their far ends. The workload guest has no driver for a card,
 * so whatever is heard there comes from the VMMs. */
struct cables {
	int near[2];
	int far[2];
	char spec[2][64];
	struct fault *fault;
};

static int lay(void **state)
{
	struct cables *c = test_calloc(1, sizeof(*c));
	struct err e = ERR_INIT;

	for (int i = 0; i < 2; i++) {
		int ends[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends), 0);
		c->near[i] = ends[0];
		c->far[i] = ends[1];
		snprintf(c->spec[i], sizeof(c->spec[i]), "fd:%d,mac=" MAC, ends[0]);
	}
	assert_int_equal(fault_new(&c->fault, &e), 0);
	*state = c;
	return 0;
}

static int take_away(void **state)
{
	struct cables *c = *state;

	for (int i = 0; i < 2; i++) {
		close(c->near[i]);
		close(c->far[i]);
	}
	fault_free(c->fault);
	test_free(c);
	return 0;
}

static void assert_hears_rarp(int cable)
{
	uint8_t frame[NET_MAX_BYTES];
	ssize_t nr = read(cable, frame, sizeof(frame));

	assert_int_equal(nr, NET_HDR_BYTES + ANNOUNCE_FRAME_BYTES);
	assert_memory_equal(frame + NET_HDR_BYTES + ETH_ALEN, "\x52\x54\0\0\0\7", ETH_ALEN);
	assert_memory_equal(frame + NET_HDR_BYTES + 2 * ETH_ALEN, "\x80\x35", 2);
}

static void assert_silent(int cable)
{
	uint8_t byte;

	assert_int_equal(read(cable, &byte, 1), -1);
}

static struct vm *boot(const struct cables *c)
{
	const struct rig_guest guest = {.memory_bytes = 64 << 20, .nr_cpus = 1, .net = c->spec[0]};

	return rig_boot(&guest);
}

/* The migration fails at @source_point or @destination_point, and the guest stays. */
static void try_to_move(struct cables *c, const char *source_point, const char *destination_point,
			uint32_t rounds)
{
	struct rig_migration m;
	struct vm *vm;

	rig_need_kvm();
	vm = boot(c);
	rig_migration_init(&m);
	m.net = c->spec[1];
	m.params.announce.rounds = rounds;
	*(source_point ? &m.source_fault : &m.destination_fault) = c->fault;
	fault_arm_name(c->fault, source_point ? source_point : destination_point);
	assert_null(rig_migrate(vm, &m));
	assert_int_equal(m.source.status, MIGRATION_FAILED);
	assert_non_null(fault_fired(c->fault));
	assert_silent(c->far[0]);
	rig_check(vm);
	vm_free(vm);
}

static void frames_are_drawn_when_the_guest_is_paused(void **state)
{
	struct cables *c = *state;

	try_to_move(c, NULL, "dst.load", 5);
	assert_hears_rarp(c->far[1]);
	assert_silent(c->far[1]);
}

static void but_not_while_it_runs_at_the_source(void **state)
{
	struct cables *c = *state;

	try_to_move(c, "src.final_ram", NULL, 5);
	assert_silent(c->far[1]);
}

static void nor_where_nothing_is_to_be_announced(void **state)
{
	struct cables *c = *state;

	try_to_move(c, NULL, "dst.load", 0);
	assert_silent(c->far[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, lay, take_away)
		TEST(frames_are_drawn_when_the_guest_is_paused),
		TEST(but_not_while_it_runs_at_the_source),
		TEST(nor_where_nothing_is_to_be_announced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
