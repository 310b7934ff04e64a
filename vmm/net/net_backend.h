/*
 * Where a network card's frames go to and come from.
 *
 * A back end is a set of queues, and a queue is a descriptor: readv() takes one frame from it and
 * writev() gives it one, each with a virtio_net_hdr_v1 (12 bytes, little endian: virtio 1.2,
 * 5.1.6) in front. So the card moves frames straight between the descriptor and guest memory, and
 * what differs between kinds is only how queues are opened and configured. The descriptors do not
 * block.
 *
 * The card owns it. Immutable after new; the operations are for one thread at a time (the card's
 * controller), reading and writing for any.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"
#include "vmm/net/net_config.h"

#define NET_HDR_BYTES 12
/* The largest frame there is: 64 KiB of IP behind an Ethernet header with a VLAN tag. */
#define NET_FRAME_BYTES 65553
#define NET_MAX_BYTES   (NET_HDR_BYTES + NET_FRAME_BYTES)

/* What the frames taken from a back end may leave to the taker: bits as TUNSETOFFLOAD has them. */
enum net_offload {
	NET_OFFLOAD_CSUM = 0x01,
	NET_OFFLOAD_TSO4 = 0x02,
	NET_OFFLOAD_TSO6 = 0x04,
	NET_OFFLOAD_ECN = 0x08,
	NET_OFFLOAD_UFO = 0x10,
};

struct net_backend;

struct net_backend_ops {
	const char *kind;
	int (*open)(struct net_backend *b, const struct net_config *config, struct err *e);
	/* Frames taken from here on need no more than @offloads, a subset of b->offloads. */
	int (*set_offloads)(struct net_backend *b, uint32_t offloads, struct err *e);
	/* Frames arrive at the first @nr queues only; 1 to b->nr_queues. */
	int (*set_queues)(struct net_backend *b, uint32_t nr, struct err *e);
};

struct net_backend {
	const struct net_backend_ops *ops;
	char name[NET_NAME_BYTES]; /* "tap0", for messages */
	uint32_t offloads;         /* what it can leave to the taker, and takes itself */
	uint16_t mtu;              /* 0: not known */
	uint32_t nr_queues;
	uint32_t nr_attached; /* of them; owned by set_queues */
	int fds[NET_MAX_QUEUES];
};

/* config->nr_queues of 0 is 1. Nothing is offloaded and one queue is attached. */
int net_backend_new(const struct net_config *config, struct net_backend **out, struct err *e);
void net_backend_free(struct net_backend *b);

int net_backend_set_offloads(struct net_backend *b, uint32_t offloads, struct err *e);
int net_backend_set_queues(struct net_backend *b, uint32_t nr, struct err *e);

/* The kinds; net_backend.c lists them. */
extern const struct net_backend_ops net_tap_ops;
extern const struct net_backend_ops net_fd_ops;
