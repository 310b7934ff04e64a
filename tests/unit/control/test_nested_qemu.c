/* nested_qemu.c with shell scripts for QEMU: what comes back, and what is said when nothing does.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "control/ending_signals.h"
#include "control/nested_qemu.h"
#include "vmm/base/clock.h"

struct fake {
	char path[40];
	struct nested_qemu config;
	char *said;
	struct err e;
};

/* @line is what the script does with the FIFO that it is to write to, "$serial", and the file that
 * is to be the guest's memory, "$memory". */
static int run_until(struct fake *f, const char *line, int signals)
{
	FILE *out;
	int fd, ret;

	*f = (struct fake){.path = "/tmp/godwit-fake-qemu.XXXXXX",
			   .config = {.kernel = "l1.elf",
				      .append = "l1.mode=bench",
				      .memory_bytes = 1 << 20,
				      .end = "bench end",
				      .patience_ns = 60 * NS_PER_S,
				      .signals = signals},
			   .e = ERR_INIT};
	fd = mkstemp(f->path);
	assert_true(fd >= 0);
	out = fdopen(fd, "w");
	assert_non_null(out);
	fprintf(out,
		"#!/bin/sh\nfor word; do case $word in file:*) serial=${word#file:} ;; "
		"*mem-path=*) memory=${word##*mem-path=} ;; esac; done\n%s\n",
		line);
	assert_int_equal(fclose(out), 0);
	assert_int_equal(chmod(f->path, 0700), 0);
	f->config.program = f->path;
	ret = nested_qemu_run(&f->config, &f->said, &f->e);
	unlink(f->path);
	return ret;
}

static int run(struct fake *f, const char *line)
{
	return run_until(f, line, -1);
}

static void fails(const char *line, const char *says)
{
	struct fake f;

	assert_true(run(&f, line) < 0);
	assert_null(f.said);
	if (!strstr(f.e.msg, says))
		fail_msg("'%s' does not say '%s'", f.e.msg, says);
}

static void what_it_says_comes_back(void **state)
{
	struct fake f;

	(void)state;
	assert_int_equal(run(&f, "printf 'bench begin\\nbench end\\n' >\"$serial\"; exec sleep 60"),
			 0);
	assert_string_equal(f.said, "bench begin\nbench end\n");
	free(f.said);
}

static void it_can_open_its_memory(void **state)
{
	struct fake f;

	(void)state;
	assert_int_equal(run(&f, "[ \"$(stat -Lc %s $memory)\" = 1048576 ] && "
				 "echo x >$memory && printf 'bench end' >\"$serial\""),
			 0);
	free(f.said);
}

/* It has said all, so how it ends is all the same. */
static void one_that_is_done_may_end(void **state)
{
	struct fake f;

	(void)state;
	assert_int_equal(run(&f, "printf 'bench end' >\"$serial\""), 0);
	assert_string_equal(f.said, "bench end");
	free(f.said);
}

static void one_that_ends_early(void **state)
{
	(void)state;
	fails("exit 1", "ended early");
}

static void one_that_asks_before_it_says_where(void **state)
{
	(void)state;
	fails("printf '\\005' >\"$serial\"; exec sleep 60", "asks and does not say where");
}

static void an_answer_outside_its_memory(void **state)
{
	(void)state;
	fails("printf 'bench exits_gpa=0xffff8\\n\\005' >\"$serial\"; exec sleep 60",
	      "asks and does not say where");
}

/* A user's Ctrl-C: it does not go on behind our back, and has the signals it needs to be ended. */
static void one_that_is_interrupted(void **state)
{
	struct err e = ERR_INIT;
	int signals = ending_signals_open(&e);
	struct fake f;

	(void)state;
	assert_true(signals >= 0);
	assert_int_equal(kill(getpid(), SIGTERM), 0);
	assert_true(run_until(&f, "exec sleep 60", signals) < 0);
	assert_int_equal(f.e.kind, ERR_CANCELLED);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	assert_int_equal(run(&f, "kill $$; printf 'bench end' >\"$serial\""), -EIO);
	assert_non_null(strstr(f.e.msg, "ended early"));
	close(signals);
}

static void one_that_is_not_there(void **state)
{
	struct nested_qemu config = {.program = "/nonexistent/qemu",
				     .kernel = "l1.elf",
				     .append = "",
				     .memory_bytes = 1 << 20,
				     .end = "bench end",
				     .patience_ns = NS_PER_S,
				     .signals = -1};
	struct err e = ERR_INIT;
	char *said = NULL;

	(void)state;
	assert_true(nested_qemu_run(&config, &said, &e) < 0);
	assert_non_null(strstr(e.msg, "cannot start /nonexistent/qemu"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_it_says_comes_back),
		cmocka_unit_test(it_can_open_its_memory),
		cmocka_unit_test(one_that_is_done_may_end),
		cmocka_unit_test(one_that_ends_early),
		cmocka_unit_test(one_that_asks_before_it_says_where),
		cmocka_unit_test(an_answer_outside_its_memory),
		cmocka_unit_test(one_that_is_interrupted),
		cmocka_unit_test(one_that_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
