/*
 * What `--net` says about one network card: tap:IF[,mac=M][,queues=N] or fd:N[,...]. Plain data;
 * travels by value. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/err.h"

#define NET_MAC_BYTES  6
#define NET_MAX_QUEUES 8
#define NET_NAME_BYTES 32

struct net_config {
	char kind[8];              /* "tap", "fd" */
	char name[NET_NAME_BYTES]; /* what of that kind: an interface, a descriptor */
	bool has_mac;
	uint8_t mac[NET_MAC_BYTES];
	uint32_t nr_queues; /* pairs; 0: not said, which is one */
};

int net_config_parse(const char *text, struct net_config *out, struct err *e);

/* "52:54:00:12:34:56"; refuses group and all-zero addresses, which no card may have. */
int net_mac_parse(const char *text, uint8_t mac[NET_MAC_BYTES], struct err *e);

/*
 * An address for a card that was given none: the same whenever the same interface of the same host
 * is named, and hardly ever that of another. 52:54:00 (locally administered, as KVM guests have)
 * and 24 bits of a hash of /etc/machine-id (or the host's name) and @name.
 */
void net_mac_generate(const char *name, uint8_t mac[NET_MAC_BYTES]);
