/* Image files for tests, in a folder of their own that goes away with the test. */
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/block/disk.h"

struct images {
	char folder[64];
};

static inline int images_make(void **state)
{
	static const struct images fresh = {"/tmp/godwit-disks-XXXXXX"};
	struct images *im = test_malloc(sizeof(*im));

	*im = fresh;
	*state = im;
	return mkdtemp(im->folder) ? 0 : -1;
}

static inline int images_remove(void **state)
{
	struct images *im = *state;
	DIR *dir = opendir(im->folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(im->folder);
	test_free(im);
	return 0;
}

/* The path of @name in the folder; one of a few static buffers. */
static inline const char *image_path(const struct images *im, const char *name)
{
	static char paths[4][128];
	static int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", im->folder, name);
	return path;
}

static inline const char *image_make(const struct images *im, const char *name, off_t bytes)
{
	const char *path = image_path(im, name);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, bytes), 0);
	close(fd);
	return path;
}

static inline struct disk *image_open(const char *path, enum disk_role role, uint64_t bytes)
{
	struct disk_config config = {.path = path, .role = role, .bytes = bytes};
	struct err e = ERR_INIT;
	struct disk *d = NULL;

	if (disk_open(&config, &d, &e) < 0)
		fail_msg("%s", e.msg);
	return d;
}

/* Opening it must fail, with @words in the message. */
static inline void image_refused(const struct disk_config *config, const char *words)
{
	struct err e = ERR_INIT;
	struct disk *d = NULL;

	assert_true(disk_open(config, &d, &e) < 0);
	if (!strstr(e.msg, words))
		fail_msg("'%s' lacks '%s'", e.msg, words);
}
