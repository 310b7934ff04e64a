/* vmm/boot/image.c: what is to boot stays what it was. */
#include "images.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "vmm/boot/image.h"

static void must_add(struct boot_image *image, const void *data, uint64_t bytes)
{
	struct err e = ERR_INIT;

	if (boot_image_add(image, data, bytes, &e) < 0)
		fail_msg("%s", e.msg);
}

static void files_may_vanish(void **state)
{
	char path[] = "/tmp/godwit-image-XXXXXX";
	struct guest_mem *mem = new_mem(64 << 20);
	uint8_t elf[IMAGE_BYTES];
	struct boot_image *image;
	struct boot_image_spec spec;
	struct boot_entry entry;
	struct err e = ERR_INIT;
	int fd = mkstemp(path);

	(void)state;
	make_elf64(elf, EM_X86_64, true);
	assert_int_equal(write(fd, elf, sizeof(elf)), sizeof(elf));
	assert_int_equal(boot_image_open(path, path, "x", &image, &e), 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	unlink(path);
	close(fd);
	spec = boot_image_spec(image);
	assert_string_equal(spec.kernel_name, path);
	assert_string_equal(spec.append, "x");
	assert_int_equal(spec.kernel_bytes, sizeof(elf));
	assert_int_equal(spec.initrd_bytes, sizeof(elf));
	assert_memory_equal(boot_image_data(image), elf, sizeof(elf));
	assert_memory_equal(boot_image_data(image) + sizeof(elf), elf, sizeof(elf));
	assert_int_equal(boot_load(mem, image, 0, &entry, &e), 0);
	assert_int_equal(entry.rip, CODE_GPA + 4);
	boot_image_free(image);
	guest_mem_free(mem);
}

static void bytes_may_come_in_pieces(void **state)
{
	struct boot_image_spec spec = {.kernel_name = "k", .kernel_bytes = 5, .initrd_bytes = 4};
	struct boot_image *image;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(boot_image_new(&spec, &image, &e), 0);
	must_add(image, "ker", 3);
	assert_int_equal(boot_image_missing_bytes(image), 6);
	assert_true(boot_image_seal(image, &e) < 0);
	must_add(image, "nelin", 5);
	assert_true(boot_image_add(image, "xy", 2, &e) < 0);
	assert_int_equal(e.kind, ERR_STREAM);
	must_add(image, "i", 1);
	assert_int_equal(boot_image_missing_bytes(image), 0);
	assert_int_equal(boot_image_seal(image, &e), 0);
	assert_memory_equal(boot_image_data(image), "kernelini", 9);
	/* nobody changes it any more, this module included */
	assert_true(boot_image_add(image, "x", 1, &e) < 0);
	boot_image_free(image);
}

static void impossible_sizes_are_refused(void **state)
{
	const struct boot_image_spec bad[] = {
		{.kernel_name = "k"},
		{.kernel_bytes = 1},
		{.initrd_bytes = 1},
		{.kernel_name = "k", .kernel_bytes = BOOT_KERNEL_MAX_BYTES + 1},
		{.kernel_name = "k", .kernel_bytes = 1, .initrd_bytes = BOOT_INITRD_MAX_BYTES + 1},
		{.kernel_name = "k", .kernel_bytes = UINT64_MAX, .initrd_bytes = UINT64_MAX}};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct boot_image *image;
		struct err e = ERR_INIT;

		assert_true(boot_image_new(&bad[i], &image, &e) < 0);
		assert_true(e.msg[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_may_vanish),
		cmocka_unit_test(bytes_may_come_in_pieces),
		cmocka_unit_test(impossible_sizes_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
