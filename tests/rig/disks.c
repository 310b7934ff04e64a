#include "tests/rig/disks.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/block/disk.h"
#include "vmm/block/disk_queue.h"

#define MAX_PATHS   8
#define BLOCK_BYTES 4096u

struct rig_disks {
	char folder[32];
	char paths[MAX_PATHS][64];
	uint32_t nr_paths;
};

struct rig_disks *rig_disks_new(void)
{
	struct rig_disks *d = test_calloc(1, sizeof(*d));

	snprintf(d->folder, sizeof(d->folder), "/tmp/godwit-disks-XXXXXX");
	assert_non_null(mkdtemp(d->folder));
	return d;
}

void rig_disks_free(struct rig_disks *d)
{
	DIR *dir = opendir(d->folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(d->folder);
	test_free(d);
}

const char *rig_disks_path(struct rig_disks *d, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/%s", d->folder, name);
	for (uint32_t i = 0; i < d->nr_paths; i++)
		if (!strcmp(d->paths[i], path))
			return d->paths[i];
	assert_true(d->nr_paths < MAX_PATHS);
	strcpy(d->paths[d->nr_paths], path);
	return d->paths[d->nr_paths++];
}

static uint64_t next(uint64_t *x)
{
	*x = *x * 6364136223846793005ull + 1442695040888963407ull;
	return *x >> 16;
}

static void fill(uint64_t *block, uint64_t number, uint64_t seed)
{
	uint64_t x = seed ^ number << 20;

	for (size_t i = 0; i < BLOCK_BYTES / sizeof(*block); i++)
		block[i] = next(&x);
}

const char *rig_disks_make(struct rig_disks *d, const char *name, uint64_t bytes)
{
	const char *path = rig_disks_path(d, name);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint64_t block[BLOCK_BYTES / 8];

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	for (uint64_t n = 0; n < bytes / BLOCK_BYTES; n++) {
		if (n / 256 % 2) /* every other MiB is a hole */
			continue;
		fill(block, n, 1);
		assert_int_equal(pwrite(fd, block, sizeof(block), (off_t)(n * BLOCK_BYTES)),
				 BLOCK_BYTES);
	}
	close(fd);
	return path;
}

static void on_done(struct disk_request *r, int error)
{
	(void)r;
	assert_int_equal(error, 0);
}

void rig_disks_write(struct disk *disk, uint32_t nr, uint64_t seed)
{
	uint64_t block[BLOCK_BYTES / 8];
	struct disk_queue *q;
	struct err e = ERR_INIT;

	if (disk_queue_new(disk, 1, &q, &e) < 0)
		fail_msg("%s", e.msg);
	for (uint32_t i = 0; i < nr; i++) {
		uint64_t number = next(&seed) % (disk_bytes(disk) / BLOCK_BYTES);
		struct iovec iov = {block, sizeof(block)};
		struct disk_request r = {.op = i % 8 ? DISK_WRITE : DISK_DISCARD,
					 .offset = number * BLOCK_BYTES,
					 .bytes = BLOCK_BYTES,
					 .iov = &iov,
					 .nr_iov = 1,
					 .done = on_done};

		fill(block, number, seed);
		assert_int_equal(disk_queue_submit(q, &r), 0);
		disk_queue_drain(q);
	}
	disk_queue_free(q);
}

void rig_disks_assert_equal(const char *path, const char *other)
{
	static const size_t piece = 1 << 20;
	uint8_t *a = test_malloc(piece);
	uint8_t *b = test_malloc(piece);
	int fds[2] = {open(path, O_RDONLY | O_CLOEXEC), open(other, O_RDONLY | O_CLOEXEC)};
	uint64_t at = 0;
	ssize_t n;

	assert_true(fds[0] >= 0 && fds[1] >= 0);
	while ((n = pread(fds[0], a, piece, (off_t)at)) > 0) {
		assert_int_equal(pread(fds[1], b, piece, (off_t)at), n);
		assert_memory_equal(a, b, (size_t)n);
		at += (uint64_t)n;
	}
	assert_int_equal(lseek(fds[0], 0, SEEK_END), lseek(fds[1], 0, SEEK_END));
	close(fds[0]);
	close(fds[1]);
	test_free(a);
	test_free(b);
}

void rig_disks_assert_locked(const char *path)
{
	struct disk_config stranger = {.path = path};
	struct err e = ERR_INIT;
	struct disk *d;

	if (disk_open(&stranger, &d, &e) == 0)
		fail_msg("%s is not locked", path);
}
