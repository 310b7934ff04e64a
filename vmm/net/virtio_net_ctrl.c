/* The control queue (virtio 1.2, 5.1.6.5): what the driver asks of the card. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "vmm/net/virtio_net_private.h"

#define DATA_AT sizeof(struct virtio_net_ctrl_hdr)

#define GUEST_OFFLOADS                                                               \
	(VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4) | \
	 VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_ECN) |  \
	 VIRTIO_BIT(VIRTIO_NET_F_GUEST_UFO))

uint32_t net_ctrl_index(const struct virtio_net *net)
{
	return virtio_has(net->kind.transport, VIRTIO_NET_F_MQ) ? 2 * net->max_pairs : 2;
}

static bool read_all(const struct virtq_chain *c, size_t offset, void *data, size_t len)
{
	return virtq_read(c, offset, data, len) == len;
}

/* Commands 0 to 5 of this class are bits 0 to 5 of the mode. */
static bool set_rx_mode(struct virtio_net *net, uint8_t command, const struct virtq_chain *c)
{
	bool extra = virtio_has(net->kind.transport, VIRTIO_NET_F_CTRL_RX_EXTRA);
	uint32_t bit = 1u << (command & 31);
	uint8_t on;

	if (command > (extra ? VIRTIO_NET_CTRL_RX_NOBCAST : VIRTIO_NET_CTRL_RX_ALLMULTI) ||
	    !read_all(c, DATA_AT, &on, sizeof(on)))
		return false;
	net->filter.mode = on ? net->filter.mode | bit : net->filter.mode & ~bit;
	return true;
}

/* Advances @offset behind the table. */
static bool read_macs(const struct virtq_chain *c, size_t *offset, struct net_mac_table *t)
{
	uint32_t entries;

	if (!read_all(c, *offset, &entries, sizeof(entries)))
		return false;
	entries = le32toh(entries);
	if (entries > (c->out_bytes - *offset - sizeof(entries)) / NET_MAC_BYTES)
		return false;
	*offset += sizeof(entries);
	t->overflow = entries > NET_FILTER_MACS;
	t->nr = t->overflow ? 0 : entries;
	virtq_read(c, *offset, t->macs, (size_t)t->nr * NET_MAC_BYTES);
	*offset += (size_t)entries * NET_MAC_BYTES;
	return true;
}

static bool set_mac_tables(struct virtio_net *net, const struct virtq_chain *c)
{
	struct net_mac_table unicast = {.nr = 0};
	struct net_mac_table multicast = {.nr = 0};
	size_t offset = DATA_AT;

	if (!read_macs(c, &offset, &unicast) || !read_macs(c, &offset, &multicast))
		return false;
	net->filter.unicast = unicast;
	net->filter.multicast = multicast;
	return true;
}

static bool set_address(struct virtio_net *net, const struct virtq_chain *c)
{
	uint8_t mac[NET_MAC_BYTES];

	if (!virtio_has(net->kind.transport, VIRTIO_NET_F_CTRL_MAC_ADDR) ||
	    !read_all(c, DATA_AT, mac, sizeof(mac)))
		return false;
	net_set_mac(net, mac);
	return true;
}

static bool control_mac(struct virtio_net *net, uint8_t command, const struct virtq_chain *c)
{
	switch (command) {
	case VIRTIO_NET_CTRL_MAC_TABLE_SET:
		return set_mac_tables(net, c);
	case VIRTIO_NET_CTRL_MAC_ADDR_SET:
		return set_address(net, c);
	default:
		return false;
	}
}

static bool control_vlan(struct virtio_net *net, uint8_t command, const struct virtq_chain *c)
{
	uint16_t vlan;

	if (!net->filter.by_vlan || command > VIRTIO_NET_CTRL_VLAN_DEL ||
	    !read_all(c, DATA_AT, &vlan, sizeof(vlan)) || le16toh(vlan) >= NET_FILTER_VLANS)
		return false;
	net_filter_set_vlan(&net->filter, le16toh(vlan), command == VIRTIO_NET_CTRL_VLAN_ADD);
	return true;
}

static bool acknowledge_announce(struct virtio_net *net, uint8_t command)
{
	if (command != VIRTIO_NET_CTRL_ANNOUNCE_ACK ||
	    !virtio_has(net->kind.transport, VIRTIO_NET_F_GUEST_ANNOUNCE))
		return false;
	net_change_status(net, VIRTIO_NET_S_ANNOUNCE, 0);
	return true;
}

/* Pairs beyond the new number are left alone from here on, with their buffers put back. */
static bool set_pairs(struct virtio_net *net, uint8_t command, const struct virtq_chain *c)
{
	uint16_t nr;

	if (command != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET ||
	    !virtio_has(net->kind.transport, VIRTIO_NET_F_MQ) ||
	    !read_all(c, DATA_AT, &nr, sizeof(nr)) || !nr || le16toh(nr) > net->max_pairs)
		return false;
	for (uint32_t i = le16toh(nr); i < net->nr_pairs; i++) {
		net_rx_stop(&net->pairs[i]);
		net->pairs[i].blocked = false;
		net_watch(&net->pairs[i]);
	}
	net->nr_pairs = le16toh(nr);
	net_apply(net);
	for (uint32_t i = 0; i < net->nr_pairs; i++) {
		net_rx_run(&net->pairs[i]);
		net_tx_run(&net->pairs[i]);
	}
	return true;
}

static bool set_offloads(struct virtio_net *net, uint8_t command, const struct virtq_chain *c)
{
	uint64_t offloads;

	if (command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
	    !virtio_has(net->kind.transport, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
	    !read_all(c, DATA_AT, &offloads, sizeof(offloads)))
		return false;
	offloads = le64toh(offloads);
	for (uint32_t bit = 0; bit < 64; bit++)
		if (offloads >> bit & 1 &&
		    (!(GUEST_OFFLOADS >> bit & 1) || !virtio_has(net->kind.transport, bit)))
			return false;
	net->offloads_chosen = true;
	net->chosen_offloads = offloads;
	net_apply(net);
	return true;
}

static bool obey(struct virtio_net *net, const struct virtq_chain *c)
{
	struct virtio_net_ctrl_hdr h;

	if (!read_all(c, 0, &h, sizeof(h)))
		return false;
	switch (h.class) {
	case VIRTIO_NET_CTRL_RX:
		return set_rx_mode(net, h.cmd, c);
	case VIRTIO_NET_CTRL_MAC:
		return control_mac(net, h.cmd, c);
	case VIRTIO_NET_CTRL_VLAN:
		return control_vlan(net, h.cmd, c);
	case VIRTIO_NET_CTRL_ANNOUNCE:
		return acknowledge_announce(net, h.cmd);
	case VIRTIO_NET_CTRL_MQ:
		return set_pairs(net, h.cmd, c);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
		return set_offloads(net, h.cmd, c);
	default:
		return false;
	}
}

void net_ctrl_run(struct virtio_net *net)
{
	struct virtq *q = virtio_queue(net->kind.transport, net_ctrl_index(net));
	struct virtq_chain c;

	if (!q)
		return;
	do {
		virtq_kicks_off(q);
		while (virtq_pop(q, &c) > 0) {
			uint8_t ack = obey(net, &c) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;

			virtq_push(q, &c, (uint32_t)virtq_write(&c, 0, &ack, sizeof(ack)));
		}
	} while (virtq_kicks_on(q));
	virtq_flush(q);
}
