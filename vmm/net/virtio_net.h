/*
 * The network card (virtio 1.2, 5.1) as a kind of virtio device (vmm/virtio/virtio.h) on a back end
 * (vmm/net/net_backend.h).
 *
 * Frames move by one readv() or writev() between the back end's descriptor and guest memory; there
 * is no copy and no frame is ever in the VMM's hands: one is taken from the back end only when the
 * driver has given buffers for the longest that may come, so stopping loses none. All of it runs on
 * the device's I/O thread.
 */
#pragma once

#include "vmm/net/net_announce.h"
#include "vmm/virtio/virtio.h"

/* @spec as `--net` has it. A card that arrives keeps the MAC address and the number of queue pairs
 * that @face has, whatever @spec says of the first; of the second it may say nothing else. */
int virtio_net_new(const char *spec, uint32_t instance, const struct virtio_face *face,
		   struct virtio_kind **out, struct err *e);

/*
 * Tell the network that the guest is here: RARP and gratuitous ARP from the back end in @p's
 * rounds, and, where the driver can (VIRTIO_NET_F_GUEST_ANNOUNCE), by the guest itself. The first
 * round is done when this returns, or, if the card is stopped, when it is started. Any thread but
 * the I/O thread.
 */
void virtio_net_announce(struct virtio_kind *kind, const struct announce_params *p);

/*
 * The guest stands still where it was, and is to run here: RARP draws its frames to this back end,
 * where they wait until the card starts. What was heard before was for the guest elsewhere and is
 * forgotten. If the guest stays where it was, it has to be announced there. For a card that has not
 * been started; any thread but the I/O thread.
 */
void virtio_net_attract(struct virtio_kind *kind);
