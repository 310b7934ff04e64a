/*
 * Destinations without the memory for the guest: one that may not map it, one in a control group
 * that is too small. Both say what is missing, and the guest goes on where it is.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "control/command.h"
#include "tests/rig/rig.h"
#include "tests/rig/vmm_process.h"

#define GROUP       "/sys/fs/cgroup/memory/godwit-test-%d"
#define GROUP_BYTES "33554432"

/* Migrate there; it must fail with @what, said on both sides. */
static void refused(struct vmm_process *source, struct vmm_process *destination, const char *what)
{
	const char *const argv[] = {GODWIT, "migrate", source->qmp_path, destination->uri, NULL};
	struct process *migrate = process_start(argv, -1);

	assert_int_equal(process_wait(migrate), EXIT_MIGRATION_FAILED);
	print_message("  %s", process_output(migrate));
	assert_non_null(strstr(process_output(migrate), what));
	assert_int_equal(process_wait(destination->process), EXIT_MIGRATION_FAILED);
	assert_non_null(strstr(process_output(destination->process), what));
	assert_true(vmm_process_guest_works(source));
	process_free(migrate);
	qmp_client_close(destination->qmp);
	destination->qmp = NULL;
}

/* What is mapped already: a sanitizer's shadow is terabytes. */
static rlim_t mapped_bytes(pid_t pid)
{
	unsigned long pages = 0;
	char path[32];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu", &pages), 1);
	fclose(f);
	return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

/* Less than the guest's 64 MiB, and enough for the threads of a migration. */
static void let_map_no_more_than(pid_t pid, rlim_t bytes)
{
	rlim_t most = mapped_bytes(pid) + bytes;

	assert_int_equal(prlimit(pid, RLIMIT_AS, &(struct rlimit){most, most}, NULL), 0);
}

static void it_may_not_map_so_much(void **state)
{
	struct vmm_process source;
	struct vmm_process destination;

	(void)state;
	rig_need_kvm();
	vmm_process_run(&source, NULL);
	vmm_process_receive(&destination, NULL);
	let_map_no_more_than(process_pid(destination.process), 48 << 20);
	refused(&source, &destination, "cannot map 64 MiB of guest memory (raise `ulimit -v`");
	vmm_process_check_pages(&source);
	vmm_process_end(&destination);
	vmm_process_end(&source);
}

static bool write_to(const char *dir, const char *file, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "we");
	return f && fputs(text, f) >= 0 && fclose(f) == 0;
}

static void its_control_group_is_too_small(void **state)
{
	struct vmm_process source;
	struct vmm_process destination;
	char group[64];
	char pid[16];

	(void)state;
	rig_need_kvm();
	snprintf(group, sizeof(group), GROUP, (int)getpid());
	if (mkdir(group, 0700) < 0 || !write_to(group, "memory.limit_in_bytes", GROUP_BYTES)) {
		print_message("SKIPPED: needs root and memory control groups (version 1)\n");
		rmdir(group);
		skip();
	}
	vmm_process_run_workload(&source, NULL, "fill=48M ws=4M rate=5000 quiet=1");
	vmm_process_receive(&destination, NULL);
	snprintf(pid, sizeof(pid), "%d", (int)process_pid(destination.process));
	assert_true(write_to(group, "cgroup.procs", pid));
	refused(&source, &destination, "raise its control group's limit");
	vmm_process_check_pages(&source);
	vmm_process_end(&destination);
	vmm_process_end(&source);
	assert_int_equal(rmdir(group), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_may_not_map_so_much),
		cmocka_unit_test(its_control_group_is_too_small),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
