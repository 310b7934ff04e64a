#include "vmm/net/net_filter.h"

#include <string.h>

#define ETHER_TYPE_AT 12
#define ETHER_VLAN_HI 0x81
#define VLAN_AT       14

void net_filter_reset(struct net_filter *f)
{
	*f = (struct net_filter){.mode = NET_RX_PROMISC};
}

void net_filter_set_vlan(struct net_filter *f, uint16_t vlan, bool on)
{
	uint8_t bit = (uint8_t)(1u << vlan % 8);

	if (on)
		f->vlans[vlan / 8] |= bit;
	else
		f->vlans[vlan / 8] &= (uint8_t)~bit;
}

static bool holds(const struct net_mac_table *t, const uint8_t *mac)
{
	for (uint32_t i = 0; i < t->nr; i++)
		if (!memcmp(t->macs[i], mac, NET_MAC_BYTES))
			return true;
	return t->overflow;
}

static bool takes_vlan(const struct net_filter *f, const uint8_t *frame)
{
	uint16_t vlan;

	if (!f->by_vlan || frame[ETHER_TYPE_AT] != ETHER_VLAN_HI || frame[ETHER_TYPE_AT + 1])
		return true;
	vlan = (uint16_t)((frame[VLAN_AT] & 0x0f) << 8 | frame[VLAN_AT + 1]);
	return f->vlans[vlan / 8] >> vlan % 8 & 1;
}

static bool takes_group(const struct net_filter *f, const uint8_t *to)
{
	static const uint8_t broadcast[NET_MAC_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	if (!memcmp(to, broadcast, NET_MAC_BYTES))
		return !(f->mode & NET_RX_NOBCAST);
	if (f->mode & NET_RX_NOMULTI)
		return false;
	return f->mode & NET_RX_ALLMULTI || holds(&f->multicast, to);
}

static bool takes_unicast(const struct net_filter *f, const uint8_t *mac, const uint8_t *to)
{
	if (f->mode & NET_RX_NOUNI)
		return false;
	return f->mode & NET_RX_ALLUNI || !memcmp(to, mac, NET_MAC_BYTES) || holds(&f->unicast, to);
}

bool net_filter_takes(const struct net_filter *f, const uint8_t mac[NET_MAC_BYTES],
		      const uint8_t *frame, size_t len)
{
	if (f->mode & NET_RX_PROMISC)
		return true;
	if (len < NET_FILTER_LOOK_BYTES)
		return false;
	if (!takes_vlan(f, frame))
		return false;
	return frame[0] & 1 ? takes_group(f, frame) : takes_unicast(f, mac, frame);
}
