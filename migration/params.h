/* What a user may choose about a migration. Plain data; migration_params_init gives the defaults.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"
#include "vmm/net/net_announce.h"

#define MIGRATION_MAX_CHANNELS 16
#define MIGRATION_RDMA_PIN     (1ull << 30) /* the default budget */

struct verbs_ops;

struct migration_params {
	uint64_t downtime_limit_ns; /* default 300 ms, as QEMU's */
	uint64_t max_bytes_per_s;   /* 0: as fast as the link goes */
	uint32_t nr_channels;       /* 1 to MIGRATION_MAX_CHANNELS; default 1 */
	char codec[16];             /* auto, none, lz4; default auto */
	char tracker[16];           /* bitmap, clear-log; default bitmap */
	char policy[16];            /* patient, eager; default patient (migration/policy.h) */
	bool verify;                /* compare digests of RAM, state and disks before commit */
	char copy_disks[32]; /* disks whose contents go in the stream: "all", "0,2"; default none,
			      * both sides open the same images */
	bool auto_converge;  /* hold back a guest that writes faster than the link sends */
	uint32_t throttle_initial;   /* percent of its time, 1 to 99; default 20 */
	uint32_t throttle_increment; /* 1 to 99; default 10 */
	uint32_t throttle_max;       /* throttle_initial to 99; default 99 */
	uint32_t max_rounds;         /* give up when not converged by then; 0: never; default 0 */
	uint64_t connect_timeout_ns; /* default 10 s */
	uint64_t rdma_pin_bytes; /* most to pin on each side; PIN_ALL: no limit; default 1 GiB */
	bool rdma_fallback;      /* go on over TCP when RDMA does not work; default no */
	const struct verbs_ops *verbs; /* NULL: the system's; tests bring their own */
	uint64_t stall_timeout_ns; /* no progress for that long fails the migration; default 20 s */
	/* How networks are told that a guest arrived, or stays here after all; default
	 * ANNOUNCE_DEFAULTS */
	struct announce_params announce;
};

void migration_params_init(struct migration_params *p);

/* ERR_USAGE with a message naming the field and what it takes. */
int migration_params_check(const struct migration_params *p, struct err *e);
