/*
 * Real processes that die or are told to stop, in each step of a migration: the destination killed,
 * the source killed, cancelled. Which step is no matter of luck: one VMM holds there (see
 * tests/rig/held_vmm.c), everything else is the program as users have it.
 *
 * Each time: the guest lives on exactly one side and its counters go on, what is said is one line
 * that tells where the guest is, no process is left, and the next attempt succeeds.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <setjmp.h>

#include <cmocka.h>

#include "control/command.h"
#include "tests/rig/rig.h"
#include "tests/rig/vmm_process.h"
#include "vmm/base/clock.h"

static const char *const source_points[] = {
	"src.negotiate", "src.describe", "src.image",   "src.channel",
	"src.track",     "src.precopy",  "src.round",   "src.send",
	"src.barrier",   "src.pause",    "src.capture", "src.final_ram",
	"src.state",     "src.verify",   "src.ready",   "src.commit",
};

static const char *const destination_points[] = {
	"dst.accept",  "dst.negotiate", "dst.describe", "dst.image",  "dst.channels", "dst.channel",
	"dst.receive", "dst.batch",     "dst.load",     "dst.verify", "dst.ready",
};

#define NR(array) (sizeof(array) / sizeof((array)[0]))

static struct process *start_migrate(const struct vmm_process *from, const struct vmm_process *to)
{
	const char *const argv[] = {GODWIT, "migrate", from->qmp_path, to->uri, "--verify", NULL};

	return process_start(argv, -1);
}

/* The error is exactly one line, and says @what. */
static void assert_says(struct process *p, const char *what)
{
	const char *line = process_output(p);
	const char *error = strstr(line, "error: ");

	if (!error || !strstr(error, what))
		fail_msg("expected '%s' in: %s", what, line);
	if (strchr(error, '\n') != error + strlen(error) - 1)
		fail_msg("expected one line, not: %s", line);
}

static void assert_none_left(void)
{
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

/* The next attempt, with nobody in the way; both ends are gone afterwards. */
static void move_cleanly(struct vmm_process *source)
{
	struct vmm_process destination;
	struct process *migrate;

	vmm_process_receive(&destination, NULL);
	migrate = start_migrate(source, &destination);
	if (process_wait(migrate) != EXIT_OK)
		fail_msg("a clean attempt failed: %s", process_output(migrate));
	process_free(migrate);
	assert_int_equal(process_wait(source->process), EXIT_OK);
	qmp_client_close(source->qmp);
	source->qmp = NULL;
	assert_true(vmm_process_guest_works(&destination));
	vmm_process_check_pages(&destination);
	vmm_process_end(source);
	vmm_process_end(&destination);
	assert_none_left();
}

/* Until @caller has connected to @uri and waits to be accepted: in the kernel's table a listening
 * socket's receive queue is their number. */
static void await_caller(struct process *caller, const char *uri)
{
	unsigned wanted = (unsigned)strtoul(strrchr(uri, ':') + 1, NULL, 10);
	unsigned waiting = 0;
	char line[256];

	while (!waiting) {
		FILE *table = fopen("/proc/net/tcp", "re");
		unsigned port, state, nr;

		assert_non_null(table);
		if (process_has_ended(caller))
			fail_msg("it ended before it was accepted: %s", process_output(caller));
		while (fgets(line, sizeof(line), table))
			if (sscanf(line, " %*d: %*x:%x %*x:%*x %x %*x:%x", &port, &state, &nr) ==
				    3 &&
			    port == wanted && state == TCP_LISTEN)
				waiting = nr;
		fclose(table);
		clock_sleep_until_ns(clock_now_ns() + 2 * NS_PER_MS);
	}
}

/* What @migrate, which lost @destination, says and where it leaves the guest. */
static void judge_left_with_source(struct process *migrate, struct vmm_process *source,
				   struct vmm_process *destination, const char *remedy)
{
	assert_int_equal(process_wait(migrate), EXIT_MIGRATION_FAILED);
	print_message("  %s", process_output(migrate));
	assert_says(migrate, destination->uri);
	assert_says(migrate, "the guest goes on at the source");
	assert_says(migrate, remedy);
	assert_true(vmm_process_guest_works(source));
	process_free(migrate);
	vmm_process_end(destination);
}

static void kill_destination_at(struct vmm_process *source, const char *point)
{
	struct vmm_process destination;
	struct process *migrate;

	vmm_process_receive(&destination, point);
	migrate = start_migrate(source, &destination);
	vmm_process_await(&destination, point);
	if (!strcmp(point, "dst.accept"))
		await_caller(migrate, destination.uri);
	vmm_process_kill(&destination);
	print_message("  %s:", point);
	judge_left_with_source(migrate, source, &destination, "see what the other side said");
}

static void kill_destination_before_it_is_called(struct vmm_process *source)
{
	struct vmm_process destination;

	vmm_process_receive(&destination, NULL);
	vmm_process_kill(&destination);
	print_message("  not called yet:");
	judge_left_with_source(start_migrate(source, &destination), source, &destination,
			       "is 'godwit receive");
}

static void the_destination_is_killed(void **state)
{
	struct vmm_process source;

	(void)state;
	rig_need_kvm();
	vmm_process_run(&source, NULL);
	kill_destination_before_it_is_called(&source);
	for (size_t i = 0; i < NR(destination_points); i++)
		kill_destination_at(&source, destination_points[i]);
	vmm_process_check_pages(&source);
	move_cleanly(&source);
}

/* Before it has said anything the destination knows of nobody, and goes on waiting. */
static void assert_still_waits(struct vmm_process *destination)
{
	json_decref(vmm_process_call(destination, "query-status", NULL, NULL));
}

static void kill_source_at(const char *point)
{
	struct vmm_process source;
	struct vmm_process destination;
	struct process *migrate;

	vmm_process_run(&source, point);
	vmm_process_receive(&destination, NULL);
	migrate = start_migrate(&source, &destination);
	vmm_process_await(&source, point);
	vmm_process_kill(&source);
	assert_int_equal(process_wait(migrate), EXIT_UNKNOWN);
	assert_says(migrate, "see whether the guest runs at the destination");
	if (!strcmp(point, "src.negotiate")) {
		assert_still_waits(&destination);
	} else {
		assert_int_equal(process_wait(destination.process), EXIT_MIGRATION_FAILED);
		print_message("  %s: %s", point, process_output(destination.process));
		assert_says(destination.process, destination.uri);
		assert_says(destination.process, "see what the other side said");
		qmp_client_close(destination.qmp);
		destination.qmp = NULL;
	}
	process_free(migrate);
	vmm_process_end(&source);
	vmm_process_end(&destination);
	assert_none_left();
}

static void the_source_is_killed(void **state)
{
	(void)state;
	rig_need_kvm();
	for (size_t i = 0; i < NR(source_points); i++)
		kill_source_at(source_points[i]);
}

/* Killed with COMMIT on its way: the guest has moved. */
static void the_source_is_killed_after_commit(void **state)
{
	struct vmm_process source;
	struct vmm_process destination;
	struct process *migrate;

	(void)state;
	rig_need_kvm();
	vmm_process_run(&source, "src.committed");
	vmm_process_receive(&destination, NULL);
	migrate = start_migrate(&source, &destination);
	vmm_process_await(&source, "src.committed");
	vmm_process_kill(&source);
	assert_int_equal(process_wait(migrate), EXIT_UNKNOWN);
	assert_true(vmm_process_guest_works(&destination));
	process_free(migrate);
	vmm_process_end(&source);
	move_cleanly(&destination);
}

/* Until QMP says that the migration has ended: was it cancelled? */
static bool ends_cancelled(struct vmm_process *v, char *why, size_t cap)
{
	bool cancelled = false;
	bool ended = false;

	while (!ended) {
		json_t *info = vmm_process_call(v, "query-migrate", NULL, NULL);
		const char *text = json_string_value(json_object_get(info, "error-desc"));
		const char *word = json_string_value(json_object_get(info, "status"));

		ended = json_is_true(json_object_get(json_object_get(info, "x-godwit"), "ended"));
		snprintf(why, cap, "%s", text ? text : "");
		cancelled = word && !strcmp(word, "cancelled");
		json_decref(info);
		clock_sleep_until_ns(clock_now_ns() + 2 * NS_PER_MS);
	}
	return cancelled;
}

/* By QMP, as any program would. */
static void migrate_with_verify(struct vmm_process *from, const struct vmm_process *to)
{
	json_t *verify = json_pack("{s:[{s:s,s:b}]}", "capabilities", "capability",
				   "x-godwit-verify", "state", true);

	json_decref(vmm_process_call(from, "migrate-set-capabilities", verify, NULL));
	json_decref(vmm_process_call(from, "migrate", json_pack("{s:s}", "uri", to->uri), NULL));
}

/* What the destination of a migration that was cancelled at @point does. */
static void judge_left_alone(struct vmm_process *destination, const char *point)
{
	if (!strcmp(point, "src.negotiate")) {
		assert_still_waits(destination);
	} else {
		assert_int_equal(process_wait(destination->process), EXIT_CANCELLED);
		assert_says(destination->process, "cancelled by the user");
		qmp_client_close(destination->qmp);
		destination->qmp = NULL;
	}
	vmm_process_end(destination);
}

static void cancel_at(const char *point)
{
	struct vmm_process source;
	struct vmm_process destination;
	char why[600];

	vmm_process_run(&source, point);
	vmm_process_receive(&destination, NULL);
	migrate_with_verify(&source, &destination);
	vmm_process_await(&source, point);
	json_decref(vmm_process_call(&source, "migrate_cancel", NULL, NULL));
	vmm_process_let_go(&source);
	assert_true(ends_cancelled(&source, why, sizeof(why)));
	print_message("  %s: %s\n", point, why);
	assert_true(vmm_process_guest_works(&source));
	judge_left_alone(&destination, point);
	move_cleanly(&source);
}

static void cancelled_in_each_step(void **state)
{
	(void)state;
	rig_need_kvm();
	for (size_t i = 0; i < NR(source_points); i++)
		cancel_at(source_points[i]);
}

/*
 * COMMIT has been handed to the kernel and nobody has answered: the one outcome that cannot be
 * known here. The destination is stopped before COMMIT and killed after it.
 */
static void the_destination_is_killed_after_commit(void **state)
{
	struct vmm_process source;
	struct vmm_process destination;
	struct process *migrate;
	struct err refusal = ERR_INIT;

	(void)state;
	rig_need_kvm();
	vmm_process_run(&source, "src.commit,src.committed");
	vmm_process_receive(&destination, NULL);
	migrate = start_migrate(&source, &destination);
	vmm_process_await(&source, "src.commit");
	process_signal(destination.process, SIGSTOP);
	vmm_process_release(&source);
	vmm_process_await(&source, "src.committed");
	vmm_process_kill(&destination);
	vmm_process_let_go(&source);

	assert_int_equal(process_wait(migrate), EXIT_UNKNOWN);
	print_message("  %s", process_output(migrate));
	assert_non_null(strstr(process_output(migrate), "outcome unknown; this side stays paused"));
	assert_true(vmm_process_guest_stands(&source));
	assert_null(vmm_process_call(&source, "cont", NULL, &refusal));
	assert_non_null(strstr(refusal.msg, "may run at the migration's destination"));
	/* the user has looked: it does not run there, and never will */
	json_decref(vmm_process_call(&source, "cont", json_pack("{s:b}", "x-godwit-force", true),
				     NULL));
	assert_true(vmm_process_guest_works(&source));
	process_free(migrate);
	vmm_process_end(&destination);
	move_cleanly(&source);
}

/* The program that steers is nobody's life line. */
static void the_steersman_is_killed(void **state)
{
	struct vmm_process source;
	struct vmm_process destination;
	struct process *migrate;

	(void)state;
	rig_need_kvm();
	vmm_process_run(&source, "src.precopy");
	vmm_process_receive(&destination, NULL);
	migrate = start_migrate(&source, &destination);
	vmm_process_await(&source, "src.precopy");
	process_signal(migrate, SIGKILL);
	process_wait(migrate);
	vmm_process_let_go(&source);
	assert_true(vmm_process_guest_works(&destination));
	process_free(migrate);
	vmm_process_end(&source);
	move_cleanly(&destination);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(the_destination_is_killed, process_end_all),
		cmocka_unit_test_teardown(the_source_is_killed, process_end_all),
		cmocka_unit_test_teardown(the_source_is_killed_after_commit, process_end_all),
		cmocka_unit_test_teardown(cancelled_in_each_step, process_end_all),
		cmocka_unit_test_teardown(the_destination_is_killed_after_commit, process_end_all),
		cmocka_unit_test_teardown(the_steersman_is_killed, process_end_all),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
