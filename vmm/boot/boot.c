#include "vmm/boot/boot.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "vmm/boot/formats.h"

/* In the order of detection: a Linux vmlinux may carry several headers, and PVH is the richest. */
static const struct boot_format *const formats[] = {
	&pvh_format,
	&bzimage_format,
	&multiboot_format,
};

int boot_refuse(const struct boot_file *kernel, struct err *e, const char *fmt, ...)
{
	char found[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(found, sizeof(found), fmt, args);
	va_end(args);
	return err_set(e, ERR_STREAM, ENOEXEC, "%s: %s; " BOOT_ACCEPTED, kernel->name, found);
}

int boot_load_bytes(struct guest_mem *mem, const struct boot_input *in, struct boot_entry *entry,
		    struct err *e)
{
	char found[256];

	*entry = (struct boot_entry){0};
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		if (!formats[i]->detect(&in->kernel))
			continue;
		entry->format = formats[i]->name;
		return formats[i]->load(mem, in, entry, e);
	}
	boot_describe(&in->kernel, found, sizeof(found));
	return boot_refuse(&in->kernel, e, "%s", found);
}

int boot_load(struct guest_mem *mem, const struct boot_image *image, uint64_t rsdp_gpa,
	      struct boot_entry *entry, struct err *e)
{
	struct boot_image_spec spec = boot_image_spec(image);
	const uint8_t *data = boot_image_data(image);
	struct boot_input in = {.kernel = {spec.kernel_name, data, spec.kernel_bytes},
				.append = spec.append,
				.rsdp_gpa = rsdp_gpa};

	if (spec.initrd_bytes)
		in.initrd = (struct boot_file){spec.initrd_name, data + spec.kernel_bytes,
					       spec.initrd_bytes};
	return boot_load_bytes(mem, &in, entry, e);
}
