#include "tests/rig/vmm_process.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
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

#include "tests/rig/rig.h"
#include "vmm/base/clock.h"
#include "vmm/guest_report.h"

#define WORKLOAD  "fill=8M ws=4M rate=5000 quiet=1"
#define PATIENCE  (120 * NS_PER_S) /* emulated hosts are slow */
#define STANDS_NS (50 * NS_PER_MS)

static void open_qmp(struct vmm_process *v)
{
	uint64_t deadline = clock_now_ns() + PATIENCE;
	struct err e = ERR_INIT;

	while (qmp_client_open(v->qmp_path, &v->qmp, &e) < 0) {
		if ((v->process && process_has_ended(v->process)) || clock_now_ns() > deadline)
			fail_msg("%s; it said: %s", e.msg, process_output(v->process));
		e = (struct err)ERR_INIT;
		clock_sleep_until_ns(clock_now_ns() + 5 * NS_PER_MS);
	}
}

/* The line that a held VMM reports on; its number on the other side in @text. */
static int open_hold(struct vmm_process *v, char text[16])
{
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	v->hold = ends[0];
	snprintf(text, 16, "%d", ends[1]);
	return ends[1];
}

static void init(struct vmm_process *v)
{
	memset(v, 0, sizeof(*v));
	v->hold = -1;
	snprintf(v->qmp_path, sizeof(v->qmp_path), "/tmp/godwit-test-%d-%p.qmp", (int)getpid(),
		 (void *)v);
}

static void start(struct vmm_process *v, const char *const argv[], int held_end)
{
	v->process = process_start(argv, held_end);
	if (held_end >= 0)
		close(held_end);
	open_qmp(v);
}

json_t *vmm_process_call(struct vmm_process *v, const char *command, json_t *args,
			 struct err *refusal)
{
	struct err e = ERR_INIT;
	json_t *result = NULL;

	if (qmp_client_call(v->qmp, command, args, &result, &e) == 0)
		return result;
	if (!refusal)
		fail_msg("%s: %s; it said: %s", command, e.msg, process_output(v->process));
	*refusal = e;
	return NULL;
}

/* A word of the guest's report, read as any process of this user may; 0 while there is none. */
static uint64_t report_word(struct vmm_process *v, size_t offset)
{
	struct err no_guest_yet = ERR_INIT;
	json_t *view = vmm_process_call(v, "x-godwit-guest-memory", NULL, &no_guest_yet);
	json_int_t pid, fd, gpa;
	uint64_t word = 0;
	char path[64];
	int memory;

	if (!view)
		return 0;
	assert_int_equal(
		json_unpack(view, "{s:I,s:I,s:I}", "pid", &pid, "fd", &fd, "report-gpa", &gpa), 0);
	json_decref(view);
	if (!gpa)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, (int)fd);
	memory = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(memory >= 0);
	assert_int_equal(pread(memory, &word, sizeof(word), (off_t)gpa + (off_t)offset),
			 sizeof(word));
	close(memory);
	return word;
}

static uint64_t tsc_sample(struct vmm_process *v)
{
	return report_word(v, sizeof(struct guest_report) +
				      offsetof(struct guest_cpu_report, last_tsc));
}

/* Until it is here, and works. */
static void await_guest(struct vmm_process *v)
{
	uint64_t deadline = clock_now_ns() + PATIENCE;

	while (report_word(v, offsetof(struct guest_report, tsc_running)) == 0) {
		if (clock_now_ns() > deadline)
			fail_msg("no guest works here; it said: %s", process_output(v->process));
		clock_sleep_until_ns(clock_now_ns() + 5 * NS_PER_MS);
	}
}

void vmm_process_run(struct vmm_process *v, const char *points)
{
	vmm_process_run_workload(v, points, WORKLOAD);
}

void vmm_process_run_workload(struct vmm_process *v, const char *points, const char *append)
{
	char fd[16];

	init(v);
	if (points) {
		int theirs = open_hold(v, fd);
		const char *const argv[] = {
			GODWIT_HELD, points,     fd,    "--kernel", rig_workload_path(), "--append",
			append,      "--memory", "64M", "--qmp",    v->qmp_path,         NULL};

		start(v, argv, theirs);
	} else {
		char qmp[120];
		const char *const argv[] = {GODWIT,     "run",  "--kernel", rig_workload_path(),
					    "--append", append, "--memory", "64M",
					    "--serial", "null", "--qmp",    qmp,
					    NULL};

		snprintf(qmp, sizeof(qmp), "unix:%s", v->qmp_path);
		start(v, argv, -1);
	}
	await_guest(v);
}

void vmm_process_receive(struct vmm_process *v, const char *points)
{
	char qmp[120];
	char fd[16];

	init(v);
	snprintf(qmp, sizeof(qmp), "unix:%s", v->qmp_path);
	if (points) {
		int theirs = open_hold(v, fd);
		const char *const argv[] = {GODWIT_HELD,       points,  fd,  "--incoming",
					    "tcp:127.0.0.1:0", "--qmp", qmp, NULL};

		start(v, argv, theirs);
	} else {
		const char *const argv[] = {GODWIT,  "receive", "tcp:127.0.0.1:0",
					    "--qmp", qmp,       NULL};

		start(v, argv, -1);
	}
	process_await_line(v->process, "waiting for a guest at ", v->uri, sizeof(v->uri));
}

void vmm_process_attach(struct vmm_process *v, const char *qmp_path)
{
	init(v);
	snprintf(v->qmp_path, sizeof(v->qmp_path), "%s", qmp_path);
	open_qmp(v);
}

void vmm_process_await(struct vmm_process *v, const char *point)
{
	struct pollfd said = {.fd = v->hold, .events = POLLIN};
	char line[64] = "";
	ssize_t nr;

	if (poll(&said, 1, (int)(PATIENCE / NS_PER_MS)) <= 0)
		fail_msg("it never came by %s; it said: %s", point, process_output(v->process));
	nr = read(v->hold, line, sizeof(line) - 1);
	if (nr <= 0)
		fail_msg("it ended before %s: %s", point, process_output(v->process));
	line[nr - 1] = '\0';
	assert_string_equal(line, point);
}

void vmm_process_release(struct vmm_process *v)
{
	assert_int_equal(write(v->hold, "", 1), 1);
}

void vmm_process_let_go(struct vmm_process *v)
{
	assert_int_equal(shutdown(v->hold, SHUT_WR), 0);
}

void vmm_process_kill(struct vmm_process *v)
{
	process_signal(v->process, SIGKILL);
	assert_int_equal(process_wait(v->process), 128 + SIGKILL);
	qmp_client_close(v->qmp);
	v->qmp = NULL;
}

static bool moves_within(struct vmm_process *v, uint64_t ns)
{
	uint64_t deadline = clock_now_ns() + ns;
	uint64_t before = tsc_sample(v);

	do {
		clock_sleep_until_ns(clock_now_ns() + 2 * NS_PER_MS);
		if (tsc_sample(v) != before)
			return true;
	} while (clock_now_ns() < deadline);
	return false;
}

bool vmm_process_guest_works(struct vmm_process *v)
{
	await_guest(v);
	return moves_within(v, PATIENCE);
}

bool vmm_process_guest_stands(struct vmm_process *v)
{
	return !moves_within(v, STANDS_NS);
}

void vmm_process_check_pages(struct vmm_process *v)
{
	const char *const argv[] = {GODWIT_GUEST_CHECK, v->qmp_path, NULL};
	struct process *check = process_start(argv, -1);
	int status = process_wait(check);

	if (status)
		fail_msg("pages are wrong: %s", process_output(check));
	process_free(check);
}

void vmm_process_end(struct vmm_process *v)
{
	if (v->qmp) {
		json_decref(vmm_process_call(v, "quit", NULL, NULL));
		qmp_client_close(v->qmp);
		if (v->process)
			process_wait(v->process);
	}
	process_free(v->process);
	if (v->hold >= 0)
		close(v->hold);
	unlink(v->qmp_path); /* what kill -9 leaves */
}
