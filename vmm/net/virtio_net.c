/* The card: construction, configuration space, starting and stopping. */
#include "vmm/net/virtio_net_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/base/log.h"

#define LONGEST_MTU 1500 /* where the back end does not say */
#define VLAN_BYTES  4

/* ---- The configuration space ---- */

void net_config_get(const struct virtio_net *net, struct virtio_net_config *out)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&net->lock; /* const but for it */

	pthread_mutex_lock(lock);
	*out = net->config;
	pthread_mutex_unlock(lock);
}

void net_set_mac(struct virtio_net *net, const uint8_t mac[NET_MAC_BYTES])
{
	pthread_mutex_lock(&net->lock);
	memcpy(net->config.mac, mac, NET_MAC_BYTES);
	pthread_mutex_unlock(&net->lock);
}

void net_change_status(struct virtio_net *net, uint16_t clear, uint16_t set)
{
	uint16_t before;
	uint16_t after;

	pthread_mutex_lock(&net->lock);
	before = net->config.status;
	after = (uint16_t)((before & ~clear) | set);
	net->config.status = after;
	pthread_mutex_unlock(&net->lock);
	/* A bit that the driver had cleared itself is no news to it. */
	if (after & ~before || (before & ~after & VIRTIO_NET_S_LINK_UP))
		virtio_config_changed(net->kind.transport);
}

static void config_read(struct virtio_kind *k, uint32_t offset, void *data, uint32_t len)
{
	struct virtio_net_config config;

	net_config_get(net_of(k), &config);
	memcpy(data, (const uint8_t *)&config + offset, len);
}

/* ---- Following the driver ---- */

void net_watch(struct net_pair *p)
{
	struct virtio_net *net = p->net;
	uint32_t events = (p->hungry ? EPOLLIN : 0u) | (p->blocked ? EPOLLOUT : 0u);
	struct err e = ERR_INIT;

	if (net->unplugged || !net->started)
		events = 0;
	if (events != p->watch.events &&
	    io_thread_watch(virtio_io(net->kind.transport), &p->watch, events, &e) < 0)
		log_warning("%s: %s", net->backend->name, e.msg);
}

void net_unplug(struct virtio_net *net, int code)
{
	log_warning("network %s is gone (%s): its guest sees the cable pulled", net->backend->name,
		    strerrordesc_np(code));
	net->unplugged = true;
	for (uint32_t i = 0; i < net->max_pairs; i++)
		net_watch(&net->pairs[i]);
	net_change_status(net, VIRTIO_NET_S_LINK_UP, 0);
}

void net_apply(struct virtio_net *net)
{
	uint32_t offloads = net_wanted_offloads(net);
	uint32_t mtu = net->backend->mtu ? net->backend->mtu : LONGEST_MTU;
	struct err e = ERR_INIT;

	net->longest_bytes = offloads & ~(uint32_t)NET_OFFLOAD_CSUM
				     ? NET_MAX_BYTES
				     : NET_HDR_BYTES + ETH_HLEN + VLAN_BYTES + mtu;
	net->filter.by_vlan = virtio_has(net->kind.transport, VIRTIO_NET_F_CTRL_VLAN);
	if (net_backend_set_offloads(net->backend, offloads, &e) < 0 ||
	    net_backend_set_queues(net->backend, net->nr_pairs, &e) < 0)
		log_warning("%s", e.msg);
}

static void run_pairs(struct virtio_net *net, bool (*wanted)(const struct net_pair *p))
{
	for (uint32_t i = 0; i < net->nr_pairs; i++)
		if (wanted(&net->pairs[i]))
			net_tx_run(&net->pairs[i]);
}

static bool is_unfinished(const struct net_pair *p)
{
	return p->unfinished;
}

static void on_again(void *ctx, uint32_t events)
{
	struct virtio_net *net = ctx;
	uint64_t count;

	(void)events;
	if (read(net->again.fd, &count, sizeof(count)) == sizeof(count))
		run_pairs(net, is_unfinished);
}

static void on_ready(void *ctx, uint32_t events)
{
	struct net_pair *p = ctx;

	if (p->blocked && events & (EPOLLOUT | EPOLLERR))
		net_tx_run(p);
	if (p->hungry && events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		net_rx_run(p);
}

static void start(struct virtio_kind *k)
{
	struct virtio_net *net = net_of(k);
	struct err e = ERR_INIT;

	net->started = true;
	net->attracted = false;
	net_apply(net);
	if (io_thread_watch(virtio_io(k->transport), &net->again, EPOLLIN, &e) < 0)
		log_warning("%s: %s", net->backend->name, e.msg);
	net_announcer_start(net);
}

static int stop(struct virtio_kind *k, struct err *e)
{
	struct virtio_net *net = net_of(k);
	struct err ignored = ERR_INIT;

	(void)e;
	net_announcer_stop(net);
	io_thread_watch(virtio_io(k->transport), &net->again, 0, &ignored);
	net->started = false;
	for (uint32_t i = 0; i < net->max_pairs; i++) {
		struct net_pair *p = &net->pairs[i];

		net_rx_stop(p);
		p->blocked = p->unfinished = false;
		net_watch(p);
	}
	return 0;
}

static void handle_queue(struct virtio_kind *k, uint32_t index)
{
	struct virtio_net *net = net_of(k);

	if (index == net_ctrl_index(net) && virtio_has(k->transport, VIRTIO_NET_F_CTRL_VQ))
		net_ctrl_run(net);
	else if (index / 2 >= net->max_pairs)
		return;
	else if (index % 2)
		net_tx_run(&net->pairs[index / 2]);
	else
		net_rx_run(&net->pairs[index / 2]);
}

static void reset(struct virtio_kind *k)
{
	struct virtio_net *net = net_of(k);

	net_filter_reset(&net->filter);
	net->addresses = (struct announce_addresses){.nr = 0};
	net->announcer.round = net->announcer.params.rounds;
	net->offloads_chosen = false;
	net->nr_pairs = 1;
	pthread_mutex_lock(&net->lock);
	memcpy(net->config.mac, net->factory_mac, NET_MAC_BYTES);
	net->config.status &= (uint16_t)~VIRTIO_NET_S_ANNOUNCE;
	pthread_mutex_unlock(&net->lock);
}

/* ---- Construction ---- */

static void build_config(struct virtio_net *net, const struct net_config *c)
{
	net->config.status = VIRTIO_NET_S_LINK_UP;
	net->config.max_virtqueue_pairs = (uint16_t)net->max_pairs;
	net->config.mtu = net->backend->mtu;
	if (c->has_mac)
		memcpy(net->config.mac, c->mac, NET_MAC_BYTES);
	else
		net_mac_generate(c->name, net->config.mac);
	memcpy(net->factory_mac, net->config.mac, NET_MAC_BYTES);
}

static int make_pairs(struct virtio_net *net, struct err *e)
{
	net->pairs = calloc(net->max_pairs, sizeof(*net->pairs));
	if (!net->pairs)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a network card");
	for (uint32_t i = 0; i < net->max_pairs; i++) {
		struct net_pair *p = &net->pairs[i];

		p->net = net;
		p->index = i;
		p->watch =
			(struct io_watch){.fd = net->backend->fds[i], .ready = on_ready, .ctx = p};
	}
	return 0;
}

static int make_descriptors(struct virtio_net *net, struct err *e)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	net->again = (struct io_watch){.fd = fd, .ready = on_again, .ctx = net};
	if (fd < 0)
		return err_sys(e, "cannot create an eventfd");
	return net_announcer_init(net, e);
}

static int build(struct virtio_net *net, const struct net_config *c, const struct virtio_face *face,
		 struct err *e)
{
	int ret = net_backend_new(c, &net->backend, e);

	if (ret < 0)
		return ret;
	net->max_pairs = net->backend->nr_queues;
	net->nr_pairs = 1;
	net_filter_reset(&net->filter);
	build_config(net, c);
	net->kind.features = net_possible_features(net);
	net->kind.nr_queues = 2 * net->max_pairs + 1;
	net->kind.config_bytes = NET_CONFIG_BYTES;
	if (face)
		ret = net_wear_face(net, face, e);
	if (!ret)
		ret = make_pairs(net, e);
	if (!ret)
		ret = make_descriptors(net, e);
	return ret;
}

static void net_free(struct virtio_kind *k)
{
	struct virtio_net *net = net_of(k);

	if (net->rx_dropped || net->tx_dropped)
		log_info("network %s: %" PRIu64 " frames for the guest and %" PRIu64
			 " from it were dropped",
			 net->backend->name, net->rx_dropped, net->tx_dropped);
	net_announcer_fini(net);
	if (net->again.fd >= 0)
		close(net->again.fd);
	net_backend_free(net->backend);
	pthread_mutex_destroy(&net->lock);
	free(net->pairs);
	free(net);
}

static const struct virtio_ops ops = {
	.type = "virtio-net",
	.device_id = VIRTIO_ID_NET,
	.queue_size = 256,
	.state_version = 1,
	.oldest_loadable = 1,
	.config_read = config_read,
	.start = start,
	.stop = stop,
	.handle_queue = handle_queue,
	.reset = reset,
	.save = net_save,
	.load = net_load,
	.free = net_free,
};

int virtio_net_new(const char *spec, uint32_t instance, const struct virtio_face *face,
		   struct virtio_kind **out, struct err *e)
{
	struct net_config config;
	struct virtio_net *net;
	int ret = net_config_parse(spec, &config, e);

	if (!ret && face)
		ret = net_adopt_face(face, &config, e);
	if (ret < 0)
		return err_prefix(e, "network card %u", instance);
	net = calloc(1, sizeof(*net));
	if (!net)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a network card");
	net->kind.ops = &ops;
	net->again.fd = net->announcer.timer.fd = -1;
	pthread_mutex_init(&net->lock, NULL);
	ret = build(net, &config, face, e);
	if (ret < 0) {
		net_free(&net->kind);
		return err_prefix(e, "network card %u", instance);
	}
	*out = &net->kind;
	return 0;
}
