/*
 * Which frames a card takes: the receive mode, MAC table and VLANs that the driver sets through the
 * control queue (virtio 1.2, 5.1.6.5). A card whose driver never sets any takes everything, as a
 * tap gives nothing else. Plain data; one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/net/net_config.h"

#define NET_FILTER_MACS       64
#define NET_FILTER_VLANS      4096
#define NET_FILTER_VLAN_BYTES (NET_FILTER_VLANS / 8)
/* How much of a frame decides: two addresses, a VLAN tag. */
#define NET_FILTER_LOOK_BYTES 18

/* Receive mode, one bit a command of class VIRTIO_NET_CTRL_RX, in its numbers' order. */
enum net_rx_mode {
	NET_RX_PROMISC = 1 << 0,
	NET_RX_ALLMULTI = 1 << 1,
	NET_RX_ALLUNI = 1 << 2,
	NET_RX_NOMULTI = 1 << 3,
	NET_RX_NOUNI = 1 << 4,
	NET_RX_NOBCAST = 1 << 5,
	NET_RX_MODES = (1 << 6) - 1,
};

/* More addresses than fit: then all of that sort are taken. */
struct net_mac_table {
	bool overflow;
	uint32_t nr;
	uint8_t macs[NET_FILTER_MACS][NET_MAC_BYTES];
};

struct net_filter {
	uint32_t mode;                /* enum net_rx_mode, ORed */
	bool by_vlan;                 /* tagged frames are taken only if their VLAN is in @vlans */
	struct net_mac_table unicast; /* besides the card's own */
	struct net_mac_table multicast;
	uint8_t vlans[NET_FILTER_VLAN_BYTES];
};

/* As after power-on. */
void net_filter_reset(struct net_filter *f);

void net_filter_set_vlan(struct net_filter *f, uint16_t vlan, bool on);

/* Does a card of address @mac take the frame that begins with @frame (@len bytes of it at hand)? */
bool net_filter_takes(const struct net_filter *f, const uint8_t mac[NET_MAC_BYTES],
		      const uint8_t *frame, size_t len);
