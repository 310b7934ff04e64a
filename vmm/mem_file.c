#include "vmm/mem_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/mount.h>
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

int mem_file_new(uint64_t bytes, bool *huge, struct err *e)
{
	int fd = huge_file();

	*huge = fd >= 0;
	if (fd < 0)
		fd = memfd_create("godwit-guest-memory", MFD_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "cannot create the file behind guest memory (memfd_create)");
	if (ftruncate(fd, (off_t)bytes) == 0)
		return fd;
	err_sys(e, "cannot size guest memory to %" PRIu64 " MiB", bytes >> 20);
	close(fd);
	return -e->code;
}
