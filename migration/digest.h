/*
 * Digests for --verify (proto/STREAM.md, section 5). The VM is paused; takes the caller's thread
 * and as many more as there are processors.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"
#include "vmm/vm.h"

struct digest {
	uint64_t ram_low, ram_high;
	uint64_t state_low, state_high;
	uint64_t disk_low, disk_high;
	uint32_t nr_disks; /* not compared: the machines are alike by then */
};

/* @state is what vm_save_state gave. */
int digest_make(struct vm *vm, const uint8_t *state, size_t state_len, struct digest *out,
		struct err *e);

/* The part of digest_make() that reads the disks (digest_disks.c): adds to @out. */
int digest_disks(struct vm *vm, struct digest *out, struct err *e);

/* Add the RAM's part to @out, which was zero. */
void digest_ram(const struct guest_mem *mem, struct digest *out);

/* ERR_STATE naming what differs, or 0. */
int digest_compare(const struct digest *source, const struct digest *destination, struct err *e);
