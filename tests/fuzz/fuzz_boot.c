/*
 * Kernel images are files from anywhere: whatever the bytes, loading ends in an entry point inside
 * RAM or in an error with a message, and never outside the buffers (ASan).
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "vmm/boot/formats.h"

#define GUEST_BYTES (64ull << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* The last byte decides whether there is an initrd, so that inputs stay plain images. */
	const struct boot_input in = {
		.kernel = {.name = "kernel", .data = data, .bytes = size},
		.initrd = {.name = "initrd",
			   .data = size && (data[size - 1] & 1) ? data : NULL,
			   .bytes = size},
		.append = "console=ttyS0",
		.rsdp_gpa = 0xe0000,
	};
	struct boot_entry entry;
	struct guest_mem *mem;
	struct err e = ERR_INIT;

	if (guest_mem_new(GUEST_BYTES, &mem, &e))
		abort();
	if (boot_load_bytes(mem, &in, &entry, &e) == 0) {
		if (!guest_mem_contains(mem, entry.rip, 1))
			abort();
	} else if (e.msg[0] == '\0') {
		abort();
	}
	guest_mem_free(mem);
	return 0;
}
