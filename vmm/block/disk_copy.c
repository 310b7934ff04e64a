#include "vmm/block/disk_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int cannot_write(const char *path, struct err *e)
{
	return err_sys(e,
		       "the disk's copy cannot be written at %s (see the permissions of the file "
		       "and its folder, or name another place with --disk)",
		       path);
}

int disk_copy_open(struct disk_copy *c, char *path, int *fd, struct err *e)
{
	c->path = path;
	*fd = open(path, O_RDWR | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	if (errno != ENOENT)
		return cannot_write(path, e);
	if (asprintf(&c->part, "%s.part", path) < 0) {
		c->part = NULL;
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a disk's copy");
	}
	/* One that an earlier attempt left behind is used again; if somebody still writes it, the
	 * lock says so. */
	*fd = open(c->part, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	return *fd < 0 ? cannot_write(c->part, e) : 0;
}

bool disk_copy_is_made(const struct disk_copy *c)
{
	return c->part != NULL;
}

int disk_copy_prepare(struct disk_copy *c, int fd, bool is_file, uint64_t bytes, struct err *e)
{
	/* Only what is locked is ours to remove. */
	c->made = c->part != NULL;
	if (is_file && (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)bytes) < 0))
		return err_sys(e, "cannot make %s a file of %" PRIu64 " bytes", c->path, bytes);
	if (!is_file &&
	    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) < 0)
		return err_sys(e, "cannot clear the block device %s", c->path);
	return 0;
}

/* A name is durable when its folder is. */
static int sync_folder(const char *path, struct err *e)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int ret = fd < 0 || fsync(fd) < 0 ? err_sys(e, "cannot sync the folder of %s", path) : 0;

	if (fd >= 0)
		close(fd);
	free(copy);
	return ret;
}

int disk_copy_finish(struct disk_copy *c, int fd, struct err *e)
{
	if (fsync(fd) < 0)
		return err_sys(e, "cannot make the disk's copy at %s durable", c->path);
	if (!c->part)
		return 0;
	/* RENAME_NOREPLACE: what has come there meanwhile is not ours. */
	if (renameat2(AT_FDCWD, c->part, AT_FDCWD, c->path, RENAME_NOREPLACE) < 0)
		return err_sys(e, "cannot give the disk's copy its name %s", c->path);
	free(c->part);
	c->part = NULL;
	return sync_folder(c->path, e);
}

void disk_copy_keep(struct disk_copy *c)
{
	c->made = false;
}

void disk_copy_discard(struct disk_copy *c)
{
	if (c->made)
		unlink(c->part ? c->part : c->path);
	free(c->part);
	*c = (struct disk_copy){.path = NULL};
}
