#include "tests/rig/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "vmm/base/clock.h"

#define END_NS (180 * NS_PER_S) /* slow machines */

struct process {
	pid_t pid;
	int pidfd;
	int log; /* a memfd */
	bool reaped;
	int status; /* valid once reaped */
	char *output;
	const char *name;
};

/* In the child, between fork and exec. */
static void become(const char *const argv[], int log, int inherited_fd)
{
	int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_DFL);
	if (inherited_fd >= 0)
		fcntl(inherited_fd, F_SETFD, 0);
	dup2(nothing, STDIN_FILENO);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	execv(argv[0], (char *const *)(uintptr_t)argv);
	dprintf(STDERR_FILENO, "cannot run %s\n", argv[0]);
	_exit(127);
}

struct process *process_start(const char *const argv[], int inherited_fd)
{
	struct process *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	p->name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	p->log = memfd_create("output", MFD_CLOEXEC);
	assert_true(p->log >= 0);
	fflush(NULL);
	p->pid = fork();
	assert_true(p->pid >= 0);
	if (p->pid == 0)
		become(argv, p->log, inherited_fd);
	p->pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
	assert_true(p->pidfd >= 0);
	return p;
}

const char *process_output(struct process *p)
{
	off_t len;
	ssize_t nr;

	if (!p)
		return "nothing that we can hear";
	len = lseek(p->log, 0, SEEK_END);
	free(p->output);
	p->output = calloc(1, (size_t)len + 1);
	assert_non_null(p->output);
	nr = pread(p->log, p->output, (size_t)len, 0);
	assert_true(nr >= 0);
	p->output[nr] = '\0';
	return p->output;
}

/* Has it ended, within @timeout_ms? */
static bool has_ended(struct process *p, int timeout_ms)
{
	struct pollfd ended = {.fd = p->pidfd, .events = POLLIN};

	if (p->reaped || poll(&ended, 1, timeout_ms) == 0)
		return p->reaped;
	p->reaped = waitpid(p->pid, &p->status, 0) == p->pid;
	return p->reaped;
}

static bool find_line(const char *text, const char *prefix, char *rest, size_t cap)
{
	size_t len = strlen(prefix);

	for (const char *end; (end = strchr(text, '\n')); text = end + 1) {
		if (strncmp(text, prefix, len) != 0)
			continue;
		snprintf(rest, cap, "%.*s", (int)(end - text - (ptrdiff_t)len), text + len);
		return true;
	}
	return false;
}

void process_await_line(struct process *p, const char *prefix, char *rest, size_t cap)
{
	uint64_t deadline = clock_now_ns() + END_NS;
	bool ended;

	do {
		ended = has_ended(p, 5);
		if (find_line(process_output(p), prefix, rest, cap))
			return;
	} while (!ended && clock_now_ns() < deadline);
	fail_msg("%s did not say '%s', but: %s", p->name, prefix, process_output(p));
}

pid_t process_pid(const struct process *p)
{
	return p->pid;
}

bool process_has_ended(struct process *p)
{
	return has_ended(p, 0);
}

void process_signal(struct process *p, int signum)
{
	assert_false(p->reaped);
	assert_int_equal(kill(p->pid, signum), 0);
}

int process_wait(struct process *p)
{
	if (!has_ended(p, (int)(END_NS / NS_PER_MS)))
		fail_msg("%s does not end; it said: %s", p->name, process_output(p));
	return WIFEXITED(p->status) ? WEXITSTATUS(p->status) : 128 + WTERMSIG(p->status);
}

void process_free(struct process *p)
{
	if (!p)
		return;
	if (!p->reaped) {
		kill(p->pid, SIGKILL);
		waitpid(p->pid, NULL, 0);
	}
	close(p->pidfd);
	close(p->log);
	free(p->output);
	free(p);
}

/* Nobody has their struct process any more: the test that had it was left by longjmp(). */
int process_end_all(void **state)
{
	FILE *children = fopen("/proc/thread-self/children", "re");
	int pid;

	(void)state;
	while (children && fscanf(children, "%d", &pid) == 1)
		kill(pid, SIGKILL);
	if (children)
		fclose(children);
	while (waitpid(-1, NULL, 0) > 0)
		;
	return 0;
}
