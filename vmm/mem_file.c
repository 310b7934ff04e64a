#include "vmm/mem_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A detached tmpfs of huge pages without a size limit of its own, or -1. */
static int mount_huge_tmpfs(void)
{
	int mount = -1;
	int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);

	if (fs < 0)
		return -1;
	if (fsconfig(fs, FSCONFIG_SET_STRING, "huge", "always", 0) == 0 &&
	    fsconfig(fs, FSCONFIG_SET_STRING, "size", "0", 0) == 0 &&
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		mount = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	close(fs);
	return mount;
}

static int huge_file(void)
{
	int mount = mount_huge_tmpfs();
	int fd;

	if (mount < 0)
		return -1;
	/* The file keeps the filesystem alive; when it is closed, both are gone. */
	fd = openat(mount, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	close(mount);
	return fd;
}

/* ---- Without privileges: as the root of a user namespace ---- */

struct id_maps {
	char uid[32], gid[32];
};

static bool tell(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool told = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return told;
}

static bool become_root(const struct id_maps *maps)
{
	return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && tell("/proc/self/setgroups", "deny") &&
	       tell("/proc/self/uid_map", maps->uid) && tell("/proc/self/gid_map", maps->gid);
}

/* Closes what it opens: the descriptors are the parent's, too. */
static bool replace_by_huge_file(int fd)
{
	int huge = huge_file();
	bool done = huge >= 0 && dup3(huge, fd, O_CLOEXEC) == fd;

	if (huge >= 0)
		close(huge);
	return done;
}

/*
 * A child that shares our descriptors becomes root of namespaces of its own, where anybody may
 * mount a tmpfs, puts a file of that in the place of @fd, and is gone: the file stays. It sends no
 * SIGCHLD, which others may be waiting for. Only system calls in it: other threads may hold locks.
 */
static bool replace_as_own_root(int fd)
{
	struct id_maps maps;
	int status;
	pid_t child;

	snprintf(maps.uid, sizeof(maps.uid), "0 %u 1", geteuid());
	snprintf(maps.gid, sizeof(maps.gid), "0 %u 1", getegid());
	child = (pid_t)syscall(SYS_clone, CLONE_FILES, NULL, NULL, NULL, 0);
	if (child == 0)
		_exit(become_root(&maps) && replace_by_huge_file(fd) ? 0 : 1);
	while (child > 0 && waitpid(child, &status, (int)__WCLONE) < 0)
		if (errno != EINTR)
			return false;
	return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int mem_file_new(uint64_t bytes, bool *huge, struct err *e)
{
	int fd = memfd_create("godwit-guest-memory", MFD_CLOEXEC);

	if (fd < 0)
		return err_sys(e, "cannot create the file behind guest memory (memfd_create)");
	*huge = replace_by_huge_file(fd) || replace_as_own_root(fd);
	if (ftruncate(fd, (off_t)bytes) == 0)
		return fd;
	err_sys(e, "cannot size guest memory to %" PRIu64 " MiB", bytes >> 20);
	close(fd);
	return -e->code;
}
