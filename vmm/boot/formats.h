/*
 * Inside vmm/boot: what the formats are given and how they are listed. boot.c picks the format;
 * pvh.c, bzimage.c and multiboot.c are one format each. Controller's thread; the input is borrowed
 * for the duration of a call.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"
#include "vmm/boot/boot.h"
#include "vmm/mem.h"

/* Bytes from outside, which nobody has checked. */
struct boot_file {
	const char *name; /* for messages */
	const uint8_t *data;
	uint64_t bytes;
};

struct boot_input {
	struct boot_file kernel;
	struct boot_file initrd; /* data is NULL: none */
	const char *append;      /* never NULL */
	uint64_t rsdp_gpa;
};

struct boot_format {
	const char *name;
	/* From the bytes alone: is it this format? A detected image that turns out to be unusable
	 * is an error of load, never tried as another format. */
	bool (*detect)(const struct boot_file *kernel);
	/* Writes the image and its boot structures, fills in *entry but for its format. */
	int (*load)(struct guest_mem *mem, const struct boot_input *in, struct boot_entry *entry,
		    struct err *e);
};

extern const struct boot_format pvh_format;
extern const struct boot_format bzimage_format;
extern const struct boot_format multiboot_format;

#define BOOT_ACCEPTED                                                                   \
	"accepted are ELF files with a PVH note, Linux x86-64 bzImages (boot protocol " \
	"2.12 or newer) and Multiboot 1 images"

/* boot_load() of loose bytes: what the fuzzer and the tests call. */
int boot_load_bytes(struct guest_mem *mem, const struct boot_input *in, struct boot_entry *entry,
		    struct err *e);

/* An image that is unusable: "NAME: what was found; what is accepted". Returns a negative errno. */
int boot_refuse(const struct boot_file *kernel, struct err *e, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* What the bytes look like, for the message about an image nobody takes: "is a gzip-compressed
 * file". Into @out, which is returned. */
char *boot_describe(const struct boot_file *kernel, char *out, size_t cap);
