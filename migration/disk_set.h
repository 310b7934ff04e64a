/*
 * The disks of a guest that is being migrated, and which of them are copied. Plain data, made when
 * a migration begins; borrows the machine's disks.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"
#include "vmm/vm.h"

#define DISK_SET_MAX 16

struct disk;

struct disk_set {
	uint32_t nr;
	struct {
		struct disk *disk;
		bool copy;
	} at[DISK_SET_MAX];
};

/* @copy: what migration_params.copy_disks says. ERR_USAGE if it names a disk there is not. */
int disk_set_init(struct disk_set *set, struct vm *vm, const char *copy, struct err *e);

/* Is @copy well-formed: "", "all", or numbers such as "0,2"? @mask gets one bit for each. */
int disk_set_parse(const char *copy, uint64_t *mask, struct err *e);

bool disk_set_has_copies(const struct disk_set *set);
