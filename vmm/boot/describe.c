/* What an image is that no format takes: only for the message. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/boot/elf.h"
#include "vmm/boot/formats.h"

struct magic {
	uint64_t offset;
	const char *bytes;
	uint64_t nr_bytes;
	const char *what;
};

#define MAGIC(offset, bytes, what)                           \
	{                                                    \
		(offset), (bytes), sizeof(bytes) - 1, (what) \
	}

/* More telling ones first: a disk image starts with a boot sector. */
static const struct magic magics[] = {
	MAGIC(0, "\x1f\x8b", "is a gzip-compressed file (unpack it first)"),
	MAGIC(0,
	      "\xfd"
	      "7zXZ",
	      "is an xz-compressed file (unpack it first)"),
	MAGIC(0, "\x28\xb5\x2f\xfd", "is a zstd-compressed file (unpack it first)"),
	MAGIC(0, "BZh", "is a bzip2-compressed file (unpack it first)"),
	MAGIC(0, "\x04\x22\x4d\x18", "is an lz4-compressed file (unpack it first)"),
	MAGIC(0, "\x02\x21\x4c\x18", "is an lz4-compressed file (unpack it first)"),
	MAGIC(0, "070701", "is a cpio archive (an initramfs? it belongs after --initrd)"),
	MAGIC(0, "QFI\xfb", "is a qcow2 disk image"),
	MAGIC(0, "!<arch>\n", "is an ar archive (a Debian package or static library?)"),
	MAGIC(0, "\x27\x05\x19\x56", "is a U-Boot uImage"),
	MAGIC(0, "\xd6\x50\x52\xe8", "is a Multiboot 2 image"),
	MAGIC(0, "#!", "is a script"),
	MAGIC(0x38, "ARM\x64", "is a Linux kernel image for ARM (AArch64)"),
	MAGIC(0x30, "RISCV", "is a Linux kernel image for RISC-V"),
	MAGIC(0x8001, "CD001", "is an ISO 9660 image"),
	MAGIC(0x200, "EFI PART", "is a disk image with a GPT partition table"),
	MAGIC(0, "MZ", "is an EFI or Windows program"),
	MAGIC(0x1fe, "\x55\xaa", "is a 16-bit boot sector or disk image"),
};

static const char *by_magic(const struct boot_file *f)
{
	for (size_t i = 0; i < sizeof(magics) / sizeof(magics[0]); i++) {
		const struct magic *m = &magics[i];

		if (f->bytes >= m->offset + m->nr_bytes &&
		    memcmp(f->data + m->offset, m->bytes, m->nr_bytes) == 0)
			return m->what;
	}
	return NULL;
}

static void describe_elf(const struct boot_file *f, char *out, size_t cap)
{
	struct err e = ERR_INIT;
	struct elf_file elf;
	char what[64];

	if (elf_open(&elf, f->data, f->bytes, &e))
		snprintf(out, cap, "%s", e.msg);
	else
		snprintf(out, cap, "is an %s without a PVH note or Multiboot header",
			 elf_describe(&elf, what, sizeof(what)));
}

char *boot_describe(const struct boot_file *f, char *out, size_t cap)
{
	const char *what = by_magic(f);

	if (f->bytes == 0)
		snprintf(out, cap, "is empty");
	else if (elf_has_magic(f->data, f->bytes))
		describe_elf(f, out, cap);
	else if (what)
		snprintf(out, cap, "%s", what);
	else
		snprintf(out, cap, "is a file of %llu bytes of no known format",
			 (unsigned long long)f->bytes);
	return out;
}
