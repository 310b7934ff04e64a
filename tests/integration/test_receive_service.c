/*
 * `godwit receive --keep`, as users have it: real processes, one service, several guests that come
 * one after another and at once, some of which die; strangers that knock.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "control/command.h"
#include "tests/rig/rig.h"
#include "tests/rig/vmm_process.h"
#include "vmm/base/link.h"

#define MOST 3

struct host {
	struct process *service;
	char uri[400];
	char pattern[100]; /* of the QMP sockets */
};

static void start_service(struct host *h, const char *guests_at_once)
{
	char qmp[120];
	char rest[400];
	const char *const argv[] = {GODWIT, "receive", "tcp:127.0.0.1:0", "--qmp",
				    qmp,    "--keep",  guests_at_once,    NULL};

	snprintf(h->pattern, sizeof(h->pattern), "/tmp/godwit-service-%d-", (int)getpid());
	snprintf(qmp, sizeof(qmp), "unix:%s%%n.qmp", h->pattern);
	h->service = process_start(argv, -1);
	process_await_line(h->service, "waiting for guests at ", rest, sizeof(rest));
	snprintf(h->uri, sizeof(h->uri), "%.*s", (int)strcspn(rest, ","), rest);
}

static void socket_path(const struct host *h, int number, char path[120])
{
	snprintf(path, 120, "%s%d.qmp", h->pattern, number);
}

static void attach(const struct host *h, int number, struct vmm_process *guest)
{
	char path[120];

	socket_path(h, number, path);
	vmm_process_attach(guest, path);
}

static void forget_socket(const struct host *h, int number)
{
	char path[120];

	socket_path(h, number, path);
	unlink(path);
}

static struct process *start_migrate(const struct vmm_process *from, const struct host *to)
{
	const char *const argv[] = {GODWIT,      "migrate", from->qmp_path, to->uri,
				    "--streams", "2",       "--verify",     NULL};

	return process_start(argv, -1);
}

/* The source's program ends by itself, as its guest has gone. */
static void await_moved(struct process *migrate, struct vmm_process *source)
{
	if (process_wait(migrate) != EXIT_OK)
		fail_msg("%s", process_output(migrate));
	process_free(migrate);
	assert_int_equal(process_wait(source->process), EXIT_OK);
	qmp_client_close(source->qmp);
	source->qmp = NULL;
	vmm_process_end(source);
}

static void move(const struct host *h)
{
	struct vmm_process source;

	vmm_process_run(&source, NULL);
	await_moved(start_migrate(&source, h), &source);
}

static void assert_well(const struct host *h, int number)
{
	struct vmm_process guest;

	attach(h, number, &guest);
	assert_true(vmm_process_guest_works(&guest));
	vmm_process_check_pages(&guest);
	qmp_client_close(guest.qmp);
}

static void await(const struct host *h, const char *line)
{
	char rest[200];

	process_await_line(h->service, line, rest, sizeof(rest));
}

static void quit(const struct host *h, int number)
{
	struct vmm_process guest;
	char line[80];

	attach(h, number, &guest);
	vmm_process_end(&guest);
	snprintf(line, sizeof(line), "guest %d: its process ended with status 0", number);
	await(h, line);
}

static pid_t pid_of(const struct host *h, int number)
{
	char prefix[40];
	char rest[200];
	const char *word = rest;

	snprintf(prefix, sizeof(prefix), "guest %d: arriving from ", number);
	process_await_line(h->service, prefix, rest, sizeof(rest));
	while (strchr(word, ' '))
		word = strchr(word, ' ') + 1;
	return (pid_t)atoi(word);
}

static void end_service(struct host *h)
{
	process_signal(h->service, SIGTERM);
	if (process_wait(h->service) != EXIT_OK)
		fail_msg("%s", process_output(h->service));
	process_free(h->service);
}

static void guests_come_at_once(void **state)
{
	struct vmm_process source[MOST + 1];
	struct process *migrate[MOST];
	struct process *refused;
	struct host h;

	(void)state;
	rig_need_kvm();
	start_service(&h, "3");
	for (int i = 0; i <= MOST; i++)
		vmm_process_run(&source[i], NULL);
	for (int i = 0; i < MOST; i++)
		migrate[i] = start_migrate(&source[i], &h);
	for (int i = 0; i < MOST; i++)
		await_moved(migrate[i], &source[i]);

	refused = start_migrate(&source[MOST], &h);
	assert_int_equal(process_wait(refused), EXIT_MIGRATION_FAILED);
	assert_non_null(strstr(process_output(refused), "takes 3 guests at once and has them"));
	process_free(refused);
	assert_true(vmm_process_guest_works(&source[MOST]));
	for (int i = 1; i <= MOST; i++)
		assert_well(&h, i);

	/* the place that becomes free is the next one's */
	quit(&h, 2);
	await_moved(start_migrate(&source[MOST], &h), &source[MOST]);
	assert_well(&h, 2);
	for (int i = 1; i <= MOST; i++)
		quit(&h, i);
	end_service(&h);
}

static void a_dead_guest_harms_nobody(void **state)
{
	struct vmm_process held;
	struct process *migrate;
	struct host h;

	(void)state;
	rig_need_kvm();
	start_service(&h, "2");
	move(&h);
	/* the second is killed while it arrives: its source goes on */
	vmm_process_run(&held, "src.precopy");
	migrate = start_migrate(&held, &h);
	vmm_process_await(&held, "src.precopy");
	assert_int_equal(kill(pid_of(&h, 2), SIGKILL), 0);
	await(&h, "guest 2: its process was killed by signal 9");
	vmm_process_let_go(&held);
	assert_int_equal(process_wait(migrate), EXIT_MIGRATION_FAILED);
	assert_non_null(strstr(process_output(migrate), "the guest goes on at the source"));
	process_free(migrate);
	assert_true(vmm_process_guest_works(&held));
	assert_well(&h, 1);
	/* the first is killed at work: the next attempt takes its number */
	assert_int_equal(kill(pid_of(&h, 1), SIGKILL), 0);
	await(&h, "guest 1: its process was killed by signal 9");
	await_moved(start_migrate(&held, &h), &held);
	assert_well(&h, 1);
	quit(&h, 1);
	end_service(&h);
	forget_socket(&h, 2); /* what kill -9 leaves */
}

static struct link *knock(const struct host *h, const void *words, size_t len)
{
	struct err e = ERR_INIT;
	struct link *link;
	struct uri uri;

	assert_int_equal(uri_parse(h->uri, &uri, &e), 0);
	if (link_connect(&uri, 0, NULL, &link, &e) < 0 || link_send(link, words, len, &e) < 0)
		fail_msg("%s", e.msg);
	return link;
}

static void assert_shown_out(struct link *link)
{
	struct err e = ERR_INIT;
	char byte;

	assert_true(link_recv(link, &byte, 1, &e) < 0);
	assert_int_equal(e.kind, ERR_PEER);
	link_free(link);
}

static void strangers_are_shown_out(void **state)
{
	static const char half_a_header[] = {0x47, 0x44, 0x57, 0x54, 0x01, 0x00};
	struct link *silent[40];
	struct link *slow;
	struct host h;

	(void)state;
	rig_need_kvm();
	start_service(&h, "1");
	for (size_t i = 0; i < sizeof(silent) / sizeof(silent[0]); i++)
		silent[i] = knock(&h, "", 0);
	slow = knock(&h, half_a_header, sizeof(half_a_header));
	assert_shown_out(knock(&h, "GET / HTTP/1.1\r\n\r\n", 18));
	/* none of them keeps a guest from coming */
	move(&h);
	assert_well(&h, 1);
	/* and a stranger's patience ends before ours */
	assert_shown_out(slow);
	for (size_t i = 0; i < sizeof(silent) / sizeof(silent[0]); i++)
		assert_shown_out(silent[i]);
	quit(&h, 1);
	end_service(&h);
}

/* It waits for its guests, or leaves them: never ends them. */
static void guests_outlive_the_service(void **state)
{
	struct vmm_process guest;
	struct vmm_process late;
	struct process *migrate;
	struct host h;

	(void)state;
	rig_need_kvm();
	start_service(&h, "2");
	move(&h);
	process_signal(h.service, SIGTERM);
	await(&h, "no more guests are taken; waiting for the 1 that are here");
	vmm_process_run(&late, NULL);
	migrate = start_migrate(&late, &h);
	assert_int_equal(process_wait(migrate), EXIT_MIGRATION_FAILED);
	assert_non_null(strstr(process_output(migrate), "this service is about to end"));
	process_free(migrate);
	vmm_process_end(&late);
	attach(&h, 1, &guest);
	end_service(&h);
	assert_true(vmm_process_guest_works(&guest));
	vmm_process_end(&guest);
}

static void guests_outlive_a_killed_service(void **state)
{
	struct vmm_process guest;
	struct host h;

	(void)state;
	rig_need_kvm();
	start_service(&h, "2");
	move(&h);
	attach(&h, 1, &guest);
	process_signal(h.service, SIGKILL);
	assert_int_equal(process_wait(h.service), 128 + SIGKILL);
	process_free(h.service);
	assert_true(vmm_process_guest_works(&guest));
	vmm_process_end(&guest);
}

static void expect_usage_error(const char *const argv[], const char *what)
{
	struct process *p = process_start(argv, -1);

	assert_int_equal(process_wait(p), EXIT_USAGE);
	if (!strstr(process_output(p), what))
		fail_msg("expected '%s' in: %s", what, process_output(p));
	process_free(p);
}

static void what_cannot_be_shared_is_refused(void **state)
{
	const char *const qmp[] = {GODWIT, "receive", "tcp::0", "--keep",
				   "2",    "--qmp",   "unix:x", NULL};
	const char *const disk[] = {GODWIT, "receive", "tcp::0", "--keep=2", "--disk=%x.raw", NULL};
	const char *const terminal[] = {GODWIT, "receive",  "tcp::0", "--keep",
					"1",    "--serial", "stdio",  NULL};

	(void)state;
	expect_usage_error(qmp, "several guests cannot share");
	expect_usage_error(disk, "after % come n");
	expect_usage_error(terminal, "no guest has the terminal");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(guests_come_at_once),
		cmocka_unit_test(a_dead_guest_harms_nobody),
		cmocka_unit_test(strangers_are_shown_out),
		cmocka_unit_test(guests_outlive_the_service),
		cmocka_unit_test(guests_outlive_a_killed_service),
		cmocka_unit_test(what_cannot_be_shared_is_refused),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
