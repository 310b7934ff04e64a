/* What the guest is offered, by a card of our own or by one that arrives. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vmm/base/log.h"
#include "vmm/net/virtio_net_private.h"

/* Feature bits that are a kind's own to give: virtio 1.2, 2.2. */
#define KIND_BITS (~0ull >> 40 | ~0ull << 50)

#define ALWAYS                                                                         \
	(VIRTIO_BIT(VIRTIO_NET_F_MAC) | VIRTIO_BIT(VIRTIO_NET_F_STATUS) |              \
	 VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) |       \
	 VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) |   \
	 VIRTIO_BIT(VIRTIO_NET_F_CTRL_VLAN) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | \
	 VIRTIO_BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE))

/* One of the back end's abilities as the feature for each direction. */
static const struct offload_features {
	uint32_t offload;
	uint32_t guest; /* the driver takes such frames */
	uint32_t host;  /* the driver sends such frames */
	const char *name;
} offload_features[] = {
	{NET_OFFLOAD_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_CSUM, "CSUM"},
	{NET_OFFLOAD_TSO4, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_TSO4, "TSO4"},
	{NET_OFFLOAD_TSO6, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO6, "TSO6"},
	{NET_OFFLOAD_ECN, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_HOST_ECN, "ECN"},
	{NET_OFFLOAD_UFO, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_HOST_UFO, "UFO"},
};

#define NR_OFFLOADS (sizeof(offload_features) / sizeof(offload_features[0]))

uint32_t net_wanted_offloads(const struct virtio_net *net)
{
	uint32_t offloads = 0;

	for (size_t i = 0; i < NR_OFFLOADS; i++) {
		uint32_t bit = offload_features[i].guest;
		bool wanted = net->offloads_chosen ? net->chosen_offloads >> bit & 1
						   : virtio_has(net->kind.transport, bit);

		if (wanted)
			offloads |= offload_features[i].offload;
	}
	/* TUNSETOFFLOAD knows segments only of frames whose checksum may be missing. */
	return offloads & NET_OFFLOAD_CSUM ? offloads : 0;
}

uint64_t net_possible_features(const struct virtio_net *net)
{
	uint64_t features = ALWAYS;

	for (size_t i = 0; i < NR_OFFLOADS; i++)
		if (net->backend->offloads & offload_features[i].offload)
			features |= VIRTIO_BIT(offload_features[i].guest) |
				    VIRTIO_BIT(offload_features[i].host);
	if (net->backend->mtu)
		features |= VIRTIO_BIT(VIRTIO_NET_F_MTU);
	if (net->max_pairs > 1)
		features |= VIRTIO_BIT(VIRTIO_NET_F_MQ);
	return features;
}

/* A card that arrives is what it was. Its driver may have changed the address it was given once, so
 * what @c says of that, perhaps in the source's own words, means nothing. */
int net_adopt_face(const struct virtio_face *face, struct net_config *c, struct err *e)
{
	struct virtio_net_config seen = {.status = 0};

	if (face->config_bytes != NET_CONFIG_BYTES)
		return err_set(e, ERR_UNSUPPORTED, EPROTO,
			       "its configuration space has %u bytes, not %zu", face->config_bytes,
			       (size_t)NET_CONFIG_BYTES);
	memcpy(&seen, face->config, NET_CONFIG_BYTES);
	if (seen.max_virtqueue_pairs < 1 || seen.max_virtqueue_pairs > NET_MAX_QUEUES)
		return err_set(e, ERR_STREAM, EPROTO, "it has %u queue pairs",
			       seen.max_virtqueue_pairs);
	if (c->nr_queues && c->nr_queues != seen.max_virtqueue_pairs)
		return err_set(e, ERR_USAGE, EINVAL,
			       "the guest's card has %u queue pairs: leave queues= out here",
			       seen.max_virtqueue_pairs);
	c->nr_queues = seen.max_virtqueue_pairs;
	c->has_mac = true;
	memcpy(c->mac, seen.mac, NET_MAC_BYTES);
	return 0;
}

/* The features the face has and this back end has not, by name. */
static int lacks(const struct virtio_net *net, uint64_t missing, struct err *e)
{
	char names[64] = "";

	for (size_t i = 0; i < NR_OFFLOADS; i++)
		if (missing & (VIRTIO_BIT(offload_features[i].guest) |
			       VIRTIO_BIT(offload_features[i].host))) {
			strcat(names, " ");
			strcat(names, offload_features[i].name);
		}
	return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
		       "'%s' lacks what the guest's card offers: features 0x%" PRIx64 "%s",
		       net->backend->name, missing, names);
}

int net_wear_face(struct virtio_net *net, const struct virtio_face *face, struct err *e)
{
	uint64_t theirs = face->features & KIND_BITS;
	struct virtio_net_config seen = {.status = 0};
	/* Whatever the MTU of this back end, the guest has been told one. */
	uint64_t mine = net->kind.features | VIRTIO_BIT(VIRTIO_NET_F_MTU);

	if (theirs & ~mine)
		return lacks(net, theirs & ~mine, e);
	net->kind.features = theirs;
	memcpy(&seen, face->config, NET_CONFIG_BYTES);
	net->config.mtu = seen.mtu;
	if (net->backend->mtu && net->backend->mtu < seen.mtu)
		log_warning("'%s' has an MTU of %u, its guest uses %u; as root: ip link set %s mtu "
			    "%u",
			    net->backend->name, net->backend->mtu, seen.mtu, net->backend->name,
			    seen.mtu);
	return 0;
}
