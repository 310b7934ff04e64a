/*
 * Telling the network where a guest is now: the frames, and when they are sent.
 *
 * Switches and bridges learn from any frame with the guest's source address. RARP needs no IP
 * address to be known; gratuitous ARP (RFC 5227, 3: an ARP request for one's own address) also
 * reaches equipment that ignores RARP, for the addresses that the guest was heard to use. Pure
 * functions and plain data; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/net/net_config.h"

/* QEMU's announce-* parameters and defaults: rounds at 0, 50, 200, 450 and 800 ms. */
struct announce_params {
	uint32_t initial_ms; /* from the first round to the second */
	uint32_t max_ms;     /* no two rounds are further apart */
	uint32_t rounds;
	uint32_t step_ms; /* each delay is longer by this */
};

#define ANNOUNCE_DEFAULTS                                                    \
	{                                                                    \
		.initial_ms = 50, .max_ms = 550, .rounds = 5, .step_ms = 100 \
	}

/* From round @round (0 is the first) to the next. */
uint32_t announce_delay_ms(const struct announce_params *p, uint32_t round);

#define ANNOUNCE_FRAME_BYTES 60 /* the shortest Ethernet frame, without its checksum */

void announce_rarp(const uint8_t mac[NET_MAC_BYTES], uint8_t frame[ANNOUNCE_FRAME_BYTES]);
void announce_arp(const uint8_t mac[NET_MAC_BYTES], const uint8_t ipv4[4],
		  uint8_t frame[ANNOUNCE_FRAME_BYTES]);

/* IPv4 addresses a guest has used lately: the newest first. */
#define ANNOUNCE_MAX_ADDRESSES 4

struct announce_addresses {
	uint32_t nr;
	uint8_t ipv4[ANNOUNCE_MAX_ADDRESSES][4];
};

/* How much of a frame announce_learn() looks at. */
#define ANNOUNCE_LEARN_BYTES 42

/* @frame, sent by the guest: if it is an ARP packet in which the owner of @mac names its IPv4
 * address, note that. Returns whether @a changed. */
bool announce_learn(struct announce_addresses *a, const uint8_t mac[NET_MAC_BYTES],
		    const uint8_t *frame, size_t len);
