/*
 * Disk images for tests that migrate a guest with disks, in a folder of their own; and somebody who
 * writes such a disk while it is copied: the tests' guests have no disk driver.
 *
 * What is written depends on the block, so that one block taken for another is seen. Failures fail
 * the running cmocka test.
 */
#pragma once

#include <stdint.h>

struct disk;
struct rig_disks;

struct rig_disks *rig_disks_new(void);
/* Removes the folder and all in it. */
void rig_disks_free(struct rig_disks *d);

/* The path of @name; valid for the life of @d. Nothing is made. */
const char *rig_disks_path(struct rig_disks *d, const char *name);
/* An image of @bytes, half of it holes. */
const char *rig_disks_make(struct rig_disks *d, const char *name, uint64_t bytes);

/* Write @nr blocks of 4 KiB here and there, through a queue as a device does; @seed says where and
 * what. */
void rig_disks_write(struct disk *disk, uint32_t nr, uint64_t seed);

/* The images are equal, byte for byte. */
void rig_disks_assert_equal(const char *path, const char *other);
/* Nobody else can open it. */
void rig_disks_assert_locked(const char *path);
