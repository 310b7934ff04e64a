#include "vmm/block/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/block/disk_copy.h"
#include "vmm/block/image_lock.h"

struct disk {
	/* immutable after open */
	char *path;
	int fd;
	bool readonly;
	bool is_file; /* and no block device */
	uint64_t bytes;
	uint32_t physical_block_bytes;
	enum disk_role role;

	/* owned by the VM's controller */
	struct image_lock lock;
	struct disk_copy copy; /* DISK_COPY */

	/* any thread; made by the first disk_track_start and kept, so that a late mark of a queue's
	 * thread always finds it */
	atomic_bool tracking;
	atomic_bool written; /* since the last disk_flush_written() */
	struct bitmap marks;
	struct bitmap summary; /* one bit for each word of marks: taking few marks is quick */
};

/* ---- Opening ---- */

static int open_image(struct disk *d, struct err *e)
{
	int flags = d->readonly ? O_RDONLY : O_RDWR;

	if (d->role == DISK_COPY)
		return disk_copy_open(&d->copy, d->path, &d->fd, e);
	d->fd = open(d->path, flags | O_CLOEXEC);
	if (d->fd >= 0)
		return 0;
	if (errno == EACCES || errno == EROFS)
		return err_sys(e, "disk image %s cannot be %s (%s)", d->path,
			       d->readonly ? "read" : "written",
			       d->readonly ? "see its permissions"
					   : "see its permissions, or add readonly=on");
	return err_sys(e, "cannot open disk image %s", d->path);
}

/* A file's length or a device's; nothing else has one. */
static int measure(struct disk *d, struct err *e)
{
	int physical = 0;
	struct stat st;

	if (fstat(d->fd, &st) < 0)
		return err_sys(e, "cannot look at disk image %s", d->path);
	d->is_file = S_ISREG(st.st_mode);
	if (!d->is_file && !S_ISBLK(st.st_mode))
		return err_set(e, ERR_USAGE, EINVAL,
			       "disk image %s is neither a file nor a block device", d->path);
	d->bytes = (uint64_t)st.st_size;
	d->physical_block_bytes = 4096;
	if (d->is_file)
		return 0;
	if (ioctl(d->fd, BLKGETSIZE64, &d->bytes) < 0)
		return err_sys(e, "cannot tell the size of block device %s", d->path);
	if (ioctl(d->fd, BLKPBSZGET, &physical) == 0 && physical >= 512)
		d->physical_block_bytes = (uint32_t)physical;
	return 0;
}

static int check_size(const struct disk *d, uint64_t want, struct err *e)
{
	if (want && d->bytes != want)
		return err_set(e, ERR_STATE, EINVAL,
			       "disk image %s has %" PRIu64 " bytes, the guest's disk %" PRIu64
			       ": name the guest's image, or, for a copy, a path where there is "
			       "nothing yet",
			       d->path, d->bytes, want);
	if (!d->bytes || d->bytes % DISK_SECTOR_BYTES || d->bytes > DISK_MAX_BYTES)
		return err_set(e, ERR_USAGE, EINVAL,
			       "disk image %s has %" PRIu64
			       " bytes: a disk is a multiple of 512 from 512 to 1 PiB (truncate -s "
			       "changes a file's size)",
			       d->path, d->bytes);
	return 0;
}

/* The locks also tell one image from another: the source holds the gate of its own, so an image
 * whose gate stands open is not the one the guest uses. */
static int lock_incoming(struct disk *d, struct err *e)
{
	if (d->lock.off || image_lock_is_held_elsewhere(&d->lock, IMAGE_LOCK_GATE))
		return 0;
	return err_set(
		e, ERR_STATE, EINVAL,
		"disk image %s is not the one the guest uses: nobody has it locked (to make "
		"it a copy: migrate --copy-disks; if the file system shares no locks between "
		"hosts: lock=off)",
		d->path);
}

static int lock_image(struct disk *d, struct err *e)
{
	if (d->role == DISK_INCOMING)
		return lock_incoming(d, e);
	if (image_lock_take_both(&d->lock, e) == 0)
		return 0;
	return d->role == DISK_COPY
		       ? err_prefix(e, "a copy needs a place of its own (to share the source's "
				       "image, migrate without --copy-disks)")
		       : -e->code;
}

/* What has another size is somebody's, and not a place to put a copy. */
static int prepare_copy(struct disk *d, uint64_t bytes, struct err *e)
{
	bool fresh = d->is_file && (d->bytes == 0 || disk_copy_is_made(&d->copy));

	if (!fresh && check_size(d, bytes, e) < 0)
		return -e->code;
	d->bytes = bytes;
	return disk_copy_prepare(&d->copy, d->fd, d->is_file, bytes, e);
}

static int build(struct disk *d, const struct disk_config *config, struct err *e)
{
	int ret = open_image(d, e);

	if (ret < 0)
		return ret;
	/* What is to be filled in is written, whatever the guest may do with it. */
	d->lock = (struct image_lock){.fd = d->fd,
				      .path = d->path,
				      .shared = d->readonly && d->role != DISK_COPY,
				      .off = config->unlocked};
	ret = lock_image(d, e);
	if (ret == 0)
		ret = measure(d, e);
	if (ret == 0 && d->role == DISK_COPY)
		ret = prepare_copy(d, config->bytes, e);
	return ret == 0 ? check_size(d, config->bytes, e) : ret;
}

int disk_open(const struct disk_config *config, struct disk **out, struct err *e)
{
	struct disk *d = calloc(1, sizeof(*d));
	int ret;

	if (!d)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a disk");
	d->fd = -1;
	d->readonly = config->readonly;
	d->role = config->role;
	d->path = strdup(config->path);
	ret = d->path ? build(d, config, e)
		      : err_set(e, ERR_SYS, ENOMEM, "out of memory for a disk");
	if (ret < 0) {
		disk_close(d);
		return ret;
	}
	*out = d;
	return 0;
}

void disk_close(struct disk *d)
{
	if (!d)
		return;
	disk_copy_discard(&d->copy);
	if (d->fd >= 0)
		close(d->fd); /* and with it go its locks */
	bitmap_fini(&d->marks);
	bitmap_fini(&d->summary);
	free(d->path);
	free(d);
}

const char *disk_path(const struct disk *d)
{
	return d->path;
}

uint64_t disk_bytes(const struct disk *d)
{
	return d->bytes;
}

bool disk_is_readonly(const struct disk *d)
{
	return d->readonly;
}

uint32_t disk_physical_block_bytes(const struct disk *d)
{
	return d->physical_block_bytes;
}

int disk_fd(const struct disk *d)
{
	return d->fd;
}

int disk_flush(struct disk *d, struct err *e)
{
	if (fdatasync(d->fd) < 0)
		return err_sys(e, "cannot make what was written to disk image %s durable", d->path);
	return 0;
}

int disk_flush_written(struct disk *d, struct err *e)
{
	/* Cleared first: what is written from here on may not be in this flush. */
	if (!atomic_exchange(&d->written, false) || disk_flush(d, e) == 0)
		return 0;
	atomic_store(&d->written, true);
	return -e->code;
}

static int write_zeroes(struct disk *d, uint64_t offset, uint64_t bytes, struct err *e)
{
	static const char zeroes[65536];

	while (bytes) {
		size_t len = bytes < sizeof(zeroes) ? (size_t)bytes : sizeof(zeroes);
		ssize_t n = pwrite(d->fd, zeroes, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(e, "cannot write to disk image %s", d->path);
		offset += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return 0;
}

int disk_zero(struct disk *d, uint64_t offset, uint64_t bytes, bool unmap, struct err *e)
{
	int mode = (unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;

	if (fallocate(d->fd, mode, (off_t)offset, (off_t)bytes) == 0)
		return 0;
	return write_zeroes(d, offset, bytes, e);
}

void disk_next_data(const struct disk *d, uint64_t from, uint64_t to, uint64_t *start,
		    uint64_t *stop)
{
	off_t data = lseek(d->fd, (off_t)from, SEEK_DATA);
	off_t hole;

	*start = *stop = to;
	if ((data < 0 && errno == ENXIO) || data >= (off_t)to)
		return;
	*start = data < 0 ? from : (uint64_t)data / DISK_SECTOR_BYTES * DISK_SECTOR_BYTES;
	hole = data < 0 ? -1 : lseek(d->fd, data, SEEK_HOLE);
	if (hole >= 0 && (uint64_t)hole < to)
		*stop = ((uint64_t)hole + DISK_SECTOR_BYTES - 1) / DISK_SECTOR_BYTES *
			DISK_SECTOR_BYTES;
}

/* ---- Changing hands ---- */

int disk_offer(struct disk *d, struct err *e)
{
	if (disk_flush_written(d, e) < 0)
		return -e->code;
	/* Between the two parts a stranger could slip in; the side we came from may still hold the
	 * gate if it has not ended. */
	if (image_lock_take(&d->lock, IMAGE_LOCK_GATE, e) < 0)
		return -e->code;
	image_lock_drop(&d->lock, IMAGE_LOCK_BATON);
	return 0;
}

void disk_reclaim(struct disk *d)
{
	/* If the destination has not let go yet: the gate keeps everybody else out. */
	(void)image_lock_try(&d->lock, IMAGE_LOCK_BATON);
}

void disk_release(struct disk *d)
{
	image_lock_drop(&d->lock, IMAGE_LOCK_BATON);
	image_lock_drop(&d->lock, IMAGE_LOCK_GATE);
}

int disk_seize(struct disk *d, struct err *e)
{
	return image_lock_take_both(&d->lock, e);
}

int disk_accept(struct disk *d, struct err *e)
{
	if (d->role == DISK_COPY)
		return disk_copy_finish(&d->copy, d->fd, e);
	if (image_lock_take(&d->lock, IMAGE_LOCK_BATON, e) < 0)
		return -e->code;
	/* The source has made all durable; what this host cached of it before may be older. */
	if (d->is_file)
		posix_fadvise(d->fd, 0, 0, POSIX_FADV_DONTNEED);
	else
		ioctl(d->fd, BLKFLSBUF, 0);
	return 0;
}

bool disk_settle(struct disk *d)
{
	disk_copy_keep(&d->copy);
	return image_lock_try(&d->lock, IMAGE_LOCK_GATE);
}

/* ---- Tracking ---- */

uint64_t disk_nr_blocks(const struct disk *d)
{
	return (d->bytes + DISK_BLOCK_BYTES - 1) / DISK_BLOCK_BYTES;
}

int disk_track_start(struct disk *d, struct err *e)
{
	if (!d->marks.words && bitmap_init(&d->marks, disk_nr_blocks(d), e) < 0)
		return -e->code;
	if (!d->summary.words && bitmap_init(&d->summary, bitmap_nr_words(&d->marks), e) < 0)
		return -e->code;
	for (uint64_t word = 0; word < bitmap_nr_words(&d->marks); word++)
		bitmap_take_word(&d->marks, word);
	atomic_store(&d->tracking, true);
	return 0;
}

void disk_track_stop(struct disk *d)
{
	atomic_store(&d->tracking, false);
}

void disk_track_take(struct disk *d, struct bitmap *set)
{
	for (uint64_t s = 0; s < bitmap_nr_words(&d->summary); s++) {
		uint64_t left = bitmap_take_word(&d->summary, s);

		while (left) {
			uint64_t word = s * 64 + (uint64_t)__builtin_ctzll(left);

			set->words[word] |= bitmap_take_word(&d->marks, word);
			left &= left - 1;
		}
	}
}

void disk_mark(struct disk *d, uint64_t offset, uint64_t bytes)
{
	atomic_store(&d->written, true);
	if (!bytes || !atomic_load(&d->tracking))
		return;
	for (uint64_t block = offset / DISK_BLOCK_BYTES;
	     block <= (offset + bytes - 1) / DISK_BLOCK_BYTES; block++) {
		/* Mark, then summary: as in guest_mem_mark(). */
		bitmap_set_atomic(&d->marks, block);
		bitmap_set_atomic(&d->summary, block / 64);
	}
}
