#include "vmm/boot/image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/boot/formats.h"

struct boot_image {
	/* immutable after new */
	char *kernel_name;
	char *initrd_name;
	char *append;
	uint64_t kernel_bytes;
	uint64_t initrd_bytes;
	int fd;
	/* changed until sealed */
	uint64_t nr_filled;
	void *data; /* NULL until sealed; read-only */
};

static uint64_t total_bytes(const struct boot_image *image)
{
	return image->kernel_bytes + image->initrd_bytes;
}

/* ---- Making one of bytes that come from somewhere ---- */

static int check_size(const char *what, uint64_t bytes, uint64_t max, struct err *e)
{
	if (bytes <= max)
		return 0;
	return err_set(e, ERR_UNSUPPORTED, EFBIG,
		       "%s of %" PRIu64 " bytes: at most %" PRIu64 " MiB are taken", what, bytes,
		       max >> 20);
}

static int check_sizes(const struct boot_image_spec *spec, struct err *e)
{
	if (!spec->kernel_name || spec->kernel_bytes == 0)
		return err_set(e, ERR_STREAM, EINVAL, "a boot image without a kernel");
	if (check_size("a kernel", spec->kernel_bytes, BOOT_KERNEL_MAX_BYTES, e) < 0 ||
	    check_size("an initrd", spec->initrd_bytes, BOOT_INITRD_MAX_BYTES, e) < 0)
		return -e->code;
	return 0;
}

static int fill(struct boot_image *image, const struct boot_image_spec *spec, struct err *e)
{
	image->kernel_bytes = spec->kernel_bytes;
	image->initrd_bytes = spec->initrd_bytes;
	image->kernel_name = strdup(spec->kernel_name);
	image->initrd_name = strdup(spec->initrd_name ? spec->initrd_name : "initrd");
	image->append = strdup(spec->append ? spec->append : "");
	if (!image->kernel_name || !image->initrd_name || !image->append)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a boot image");
	image->fd = memfd_create("godwit-boot-image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (image->fd < 0)
		return err_sys(e, "cannot create a file for the boot image (memfd_create)");
	return 0;
}

int boot_image_new(const struct boot_image_spec *spec, struct boot_image **out, struct err *e)
{
	struct boot_image *image;

	if (check_sizes(spec, e) < 0)
		return -e->code;
	image = calloc(1, sizeof(*image));
	if (!image)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a boot image");
	image->fd = -1;
	if (fill(image, spec, e) < 0) {
		boot_image_free(image);
		return -e->code;
	}
	*out = image;
	return 0;
}

void boot_image_free(struct boot_image *image)
{
	if (!image)
		return;
	if (image->data)
		munmap(image->data, total_bytes(image));
	if (image->fd >= 0)
		close(image->fd);
	free(image->kernel_name);
	free(image->initrd_name);
	free(image->append);
	free(image);
}

uint64_t boot_image_missing_bytes(const struct boot_image *image)
{
	return total_bytes(image) - image->nr_filled;
}

int boot_image_add(struct boot_image *image, const void *data, uint64_t bytes, struct err *e)
{
	const uint8_t *from = data;

	if (bytes > boot_image_missing_bytes(image))
		return err_set(e, ERR_STREAM, EPROTO,
			       "%" PRIu64 " bytes of boot image where %" PRIu64 " are missing",
			       bytes, boot_image_missing_bytes(image));
	while (bytes) {
		ssize_t done = write(image->fd, from, bytes);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return err_sys(e, "cannot keep the boot image in memory");
		from += done;
		bytes -= (uint64_t)done;
		image->nr_filled += (uint64_t)done;
	}
	return 0;
}

int boot_image_seal(struct boot_image *image, struct err *e)
{
	void *data;

	if (boot_image_missing_bytes(image))
		return err_set(e, ERR_STREAM, EPROTO,
			       "%" PRIu64 " bytes of the boot image are missing",
			       boot_image_missing_bytes(image));
	/* The loaders check what they read and read it again: it must not change under them. */
	if (fcntl(image->fd, F_ADD_SEALS,
		  F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return err_sys(e, "cannot seal the boot image");
	data = mmap(NULL, total_bytes(image), PROT_READ, MAP_SHARED, image->fd, 0);
	if (data == MAP_FAILED)
		return err_sys(e, "cannot map the boot image");
	image->data = data;
	return 0;
}

struct boot_image_spec boot_image_spec(const struct boot_image *image)
{
	return (struct boot_image_spec){.kernel_name = image->kernel_name,
					.kernel_bytes = image->kernel_bytes,
					.initrd_name = image->initrd_name,
					.initrd_bytes = image->initrd_bytes,
					.append = image->append};
}

const uint8_t *boot_image_data(const struct boot_image *image)
{
	return image->data;
}

/* ---- Making one of files ---- */

static int measure(int fd, const char *path, uint64_t *bytes, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return err_sys(e, "%s", path);
	if (S_ISDIR(st.st_mode))
		return err_set(e, ERR_USAGE, EISDIR, "%s: is a directory", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_USAGE, EINVAL, "%s: is not a regular file", path);
	*bytes = (uint64_t)st.st_size;
	return 0;
}

/* Nonblocking: opening a FIFO must not wait for a writer. */
static int open_file(const char *what, const char *path, int *fd, uint64_t *bytes, struct err *e)
{
	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0)
		err_sys(e, "%s", path);
	else if (measure(*fd, path, bytes, e) == 0)
		return 0;
	return err_prefix(e, "%s", what);
}

static int copy_file(struct boot_image *image, int fd, const char *path, uint64_t bytes,
		     struct err *e)
{
	while (bytes) {
		ssize_t done = sendfile(image->fd, fd, NULL, bytes);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return err_sys(e, "%s: cannot copy the file into memory", path);
		if (done == 0)
			return err_set(e, ERR_SYS, EIO, "%s: became shorter while it was read",
				       path);
		bytes -= (uint64_t)done;
		image->nr_filled += (uint64_t)done;
	}
	return 0;
}

static int copy_files(const struct boot_image_spec *spec, int kernel_fd, int initrd_fd,
		      struct boot_image **out, struct err *e)
{
	struct boot_image *image = NULL;

	/* !image never happens; clang-tidy does not know that errors are negative. */
	if (boot_image_new(spec, &image, e) < 0 || !image)
		return -e->code;
	if (copy_file(image, kernel_fd, spec->kernel_name, spec->kernel_bytes, e) < 0 ||
	    copy_file(image, initrd_fd, spec->initrd_name, spec->initrd_bytes, e) < 0 ||
	    boot_image_seal(image, e) < 0) {
		boot_image_free(image);
		return -e->code;
	}
	*out = image;
	return 0;
}

int boot_image_open(const char *kernel, const char *initrd, const char *append,
		    struct boot_image **out, struct err *e)
{
	struct boot_image_spec spec = {
		.kernel_name = kernel, .initrd_name = initrd, .append = append};
	int kernel_fd = -1;
	int initrd_fd = -1;
	int ret = open_file("kernel", kernel, &kernel_fd, &spec.kernel_bytes, e);

	if (ret == 0 && initrd)
		ret = open_file("initrd", initrd, &initrd_fd, &spec.initrd_bytes, e);
	if (ret == 0 && spec.kernel_bytes == 0)
		ret = boot_refuse(&(struct boot_file){.name = kernel}, e, "is empty");
	if (ret == 0 && initrd && spec.initrd_bytes == 0)
		ret = err_set(e, ERR_USAGE, EINVAL, "initrd: %s: is empty", initrd);
	if (ret == 0)
		ret = copy_files(&spec, kernel_fd, initrd_fd, out, e);
	if (kernel_fd >= 0)
		close(kernel_fd);
	if (initrd_fd >= 0)
		close(initrd_fd);
	return ret;
}
