/*
 * What `--disk` says about one disk:
 *
 *	PATH[,readonly=on|off][,queues=N][,serial=S][,lock=on|off]
 *
 * (a comma in PATH is written twice), and, added by whoever receives a guest, copy=on: its contents
 * come in the migration stream. Plain data; travels by value. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"

#define DISK_MAX_QUEUES   8
#define DISK_SERIAL_BYTES 20 /* VIRTIO_BLK_ID_BYTES: not terminated when it is full */
#define DISK_PATH_BYTES   768

struct disk_spec {
	char path[DISK_PATH_BYTES];
	bool readonly;
	bool unlocked;
	bool copy;
	uint32_t nr_queues;                 /* 0: not said, which is one */
	char serial[DISK_SERIAL_BYTES + 1]; /* "": not said */
};

int disk_spec_parse(const char *text, struct disk_spec *out, struct err *e);

/* Append ",copy=on" to @text, a spec in a buffer of @cap bytes. */
int disk_spec_add_copy(char *text, size_t cap, struct err *e);
