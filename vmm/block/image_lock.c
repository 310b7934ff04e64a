#include "vmm/block/image_lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Far behind any image's end, where locks are allowed and no bytes are. The gate is the rest: a
 * program that locks the whole file, or QEMU, which locks single bytes below 1000, meets it. */
#define BATON_START (1ll << 62)

static struct flock range_of(enum image_lock_part part, short type)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET}; /* l_pid must be 0 */

	if (part == IMAGE_LOCK_BATON) {
		fl.l_start = BATON_START;
		fl.l_len = 1;
	} else {
		fl.l_len = BATON_START;
	}
	return fl;
}

/* ---- Who holds it: no system call tells for these locks, but each descriptor's fdinfo does ----
 */

static bool fd_has_lock(const char *pid, const char *fd)
{
	char path[64];
	char line[160];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.16s/fdinfo/%.16s", pid, fd);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f))
		found = !strncmp(line, "lock:", 5);
	if (f)
		fclose(f);
	return found;
}

static bool same_file(const char *pid, const char *fd, const struct stat *image)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%.16s/fd/%.16s", pid, fd);
	return stat(path, &st) == 0 && st.st_dev == image->st_dev && st.st_ino == image->st_ino;
}

static bool process_holds(const char *pid, const struct stat *image)
{
	char path[32];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
	dir = opendir(path);
	while (dir && !found && (entry = readdir(dir)))
		found = entry->d_name[0] != '.' && same_file(pid, entry->d_name, image) &&
			fd_has_lock(pid, entry->d_name);
	if (dir)
		closedir(dir);
	return found;
}

static void read_name(const char *pid, char *out, size_t cap)
{
	char path[32];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
	f = fopen(path, "re");
	if (!f || !fgets(out, (int)cap, f))
		snprintf(out, cap, "a program");
	out[strcspn(out, "\n")] = '\0';
	if (f)
		fclose(f);
}

/* "godwit (process 1234)", or what there is to say when it cannot be seen from here. */
static void name_holder(int fd, char *out, size_t cap)
{
	struct dirent *entry;
	struct stat image;
	char name[32];
	DIR *dir;

	snprintf(out, cap, "a process of another user or of another host");
	dir = fstat(fd, &image) == 0 ? opendir("/proc") : NULL;
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9' ||
		    !process_holds(entry->d_name, &image))
			continue;
		read_name(entry->d_name, name, sizeof(name));
		snprintf(out, cap, "%.20s (process %.16s)", name, entry->d_name);
		break;
	}
	if (dir)
		closedir(dir);
}

/* ---- Taking and dropping ---- */

static int refused(const struct image_lock *l, struct err *e)
{
	char holder[80];

	name_holder(l->fd, holder, sizeof(holder));
	return err_set(e, ERR_STATE, EBUSY, "disk image %s is in use by %s: end that first%s",
		       l->path, holder,
		       l->shared ? "" : ", or add readonly=on if both only read it");
}

bool image_lock_try(struct image_lock *l, enum image_lock_part part)
{
	struct flock fl = range_of(part, l->shared ? F_RDLCK : F_WRLCK);

	if (l->off || l->held[part])
		return true;
	l->held[part] = fcntl(l->fd, F_OFD_SETLK, &fl) == 0;
	return l->held[part];
}

int image_lock_take(struct image_lock *l, enum image_lock_part part, struct err *e)
{
	if (!image_lock_try(l, part)) {
		if (errno == EAGAIN || errno == EACCES)
			return refused(l, e);
		return err_sys(e,
			       "cannot lock disk image %s (if its file system has no locks and "
			       "nobody else uses it, add lock=off)",
			       l->path);
	}
	return 0;
}

void image_lock_drop(struct image_lock *l, enum image_lock_part part)
{
	struct flock fl = range_of(part, F_UNLCK);

	if (l->held[part])
		fcntl(l->fd, F_OFD_SETLK, &fl);
	l->held[part] = false;
}

int image_lock_take_both(struct image_lock *l, struct err *e)
{
	bool had_gate = l->held[IMAGE_LOCK_GATE];

	/* The gate first: see the table in the header. */
	if (image_lock_take(l, IMAGE_LOCK_GATE, e) < 0)
		return -e->code;
	if (image_lock_take(l, IMAGE_LOCK_BATON, e) < 0) {
		if (!had_gate)
			image_lock_drop(l, IMAGE_LOCK_GATE);
		return -e->code;
	}
	return 0;
}

bool image_lock_is_held_elsewhere(const struct image_lock *l, enum image_lock_part part)
{
	struct flock fl = range_of(part, F_WRLCK);

	return !l->off && fcntl(l->fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}
