/*
 * The program as people type it, without a guest: help, what is typed wrongly, where it says what,
 * and what it says when its own output is lost.
 */
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "control/command.h"
#include "tests/rig/process.h"

/* @line, for the shell, where $godwit is the program, ends with @status and says @words. */
static void check_line(const char *line, int inherited_fd, int status, const char *words)
{
	char script[400];
	const char *const argv[] = {"/bin/sh", "-c", script, NULL};
	struct process *p;
	int ended;

	snprintf(script, sizeof(script), "godwit='%s'; %s", GODWIT, line);
	p = process_start(argv, inherited_fd);
	ended = process_wait(p);
	if (ended != status || !strstr(process_output(p), words))
		fail_msg("'%s' ends with %d and says '%s', not %d and '%s'", line, ended,
			 process_output(p), status, words);
	process_free(p);
}

static void ends(const char *line, int status, const char *words)
{
	check_line(line, -1, status, words);
}

static void help_is_found_by_either_name(void **state)
{
	(void)state;
	ends("$godwit help", EXIT_OK, "usage: godwit COMMAND");
	ends("$godwit help migrate", EXIT_OK, "usage: godwit migrate QMP-SOCKET URI");
	ends("$godwit help nested", EXIT_OK, "usage: godwit nested COMMAND");
	ends("$godwit help nested soak", EXIT_OK, "usage: godwit nested soak");
	ends("$godwit nested help view", EXIT_OK, "usage: godwit nested view");
	ends("$godwit nested help", EXIT_OK, "usage: godwit nested COMMAND");
	ends("$godwit help migrtae", EXIT_USAGE, "did you mean 'migrate'?");
}

static void wrong_words_are_refused_before_any_work(void **state)
{
	(void)state;
	ends("$godwit nested soak --serial /nowhere/x", EXIT_USAGE,
	     "--serial /nowhere/x: No such file or directory");
	ends("$godwit nested soak --over rdma:", EXIT_USAGE,
	     "--over rdma:: tcp, unix and rdma:HOST");
	ends("$godwit nested soak --lines", EXIT_USAGE, "--lines needs --kernel");
	ends("$godwit nested soak --initrd /dev/null", EXIT_USAGE, "--initrd needs --kernel");
	ends("$godwit nested bench --save /nowhere/x", EXIT_USAGE,
	     "--save /nowhere/x: No such file or directory");
	ends("$godwit nested view /dev/null", EXIT_USAGE, "/dev/null is not a QMP socket");
}

/* Whoever lets the system choose the port has to be told; standard output is the guest's. */
static void a_destination_says_where_it_listens(void **state)
{
	static const char *const argv[] = {
		"/bin/sh", "-c",
		"exec \"$0\" run --incoming tcp:127.0.0.1:0 --serial null >/dev/null", GODWIT,
		NULL};
	struct process *p = process_start(argv, -1);
	char rest[80];

	(void)state;
	process_await_line(p, "waiting for a guest at tcp:127.0.0.1:", rest, sizeof(rest));
	assert_string_not_equal(rest, "0");
	process_signal(p, SIGTERM);
	assert_int_equal(process_wait(p), EXIT_CANCELLED);
	process_free(p);
}

static void output_that_is_lost_is_no_success(void **state)
{
	(void)state;
	ends("$godwit help >/dev/full", EXIT_FAILED, "standard output cannot be written");
	ends("$godwit help migrate >/dev/full", EXIT_FAILED, "standard output cannot be written");
	ends("$godwit nosuch >/dev/full", EXIT_USAGE, "no command 'nosuch'");
}

static void a_reader_may_leave(void **state)
{
	char line[80];
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	close(fds[0]);
	snprintf(line, sizeof(line), "$godwit help >&%d", fds[1]);
	check_line(line, fds[1], EXIT_OK, "");
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(help_is_found_by_either_name, process_end_all),
		cmocka_unit_test_teardown(wrong_words_are_refused_before_any_work, process_end_all),
		cmocka_unit_test_teardown(a_destination_says_where_it_listens, process_end_all),
		cmocka_unit_test_teardown(output_that_is_lost_is_no_success, process_end_all),
		cmocka_unit_test_teardown(a_reader_may_leave, process_end_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
