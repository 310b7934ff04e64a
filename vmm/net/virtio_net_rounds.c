/* The rounds of announcing a guest that has arrived; the frames are net_announce.c's. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/net/virtio_net_private.h"

static void send_frame(const struct virtio_net *net, uint8_t frame[ANNOUNCE_FRAME_BYTES])
{
	struct virtio_net_hdr_v1 plain = {.flags = 0};
	struct iovec iov[] = {{&plain, sizeof(plain)}, {frame, ANNOUNCE_FRAME_BYTES}};

	if (writev(net->backend->fds[0], iov, 2) < 0)
		log_debug("%s: announcement not sent: %s", net->backend->name,
			  strerrordesc_np(errno));
}

static void speak(const struct virtio_net *net)
{
	uint8_t frame[ANNOUNCE_FRAME_BYTES];

	announce_rarp(net->config.mac, frame);
	send_frame(net, frame);
	for (uint32_t i = 0; i < net->addresses.nr; i++) {
		announce_arp(net->config.mac, net->addresses.ipv4[i], frame);
		send_frame(net, frame);
	}
}

/* The guest knows all its addresses, VLANs and IPv6 neighbours. */
static void let_guest_speak(struct virtio_net *net)
{
	if (virtio_has(net->kind.transport, VIRTIO_NET_F_GUEST_ANNOUNCE))
		net_change_status(net, 0, VIRTIO_NET_S_ANNOUNCE);
}

static void set_timer(struct net_announcer *a)
{
	uint64_t ns = announce_delay_ms(&a->params, a->round - 1) * NS_PER_MS;
	/* A time of 0 would disarm it. */
	struct itimerspec at = {.it_value = {.tv_sec = (time_t)(ns / NS_PER_S),
					     .tv_nsec = (long)(ns % NS_PER_S) + (ns == 0)}};

	timerfd_settime(a->timer.fd, 0, &at, NULL);
}

static void next_round(struct virtio_net *net)
{
	struct net_announcer *a = &net->announcer;

	if (a->round >= a->params.rounds)
		return;
	speak(net);
	let_guest_speak(net);
	a->round++;
	if (a->round < a->params.rounds)
		set_timer(a);
}

static void on_timer(void *ctx, uint32_t events)
{
	struct virtio_net *net = ctx;
	uint64_t expired;

	(void)events;
	if (read(net->announcer.timer.fd, &expired, sizeof(expired)) == sizeof(expired))
		next_round(net);
}

int net_announcer_init(struct virtio_net *net, struct err *e)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	net->announcer.timer = (struct io_watch){.fd = fd, .ready = on_timer, .ctx = net};
	return fd < 0 ? err_sys(e, "cannot create a timer") : 0;
}

void net_announcer_fini(struct virtio_net *net)
{
	if (net->announcer.timer.fd >= 0)
		close(net->announcer.timer.fd);
}

void net_announcer_start(struct virtio_net *net)
{
	struct net_announcer *a = &net->announcer;
	struct err e = ERR_INIT;

	if (io_thread_watch(virtio_io(net->kind.transport), &a->timer, EPOLLIN, &e) < 0)
		log_warning("%s: no announcements: %s", net->backend->name, e.msg);
	/* What a pause has interrupted, or what was asked for before the guest ran. */
	next_round(net);
}

void net_announcer_stop(struct virtio_net *net)
{
	struct err ignored = ERR_INIT;

	io_thread_watch(virtio_io(net->kind.transport), &net->announcer.timer, 0, &ignored);
}

struct announcement {
	struct virtio_net *net;
	const struct announce_params *params;
};

static int begin(void *ctx, struct err *e)
{
	struct announcement *job = ctx;

	(void)e;
	job->net->announcer.params = *job->params;
	job->net->announcer.round = 0;
	if (job->net->started)
		next_round(job->net);
	return 0;
}

void virtio_net_announce(struct virtio_kind *kind, const struct announce_params *p)
{
	struct announcement job = {net_of(kind), p};
	struct err ignored = ERR_INIT;

	io_thread_call(virtio_io(kind->transport), begin, &job, &ignored);
}

/* ---- Before the guest is here ---- */

static int attract(void *ctx, struct err *e)
{
	struct virtio_net *net = ctx;

	(void)e;
	net_rx_discard(net);
	net->attracted = true;
	speak(net);
	return 0;
}

void virtio_net_attract(struct virtio_kind *kind)
{
	struct err ignored = ERR_INIT;

	io_thread_call(virtio_io(kind->transport), attract, net_of(kind), &ignored);
}
