/* From the guest to the back end. */
#include <errno.h>
#include <net/ethernet.h>
#include <unistd.h>

#include "vmm/net/virtio_net_private.h"

#define FLUSH_FRAMES  64
#define ETHER_TYPE_AT (NET_HDR_BYTES + offsetof(struct ether_header, ether_type))

/* ARP says by which addresses the guest is known; see announce_learn(). */
static void listen_in(struct virtio_net *net, const struct virtq_chain *c)
{
	uint8_t type[2] = {0};
	uint8_t frame[ANNOUNCE_LEARN_BYTES];
	size_t len;

	virtq_read(c, ETHER_TYPE_AT, type, sizeof(type));
	if (type[0] != ETHERTYPE_ARP >> 8 || type[1] != (ETHERTYPE_ARP & 0xff))
		return;
	len = virtq_read(c, NET_HDR_BYTES, frame, sizeof(frame));
	announce_learn(&net->addresses, net->config.mac, frame, len);
}

/* False: the back end is full, the frame must wait. */
static bool send_frame(struct net_pair *p, struct virtq_chain *c)
{
	struct virtio_net *net = p->net;

	if (c->out_bytes > NET_MAX_BYTES || net->unplugged) {
		net->tx_dropped++;
		return true;
	}
	listen_in(net, c);
	if (writev(p->watch.fd, virtq_out(c), c->nr_out) >= 0)
		return true;
	if (errno == EAGAIN)
		return false;
	/* A frame the kernel finds malformed, an interface that is down: a wire loses those. */
	net->tx_dropped++;
	return true;
}

/* The next frame: 1, 0 if there is none to send now, negative if the queue is broken. */
static int send_next(struct net_pair *p, struct virtq *q)
{
	struct virtq_chain *c = &p->sending;
	int ret = virtq_pop(q, c);

	if (ret <= 0)
		return ret;
	if (c->out_bytes < NET_HDR_BYTES) {
		virtio_broken(p->net->kind.transport, "a frame to send without its header");
		return -EPROTO;
	}
	p->blocked = !send_frame(p, c);
	if (p->blocked) {
		virtq_unpop(q);
		return 0;
	}
	virtq_push(q, c, 0);
	return 1;
}

/* Up to a turn's worth of frames; returns whether some are left. */
static bool turn(struct net_pair *p, struct virtq *q)
{
	for (uint32_t nr = 1; nr <= NET_TURN_FRAMES; nr++) {
		if (send_next(p, q) <= 0)
			return false;
		/* The driver frees what was sent, and may be waiting for room. */
		if (nr % FLUSH_FRAMES == 0)
			virtq_flush(q);
	}
	return true;
}

void net_tx_run(struct net_pair *p)
{
	struct virtio_net *net = p->net;
	struct virtq *q = p->index < net->nr_pairs
				  ? virtio_queue(net->kind.transport, 2 * p->index + 1)
				  : NULL;
	uint64_t one = 1;

	if (!q)
		return;
	virtq_kicks_off(q);
	do {
		p->unfinished = turn(p, q);
	} while (!p->unfinished && !p->blocked && virtq_kicks_on(q));
	virtq_flush(q);
	net_watch(p);
	/* Cannot fail: the counter is far from full. */
	if (p->unfinished && write(net->again.fd, &one, sizeof(one)) < 0)
		p->unfinished = false;
}
