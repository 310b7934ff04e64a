/* The card's own half of its state (VirtioNetState, proto/device.proto). */
#include <errno.h>
#include <string.h>

#include "proto/device.pb-c.h"
#include "vmm/dev/state_message.h"
#include "vmm/net/virtio_net_private.h"

#define STATUS_BITS (VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE)

static ProtobufCBinaryData bytes_of(const void *data, size_t len)
{
	return (ProtobufCBinaryData){.len = len, .data = (uint8_t *)(uintptr_t)data};
}

static void describe_filter(const struct net_filter *f, Godwit__VirtioNetState *m)
{
	m->has_rx_mode = m->has_unicast = m->has_unicast_overflow = 1;
	m->has_multicast = m->has_multicast_overflow = m->has_vlans = 1;
	m->rx_mode = f->mode;
	m->unicast = bytes_of(f->unicast.macs, (size_t)f->unicast.nr * NET_MAC_BYTES);
	m->unicast_overflow = f->unicast.overflow;
	m->multicast = bytes_of(f->multicast.macs, (size_t)f->multicast.nr * NET_MAC_BYTES);
	m->multicast_overflow = f->multicast.overflow;
	m->vlans = bytes_of(f->vlans, sizeof(f->vlans));
}

int net_save(const struct virtio_kind *k, struct buf *out, struct err *e)
{
	const struct virtio_net *net = net_of_const(k);
	Godwit__VirtioNetState m = GODWIT__VIRTIO_NET_STATE__INIT;
	struct virtio_net_config config;

	net_config_get(net, &config);
	m.has_factory_mac = m.has_mac = m.has_status = m.has_nr_pairs = 1;
	m.has_offloads_chosen = m.has_chosen_offloads = m.has_addresses = 1;
	m.factory_mac = bytes_of(net->factory_mac, NET_MAC_BYTES);
	m.mac = bytes_of(config.mac, NET_MAC_BYTES);
	m.status = config.status;
	m.nr_pairs = net->nr_pairs;
	m.offloads_chosen = net->offloads_chosen;
	m.chosen_offloads = net->chosen_offloads;
	m.addresses = bytes_of(net->addresses.ipv4, (size_t)net->addresses.nr * 4);
	describe_filter(&net->filter, &m);
	return state_message_pack(&m.base, out, e);
}

static int check(const struct virtio_net *net, const Godwit__VirtioNetState *m, struct err *e)
{
	if (m->factory_mac.len != NET_MAC_BYTES || m->mac.len != NET_MAC_BYTES)
		return err_set(e, ERR_STREAM, EPROTO,
			       "virtio-net state: a MAC address of %zu bytes", m->mac.len);
	if (m->nr_pairs < 1 || m->nr_pairs > net->max_pairs)
		return err_set(e, ERR_STREAM, ERANGE, "virtio-net state: %u of %u queue pairs",
			       m->nr_pairs, net->max_pairs);
	if (m->unicast.len % NET_MAC_BYTES || m->multicast.len % NET_MAC_BYTES ||
	    m->vlans.len != NET_FILTER_VLAN_BYTES || m->addresses.len % 4)
		return err_set(e, ERR_STREAM, EPROTO, "virtio-net state: a table of odd length");
	if (m->chosen_offloads & ~net->kind.features)
		return err_set(e, ERR_STREAM, EPROTO,
			       "virtio-net state: offloads that the card does not have");
	return 0;
}

static void load_macs(struct net_mac_table *t, const ProtobufCBinaryData *macs, bool overflow)
{
	t->overflow = overflow;
	t->nr = (uint32_t)(macs->len / NET_MAC_BYTES);
	if (macs->len)
		memcpy(t->macs, macs->data, macs->len);
}

static void assign(struct virtio_net *net, const Godwit__VirtioNetState *m)
{
	/* Whether the cable is plugged in is a matter of this host. */
	uint16_t link = net->unplugged ? 0 : VIRTIO_NET_S_LINK_UP;

	memcpy(net->factory_mac, m->factory_mac.data, NET_MAC_BYTES);
	net_set_mac(net, m->mac.data);
	pthread_mutex_lock(&net->lock);
	net->config.status = (uint16_t)((m->status & VIRTIO_NET_S_ANNOUNCE) | link);
	pthread_mutex_unlock(&net->lock);
	net->nr_pairs = m->nr_pairs;
	net->offloads_chosen = m->offloads_chosen;
	net->chosen_offloads = m->chosen_offloads;
	net->filter.mode = m->rx_mode;
	load_macs(&net->filter.unicast, &m->unicast, m->unicast_overflow);
	load_macs(&net->filter.multicast, &m->multicast, m->multicast_overflow);
	memcpy(net->filter.vlans, m->vlans.data, NET_FILTER_VLAN_BYTES);
	net->addresses.nr = (uint32_t)(m->addresses.len / 4);
	if (m->addresses.len)
		memcpy(net->addresses.ipv4, m->addresses.data, m->addresses.len);
}

int net_load(struct virtio_kind *k, uint32_t version, const uint8_t *data, size_t len,
	     struct err *e)
{
	static const struct state_limit limits[] = {
		{"status", STATUS_BITS},
		{"rx_mode", NET_RX_MODES},
		{"unicast", (uint64_t)NET_FILTER_MACS * NET_MAC_BYTES},
		{"multicast", (uint64_t)NET_FILTER_MACS * NET_MAC_BYTES},
		{"addresses", (uint64_t)ANNOUNCE_MAX_ADDRESSES * 4},
		{NULL, 0},
	};
	struct virtio_net *net = net_of(k);
	ProtobufCMessage *m;
	int ret = state_message_unpack("virtio-net", &godwit__virtio_net_state__descriptor, limits,
				       data, len, &m, e);

	(void)version;
	if (ret < 0)
		return ret;
	ret = check(net, (const Godwit__VirtioNetState *)m, e);
	if (!ret)
		assign(net, (const Godwit__VirtioNetState *)m);
	protobuf_c_message_free_unpacked(m, NULL);
	/* Frames that came unasked were for the guest where it was. */
	if (!ret && !net->attracted)
		net_rx_discard(net);
	return ret;
}
