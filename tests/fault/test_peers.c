/*
 * Peers that vanish, lie or have second thoughts: cancelled in each phase, wrong versions, garbage,
 * truncated streams, a destination that cannot build the machine. Each gets one clear line, and the
 * source's guest goes on.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "proto/record.h"
#include "proto/stream.pb-c.h"
#include "tests/rig/rig.h"
#include "vmm/base/clock.h"

static void assert_says(const struct migration_report *r, const char *what)
{
	if (!strstr(r->error.msg, what))
		fail_msg("expected '%s' in: %s", what, r->error.msg);
}

/* ---- cancelling ---- */

struct cancel_plan {
	enum migration_phase phase;
	bool by_destination;
};

static void cancel_in_phase(struct migration_source *s, struct migration_destination *d, void *ctx)
{
	const struct cancel_plan *plan = ctx;
	struct migration_report r;

	do
		migration_source_query(s, &r);
	while (r.phase < plan->phase && !r.ended);
	if (plan->by_destination)
		migration_destination_cancel(d);
	else
		migration_source_cancel(s);
}

static void cancel_everywhere(bool by_destination)
{
	struct vm *vm;

	rig_need_kvm();
	vm = rig_boot(NULL);
	/* a destination can only speak up once it has been spoken to */
	for (int phase = by_destination ? PHASE_DESCRIBE : PHASE_NEGOTIATE; phase <= PHASE_COMMIT;
	     phase++) {
		struct cancel_plan plan = {(enum migration_phase)phase, by_destination};
		struct rig_migration m;
		struct vm *moved;

		rig_migration_init(&m);
		m.params.max_bytes_per_s = 200 << 20;
		m.meanwhile = cancel_in_phase;
		m.ctx = &plan;
		m.build = NULL;
		moved = rig_migrate(vm, &m);
		print_message("  %s: %s %s\n", migration_phase_name(plan.phase),
			      migration_status_name(m.source.status), m.source.error.msg);
		if (m.source.status == MIGRATION_COMPLETED) {
			/* too late to cancel: allowed, as long as exactly one side runs */
			assert_non_null(moved);
			vm_free(vm);
			vm = moved;
		} else {
			assert_int_equal(m.source.status, MIGRATION_CANCELLED);
			assert_null(moved);
			assert_int_equal(vm_status(vm), VM_RUNNING);
		}
		rig_check(vm);
	}
	vm_free(vm);
}

static void cancelled_by_the_source(void **state)
{
	(void)state;
	cancel_everywhere(false);
}

static void cancelled_by_the_destination(void **state)
{
	(void)state;
	cancel_everywhere(true);
}

/* ---- destinations that say no ---- */

static int refuse_to_build(void *ctx, struct vm_config *config, struct vm **vm, struct err *e)
{
	(void)ctx;
	(void)config;
	(void)vm;
	return err_set(e, ERR_SYS, ENOMEM, "cannot allocate 64 MiB of guest memory");
}

static void the_destination_cannot_build_it(void **state)
{
	struct rig_migration m;
	struct vm *vm;

	(void)state;
	rig_need_kvm();
	vm = rig_boot(NULL);
	rig_migration_init(&m);
	m.build = refuse_to_build;
	assert_null(rig_migrate(vm, &m));
	assert_int_equal(m.source.status, MIGRATION_FAILED);
	assert_says(&m.source, "cannot allocate 64 MiB of guest memory");
	assert_says(&m.source, "the guest goes on at the source");
	rig_check(vm);
	vm_free(vm);
}

static void nobody_listens(void **state)
{
	struct migration_events none = {0};
	struct migration_params params;
	struct migration_report report;
	struct migration_source *s;
	struct err e = ERR_INIT;
	struct uri uri;
	struct vm *vm;

	(void)state;
	rig_need_kvm();
	vm = rig_boot(NULL);
	migration_params_init(&params);
	assert_int_equal(uri_parse("unix:/tmp/godwit-no-such-socket", &uri, &e), 0);
	assert_int_equal(migration_source_start(vm, &uri, &params, &none, NULL, &s, &e), 0);
	migration_source_wait(s, &report);
	migration_source_free(s);
	assert_int_equal(report.status, MIGRATION_FAILED);
	assert_says(&report, "connection refused");
	assert_says(&report, "godwit receive");
	rig_check(vm);
	vm_free(vm);
}

/* ---- a fake destination, played record by record ---- */

#define HEARD_NS (60 * NS_PER_S)

struct fake {
	struct link_listener *listener;
	pthread_t thread;
	void (*play)(const struct fake *f, struct record_stream *s);
};

static void *fake_main(void *arg)
{
	struct fake *f = arg;
	struct record_stream records;
	struct err e = ERR_INIT;
	struct link *link;

	if (link_accept(f->listener, NULL, HEARD_NS, NULL, &link, &e) < 0)
		return NULL;
	link_set_stall_timeout(link, HEARD_NS);
	record_stream_init(&records, link, "source");
	f->play(f, &records);
	link_free(link);
	return NULL;
}

/* @stall_ns: what the source takes for silence. Long, where something is to be heard: a machine
 * that stands still for a second is no silent peer. */
static void migrate_to_fake(void (*play)(const struct fake *f, struct record_stream *s),
			    uint64_t stall_ns, const char *expected)
{
	struct migration_events none = {0};
	struct fake f = {.play = play};
	struct migration_params params;
	struct migration_report report;
	struct migration_source *s;
	struct err e = ERR_INIT;
	struct uri uri;
	struct vm *vm;

	rig_need_kvm();
	vm = rig_boot(NULL);
	migration_params_init(&params);
	params.stall_timeout_ns = stall_ns;
	assert_int_equal(uri_parse("tcp:127.0.0.1:0", &uri, &e), 0);
	assert_int_equal(link_listen(&uri, &f.listener, &e), 0);
	assert_int_equal(uri_parse(link_listener_address(f.listener), &uri, &e), 0);
	assert_int_equal(pthread_create(&f.thread, NULL, fake_main, &f), 0);
	assert_int_equal(migration_source_start(vm, &uri, &params, &none, NULL, &s, &e), 0);
	migration_source_wait(s, &report);
	migration_source_free(s);
	pthread_join(f.thread, NULL);
	link_listener_free(f.listener);
	print_message("  %s\n", report.error.msg);
	assert_int_equal(report.status, MIGRATION_FAILED);
	assert_says(&report, expected);
	if (stall_ns == HEARD_NS)
		assert_true(report.total_ns < HEARD_NS); /* it was heard, not waited for */
	assert_int_equal(vm_status(vm), VM_RUNNING);
	rig_check(vm);
	vm_free(vm);
}

static void play_newer_version(const struct fake *f, struct record_stream *s)
{
	Godwit__HelloAck ack = GODWIT__HELLO_ACK__INIT;
	struct record r = {.body = BUF_INIT};
	struct err e = ERR_INIT;

	(void)f;
	(void)record_recv(s, &r, &e);
	ack.has_version = 1;
	ack.version = 77;
	(void)record_send(s, RECORD_HELLO_ACK, &ack.base, &e);
	(void)record_recv(s, &r, &e);
	buf_fini(&r.body);
}

static void await_hanging_up(struct record_stream *s)
{
	struct pollfd gone = {.fd = link_fd(s->link), .events = POLLRDHUP};

	poll(&gone, 1, HEARD_NS / NS_PER_MS);
}

static void play_garbage(const struct fake *f, struct record_stream *s)
{
	struct err e = ERR_INIT;

	(void)f;
	(void)link_send(s->link, "SSH-2.0-OpenSSH_9.2p1 Debian\r\n", 30, &e);
	await_hanging_up(s);
}

static void play_silence(const struct fake *f, struct record_stream *s)
{
	(void)f;
	await_hanging_up(s);
}

static void play_hang_up(const struct fake *f, struct record_stream *s)
{
	(void)f;
	(void)s;
}

/* Takes all that comes on this connection, until another one waits to be accepted. */
static void await_channel(const struct fake *f, struct record_stream *s)
{
	struct pollfd fds[2] = {{.fd = link_fd(s->link), .events = POLLIN},
				{.fd = link_listener_fd(f->listener), .events = POLLIN}};
	struct record r = {.body = BUF_INIT};
	struct err e = ERR_INIT;

	while (poll(fds, 2, HEARD_NS / NS_PER_MS) > 0 && fds[0].revents)
		if (record_recv(s, &r, &e) < 0)
			break;
	buf_fini(&r.body);
}

/* Gives up over a channel that it has not accepted; whoever listens there goes on listening. */
static void play_second_thoughts(const struct fake *f, struct record_stream *s)
{
	Godwit__HelloAck ack = GODWIT__HELLO_ACK__INIT;
	struct record r = {.body = BUF_INIT};
	struct err e = ERR_INIT;

	(void)record_recv(s, &r, &e);
	ack.has_version = 1;
	ack.version = STREAM_VERSION_MAX;
	(void)record_send(s, RECORD_HELLO_ACK, &ack.base, &e);
	(void)record_recv(s, &r, &e);
	(void)record_send(s, RECORD_DESCRIBE_ACK, NULL, &e);
	buf_fini(&r.body);
	await_channel(f, s);
	err_set(&e, ERR_SYS, ENOMEM, "no memory for a channel");
	record_send_abort(s, &e);
}

static void the_destination_speaks_another_version(void **state)
{
	(void)state;
	migrate_to_fake(play_newer_version, HEARD_NS, "stream version 77");
}

static void the_destination_is_something_else(void **state)
{
	(void)state;
	migrate_to_fake(play_garbage, HEARD_NS, "not a godwit migration stream");
}

static void the_destination_says_nothing(void **state)
{
	(void)state;
	migrate_to_fake(play_silence, NS_PER_S, "no progress for 1.0 s");
}

static void the_destination_hangs_up(void **state)
{
	(void)state;
	migrate_to_fake(play_hang_up, HEARD_NS, "hearing from the destination");
}

static void the_destination_gives_up_over_a_channel(void **state)
{
	(void)state;
	migrate_to_fake(play_second_thoughts, HEARD_NS,
			"the destination gave up: no memory for a channel");
}

/* ---- hostile or dying sources ---- */

static int never_build(void *ctx, struct vm_config *config, struct vm **vm, struct err *e)
{
	(void)ctx;
	(void)config;
	(void)vm;
	return err_set(e, ERR_STATE, EINVAL, "must not be built");
}

static void receive_from_fake(const void *bytes, size_t len, const char *expected)
{
	struct migration_destination_config config = {.build = never_build,
						      .accept_timeout_ns = HEARD_NS};
	struct migration_destination *d;
	struct migration_report report;
	struct link_listener *listener;
	struct err e = ERR_INIT;
	struct link *link;
	struct uri uri;
	struct vm *vm;

	assert_int_equal(uri_parse("tcp:127.0.0.1:0", &uri, &e), 0);
	assert_int_equal(link_listen(&uri, &listener, &e), 0);
	assert_int_equal(uri_parse(link_listener_address(listener), &uri, &e), 0);
	assert_int_equal(migration_destination_start(listener, &config, &d, &e), 0);
	assert_int_equal(link_connect(&uri, HEARD_NS, NULL, &link, &e), 0);
	assert_int_equal(link_send(link, bytes, len, &e), 0);
	link_free(link);
	migration_destination_wait(d, &report, &vm);
	assert_null(vm);
	migration_destination_free(d);
	link_listener_free(listener);
	print_message("  %s\n", report.error.msg);
	assert_int_equal(report.status, MIGRATION_FAILED);
	assert_says(&report, expected);
}

static void the_source_is_something_else(void **state)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: example\r\n\r\n";

	(void)state;
	receive_from_fake(request, sizeof(request) - 1, "not a godwit migration stream");
}

static void the_source_claims_too_much(void **state)
{
	uint32_t head[4] = {RECORD_MAGIC, RECORD_HELLO, 0x7fffffff, 0};

	(void)state;
	receive_from_fake(head, sizeof(head), "claims 2147483647 bytes");
}

static void the_source_stops_in_mid_record(void **state)
{
	uint32_t head[6] = {RECORD_MAGIC, RECORD_HELLO, 1000, 0, 1, 2};

	(void)state;
	receive_from_fake(head, sizeof(head), "closed the connection");
}

static void the_source_sends_nonsense_in_a_record(void **state)
{
	uint32_t head[6] = {RECORD_MAGIC, RECORD_HELLO, 8, 0, 0xffffffff, 0xffffffff};

	(void)state;
	receive_from_fake(head, sizeof(head), "malformed");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cancelled_by_the_source),
		cmocka_unit_test(cancelled_by_the_destination),
		cmocka_unit_test(the_destination_cannot_build_it),
		cmocka_unit_test(nobody_listens),
		cmocka_unit_test(the_destination_speaks_another_version),
		cmocka_unit_test(the_destination_is_something_else),
		cmocka_unit_test(the_destination_says_nothing),
		cmocka_unit_test(the_destination_hangs_up),
		cmocka_unit_test(the_destination_gives_up_over_a_channel),
		cmocka_unit_test(the_source_is_something_else),
		cmocka_unit_test(the_source_claims_too_much),
		cmocka_unit_test(the_source_stops_in_mid_record),
		cmocka_unit_test(the_source_sends_nonsense_in_a_record),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
