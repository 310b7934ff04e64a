/* Files, detection, and what is said about images that nobody takes. */
#include "images.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct unusable {
	const char *bytes;
	size_t nr_bytes;
	size_t offset;
	const char *found;
};

#define UNUSABLE(bytes, offset, found)                        \
	{                                                     \
		(bytes), sizeof(bytes) - 1, (offset), (found) \
	}

static const struct unusable unusable[] = {
	UNUSABLE("\x1f\x8b\x08", 0, "is a gzip-compressed file"),
	UNUSABLE("\xfd"
		 "7zXZ",
		 0, "is an xz-compressed file"),
	UNUSABLE("\x28\xb5\x2f\xfd", 0, "is a zstd-compressed file"),
	UNUSABLE("BZh9", 0, "is a bzip2-compressed file"),
	UNUSABLE("\x02\x21\x4c\x18", 0, "is an lz4-compressed file"),
	UNUSABLE("070701", 0, "is a cpio archive"),
	UNUSABLE("QFI\xfb", 0, "is a qcow2 disk image"),
	UNUSABLE("#!/bin/sh", 0, "is a script"),
	UNUSABLE("MZ", 0, "is an EFI or Windows program"),
	UNUSABLE("ARM\x64", 0x38, "is a Linux kernel image for ARM (AArch64)"),
	UNUSABLE("CD001", 0x8001, "is an ISO 9660 image"),
	UNUSABLE("\x55\xaa", 0x1fe, "is a 16-bit boot sector"),
	UNUSABLE("", 0, "is a file of 36864 bytes of no known format"),
};

static void found_is_said(void **state)
{
	static uint8_t image[0x9000];
	struct boot_input in = input_of(image, sizeof(image));

	(void)state;
	for (size_t i = 0; i < sizeof(unusable) / sizeof(unusable[0]); i++) {
		memset(image, 0, sizeof(image));
		memcpy(image + unusable[i].offset, unusable[i].bytes, unusable[i].nr_bytes);
		load_refused(&in, 64, unusable[i].found);
		load_refused(&in, 64, "accepted are ELF files with a PVH note");
	}
	in.kernel.bytes = 0;
	load_refused(&in, 64, "image: is empty; accepted are");
}

static void foreign_elf_is_named(void **state)
{
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));

	(void)state;
	make_elf64(image, EM_AARCH64, true);
	load_refused(&in, 64, "is an ELF64 for ARM (AArch64) without a PVH note");
	make_elf64(image, EM_X86_64, false);
	load_refused(&in, 64, "is an ELF64 for x86-64 without a PVH note or Multiboot header");
	make_elf32(image, 0x1234, false);
	load_refused(&in, 64, "is an ELF32 for machine type 4660 without");
	image[EI_DATA] = ELFDATA2MSB;
	load_refused(&in, 64, "is an ELF file with big-endian data");
	make_elf64(image, EM_X86_64, true);
	in.kernel.bytes = 40;
	load_refused(&in, 64, "is an ELF file that ends within its header");
	in.kernel.bytes = CODE_OFFSET + 1;
	load_refused(&in, 64, "is an ELF file with a segment that lies beyond its end");
}

/* A kernel that carries several headers is loaded by the first format of the table. */
static void pvh_goes_before_multiboot(void **state)
{
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));
	struct guest_mem *mem = new_mem(64 << 20);
	struct boot_entry entry;

	(void)state;
	make_elf64(image, EM_X86_64, true);
	make_multiboot_header(image + MB_OFFSET, 0, NULL);
	load_ok(mem, &in, &entry);
	assert_string_equal(entry.format, "PVH ELF");
	guest_mem_free(mem);
}

static void write_file(const char *path, const void *data, size_t bytes)
{
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, bytes, f), bytes);
	assert_int_equal(fclose(f), 0);
}

static void open_fails(const char *kernel, const char *initrd, int code, const char *text)
{
	struct boot_image *image;
	struct err e = ERR_INIT;

	assert_int_equal(boot_image_open(kernel, initrd, "a", &image, &e), -code);
	if (!strstr(e.msg, text))
		fail_msg("expected \"%s\" in \"%s\"", text, e.msg);
}

static void files_are_opened_or_named(void **state)
{
	char dir[] = "/tmp/godwit-boot-XXXXXX", kernel[64], empty[64], fifo[64], huge[64];
	uint8_t image[IMAGE_BYTES];

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(kernel, sizeof(kernel), "%s/kernel", dir);
	snprintf(empty, sizeof(empty), "%s/empty", dir);
	snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
	snprintf(huge, sizeof(huge), "%s/huge", dir);
	open_fails(kernel, kernel, ENOENT, "kernel: /tmp/godwit-boot");
	open_fails(kernel, kernel, ENOENT, "/kernel: No such file or directory");
	make_elf64(image, EM_X86_64, true);
	write_file(kernel, image, sizeof(image));
	write_file(empty, "", 0);
	write_file(huge, "", 0);
	assert_int_equal(truncate(huge, (off_t)BOOT_KERNEL_MAX_BYTES + 1), 0);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	open_fails(kernel, "/nonexistent/initrd", ENOENT,
		   "initrd: /nonexistent/initrd: No such file or directory");
	open_fails(kernel, empty, EINVAL, "/empty: is empty");
	open_fails(empty, NULL, ENOEXEC, "/empty: is empty; accepted are");
	open_fails(dir, NULL, EISDIR, "is a directory");
	open_fails(fifo, NULL, EINVAL, "is not a regular file");
	open_fails(huge, NULL, EFBIG, "a kernel of 268435457 bytes: at most 256 MiB");
	unlink(kernel);
	unlink(empty);
	unlink(fifo);
	unlink(huge);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(found_is_said),
		cmocka_unit_test(foreign_elf_is_named),
		cmocka_unit_test(pvh_goes_before_multiboot),
		cmocka_unit_test(files_are_opened_or_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
