/*
 * What a machine boots from: a kernel, perhaps an initrd, a command line, as bytes that nobody can
 * change any more. A machine owns one for its life, so that a reset boots what was booted before,
 * whatever has become of the files, and a migration can take it along.
 *
 * Life: boot_image_open(), or boot_image_new() -> boot_image_add() until nothing is missing ->
 * boot_image_seal(); from then on immutable and for any thread. The bytes are in one memfd, the
 * kernel first, the initrd right behind it.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"

#define BOOT_KERNEL_MAX_BYTES (256ull << 20)
#define BOOT_INITRD_MAX_BYTES (1ull << 30)

struct boot_image;

struct boot_image_spec {
	const char *kernel_name; /* its file's; a Multiboot guest sees it */
	uint64_t kernel_bytes;
	const char *initrd_name; /* for messages; NULL is "initrd" */
	uint64_t initrd_bytes;   /* 0: there is none */
	const char *append;      /* NULL is "" */
};

/* Copy the files. @initrd and @append may be NULL. */
int boot_image_open(const char *kernel, const char *initrd, const char *append,
		    struct boot_image **out, struct err *e);

/* An image whose bytes are to come: strings are copied, sizes checked against the limits above,
 * and no memory is taken before the bytes are there. */
int boot_image_new(const struct boot_image_spec *spec, struct boot_image **out, struct err *e);
/* The next bytes; more than the spec says are refused. */
int boot_image_add(struct boot_image *image, const void *data, uint64_t bytes, struct err *e);
uint64_t boot_image_missing_bytes(const struct boot_image *image);
int boot_image_seal(struct boot_image *image, struct err *e);
void boot_image_free(struct boot_image *image);

/* Valid for the image's life. */
struct boot_image_spec boot_image_spec(const struct boot_image *image);
/* Of a sealed image: kernel_bytes + initrd_bytes bytes. */
const uint8_t *boot_image_data(const struct boot_image *image);
