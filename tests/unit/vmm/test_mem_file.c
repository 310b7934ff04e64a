/* vmm/mem_file.c: what guest memory is made of, with and without privileges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/mem_file.h"

#define BYTES  (64ull << 20)
#define NOBODY 65534

static int nr_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int nr = 0;

	while (readdir(d))
		nr++;
	closedir(d);
	return nr;
}

/* Run @fn in a child; its exit status. */
static int in_child(int (*fn)(void))
{
	int status;
	pid_t child = fork();

	if (child == 0)
		_exit(fn());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* Another program: a sanitizer's threads would keep this one from a user namespace. */
static bool may_mount_as_own_root(void)
{
	return system("unshare -Urm mount -t tmpfs -o huge=always none /tmp 2>/dev/null") == 0;
}

static int is_a_good_file(bool *huge)
{
	struct err e = ERR_INIT;
	struct stat st;
	int before = nr_fds();
	int fd = mem_file_new(BYTES, huge, &e);

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size != BYTES || st.st_nlink != 0)
		return 0;
	if (nr_fds() != before + 1)
		return 0;
	if (pwrite(fd, "x", 1, 5 << 20) != 1 || lseek(fd, 0, SEEK_DATA) > 5 << 20)
		return 0;
	/* Sparse: at most a huge page came to be. */
	return fstat(fd, &st) == 0 && st.st_blocks * 512 <= 2 << 20 && close(fd) == 0;
}

static int unprivileged(void)
{
	bool can, huge;

	if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0))
		return 0;
	prctl(PR_SET_DUMPABLE, 1); /* setuid took it, and a login would give it back */
	can = may_mount_as_own_root();
	if (!can)
		print_message("  no user namespaces, or no huge pages, here: a memfd\n");
	return is_a_good_file(&huge) && huge == can;
}

static void anybody_gets_huge_pages(void **state)
{
	(void)state;
	assert_int_equal(in_child(unprivileged), 1);
}

static void a_new_file_is_sparse_and_unlinked(void **state)
{
	bool huge;

	(void)state;
	assert_true(is_a_good_file(&huge));
}

static void no_child_is_left_and_none_is_reported(void **state)
{
	struct err e = ERR_INIT;
	sigset_t set, pending;
	bool huge;
	int fd;

	(void)state;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = mem_file_new(BYTES, &huge, &e);
	assert_true(fd >= 0);
	close(fd);
	sigpending(&pending);
	assert_false(sigismember(&pending, SIGCHLD));
	assert_int_equal(waitpid(-1, NULL, (int)__WALL), -1);
	assert_int_equal(errno, ECHILD);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_file_is_sparse_and_unlinked),
		cmocka_unit_test(anybody_gets_huge_pages),
		cmocka_unit_test(no_child_is_left_and_none_is_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
