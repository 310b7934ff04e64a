/* From the back end to the guest. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vmm/net/virtio_net_private.h"

#define SHORTEST_FRAME 14 /* an Ethernet header */
#define NR_BUFFERS_AT  offsetof(struct virtio_net_hdr_v1, num_buffers)
#define DISCARD_FRAMES 10000 /* more than a tap holds, unless somebody floods it */
/* Chains may have many pieces, a readv() takes 1024. */
#define MAX_PIECES 512

/* Where a frame is to go: the memory of the window's first chains, in order. */
struct landing {
	struct iovec iov[MAX_PIECES + 1];
	int nr;
	uint64_t bytes;
	uint8_t excess[1]; /* a frame that reaches this byte was too long */
};

static struct virtq_chain *nth(struct net_window *w, uint32_t i)
{
	return &w->chains[(w->first + i) % NET_WINDOW];
}

static bool merges(const struct virtio_net *net)
{
	return virtio_has(net->kind.transport, VIRTIO_NET_F_MRG_RXBUF);
}

/* Is the window as large as it gets for any frame? Without merging a frame has one chain, whatever
 * its length. */
static bool has_enough(const struct net_pair *p)
{
	const struct net_window *w = &p->window;

	if (!merges(p->net))
		return w->nr > 0;
	return w->bytes >= p->net->longest_bytes || w->nr == NET_WINDOW;
}

/* Take one more chain: 1, 0 if none is waiting, negative if the queue is broken. */
static int widen(struct net_pair *p, struct virtq *q)
{
	struct net_window *w = &p->window;
	struct virtq_chain *c = nth(w, w->nr);
	int ret = virtq_pop(q, c);

	if (ret <= 0)
		return ret;
	w->nr++;
	w->bytes += c->in_bytes;
	if (c->in_bytes)
		return 1;
	virtio_broken(p->net->kind.transport, "a receive buffer without room");
	return -EPROTO;
}

/* False: the driver has to give more buffers, and will kick when it has. */
static bool fill(struct net_pair *p, struct virtq *q)
{
	int ret = 1;

	while (!has_enough(p) && ret > 0) {
		ret = widen(p, q);
		if (ret == 0 && virtq_in_flight(q) == virtq_size(q))
			return true; /* it cannot give more than it has */
		if (ret == 0 && virtq_kicks_on(q)) {
			virtq_kicks_off(q);
			ret = 1;
		}
	}
	return ret > 0;
}

static void add_chain(struct landing *l, struct virtq_chain *c)
{
	memcpy(&l->iov[l->nr], virtq_in(c), c->nr_in * sizeof(struct iovec));
	l->nr += c->nr_in;
	l->bytes += c->in_bytes;
}

static void lay_out(struct net_pair *p, struct landing *l)
{
	struct net_window *w = &p->window;
	uint32_t nr_chains = merges(p->net) ? w->nr : 1;

	l->nr = 0;
	l->bytes = 0;
	for (uint32_t i = 0; i < nr_chains && l->bytes < p->net->longest_bytes; i++) {
		if (l->nr + nth(w, i)->nr_in > MAX_PIECES)
			break;
		add_chain(l, nth(w, i));
	}
	l->iov[l->nr] = (struct iovec){l->excess, sizeof(l->excess)};
}

/* @len bytes from @offset of the frame on, out of or into where it landed. */
static void copy(const struct landing *l, size_t offset, void *data, size_t len, bool into)
{
	uint8_t *at = data;

	for (int i = 0; i < l->nr && len; i++) {
		size_t piece = l->iov[i].iov_len;
		size_t n;

		if (offset >= piece) {
			offset -= piece;
			continue;
		}
		n = piece - offset < len ? piece - offset : len;
		if (into)
			memcpy((uint8_t *)l->iov[i].iov_base + offset, at, n);
		else
			memcpy(at, (uint8_t *)l->iov[i].iov_base + offset, n);
		at += n;
		len -= n;
		offset = 0;
	}
}

static bool is_wanted(const struct virtio_net *net, const struct landing *l, uint64_t len)
{
	uint8_t head[NET_FILTER_LOOK_BYTES] = {0};
	size_t looked = len - NET_HDR_BYTES < sizeof(head) ? len - NET_HDR_BYTES : sizeof(head);

	if (net->filter.mode & NET_RX_PROMISC)
		return true;
	copy(l, NET_HDR_BYTES, head, looked, false);
	/* Only this thread writes the address. */
	return net_filter_takes(&net->filter, net->config.mac, head, sizeof(head));
}

/* How many of the window's chains @len bytes fill. */
static uint16_t count_chains(struct net_window *w, uint64_t len)
{
	uint16_t nr = 0;

	for (uint64_t room = 0; room < len; nr++)
		room += nth(w, nr)->in_bytes;
	return nr;
}

/* The tap fills in the header but for its last field, which nobody else can know. */
static void complete_header(struct virtio_net *net, const struct landing *l, uint16_t nr_chains)
{
	uint8_t no_flags = 0;

	copy(l, NR_BUFFERS_AT, &nr_chains, sizeof(nr_chains), true);
	/* DATA_VALID is only for drivers that asked (5.1.6.4.1). */
	if (!virtio_has(net->kind.transport, VIRTIO_NET_F_GUEST_CSUM))
		copy(l, 0, &no_flags, sizeof(no_flags), true);
}

static void hand_over(struct net_pair *p, struct virtq *q, const struct landing *l, uint64_t len)
{
	struct net_window *w = &p->window;
	uint16_t nr = count_chains(w, len);

	complete_header(p->net, l, nr);
	for (; nr; nr--) {
		const struct virtq_chain *c = nth(w, 0);
		uint64_t n = len < c->in_bytes ? len : c->in_bytes;

		virtq_push(q, c, (uint32_t)n);
		len -= n;
		w->bytes -= c->in_bytes;
		w->first = (w->first + 1) % NET_WINDOW;
		w->nr--;
	}
}

/* A frame that is not handed over has still changed memory that a migration compares, and the
 * driver has it back unpushed: so it is marked here and not by virtq_push(). */
static void mark(struct guest_mem *mem, const struct landing *l, uint64_t len)
{
	const uint8_t *origin = guest_mem_at(mem, 0, 1); /* gpa 0: the mapping is linear */

	for (int i = 0; i < l->nr && len; i++) {
		const uint8_t *at = l->iov[i].iov_base;
		uint64_t n = l->iov[i].iov_len < len ? l->iov[i].iov_len : len;

		guest_mem_mark(mem, (uint64_t)(at - origin), n);
		len -= n;
	}
}

/* One frame. False: there is none. */
static bool receive(struct net_pair *p, struct virtq *q)
{
	struct virtio_net *net = p->net;
	struct landing l;
	ssize_t len;

	lay_out(p, &l);
	len = readv(p->watch.fd, l.iov, l.nr + 1);
	if (len < 0) {
		if (errno != EAGAIN && errno != EINTR)
			net_unplug(net, errno);
		return false;
	}
	if (len >= NET_HDR_BYTES + SHORTEST_FRAME && (uint64_t)len <= l.bytes &&
	    is_wanted(net, &l, (uint64_t)len)) {
		hand_over(p, q, &l, (uint64_t)len);
		return true;
	}
	mark(virtio_mem(net->kind.transport), &l, (uint64_t)len);
	net->rx_dropped++;
	return true;
}

/* Up to a turn's worth of frames. */
static void turn(struct net_pair *p, struct virtq *q)
{
	virtq_kicks_off(q);
	p->hungry = true;
	for (uint32_t nr = 0; nr < NET_TURN_FRAMES; nr++) {
		p->hungry = fill(p, q);
		if (!p->hungry || !receive(p, q))
			break;
	}
	virtq_flush(q);
}

static struct virtq *queue_of(const struct net_pair *p)
{
	const struct virtio_net *net = p->net;

	if (net->unplugged || p->index >= net->nr_pairs)
		return NULL;
	return virtio_queue(net->kind.transport, 2 * p->index);
}

void net_rx_run(struct net_pair *p)
{
	struct virtq *q = queue_of(p);

	if (!q)
		return;
	turn(p, q);
	net_watch(p);
}

void net_rx_stop(struct net_pair *p)
{
	struct virtq *q = queue_of(p);
	struct net_window *w = &p->window;

	if (q)
		turn(p, q);
	for (; w->nr; w->nr--)
		virtq_unpop(virtio_queue(p->net->kind.transport, 2 * p->index));
	w->bytes = 0;
	w->first = 0;
	p->hungry = false;
}

/* A descriptor gives the head of a frame that is longer, and forgets the rest. */
void net_rx_discard(const struct virtio_net *net)
{
	uint8_t head[NET_HDR_BYTES];

	for (uint32_t i = 0; i < net->max_pairs; i++)
		for (uint32_t nr = 0; nr < DISCARD_FRAMES; nr++)
			if (read(net->pairs[i].watch.fd, head, sizeof(head)) < 0)
				break;
}
