/*
 * The inside of a network card, shared by the virtio_net*.c files and nobody else.
 *
 * Queue 2i of the device is pair i's receive queue and 2i + 1 its transmit queue; the control queue
 * comes behind the last pair the driver knows of.
 */
#pragma once

#include <pthread.h>

#include <linux/virtio_net.h>

#include "vmm/net/net_backend.h"
#include "vmm/net/net_filter.h"
#include "vmm/net/virtio_net.h"

/* Receive buffers looked at ahead. 64 KiB of the smallest buffers Linux gives are 44. */
#define NET_WINDOW 64
/* A turn ends after so many frames: the I/O thread has other things to do too. */
#define NET_TURN_FRAMES 256

#define NET_CONFIG_BYTES offsetof(struct virtio_net_config, speed)

/*
 * Buffers the driver has given and no frame is in yet, in order. They are popped before it is known
 * how many the next frame takes, and what is left serves the frame after it.
 */
struct net_window {
	struct virtq_chain chains[NET_WINDOW]; /* a ring */
	uint32_t first;
	uint32_t nr;
	uint64_t bytes; /* in all of them */
};

struct net_pair {
	struct virtio_net *net; /* immutable, as is index */
	uint32_t index;

	/* owned by the I/O thread */
	struct io_watch watch; /* the back end's descriptor */
	bool hungry;           /* frames can be taken: watched for EPOLLIN */
	bool blocked;          /* a frame waits in the transmit queue: watched for EPOLLOUT */
	bool unfinished;       /* a turn ended with frames left to send */
	struct net_window window;
	struct virtq_chain sending;
};

struct net_announcer {
	struct io_watch timer; /* timerfd */
	struct announce_params params;
	uint32_t round; /* rounds done */
};

struct virtio_net {
	struct virtio_kind kind;

	/* immutable after new */
	struct net_backend *backend;
	uint32_t max_pairs;

	/* owned by the I/O thread; by the controller while stopped */
	uint8_t factory_mac[NET_MAC_BYTES]; /* what a reset brings back */
	bool started;
	bool unplugged; /* the back end is gone for good */
	bool attracted; /* what the back end hears is the guest's, though it is not here yet */
	uint32_t nr_pairs;
	bool offloads_chosen;     /* by the driver, through the control queue; else as negotiated */
	uint64_t chosen_offloads; /* feature bits VIRTIO_NET_F_GUEST_... */
	uint64_t longest_bytes;   /* that a frame may be, with its header */
	struct net_filter filter;
	struct announce_addresses addresses;
	struct net_announcer announcer;
	struct io_watch again; /* eventfd: some pair is unfinished */
	uint64_t rx_dropped;
	uint64_t tx_dropped;
	struct net_pair *pairs; /* max_pairs */

	pthread_mutex_t lock;
	struct virtio_net_config config; /* guarded by lock: vCPUs read it */
};

static inline struct virtio_net *net_of(struct virtio_kind *k)
{
	return (struct virtio_net *)k;
}

static inline const struct virtio_net *net_of_const(const struct virtio_kind *k)
{
	return (const struct virtio_net *)k;
}

/* The control queue's index, which depends on whether the driver knows of several pairs. */
uint32_t net_ctrl_index(const struct virtio_net *net);

/* virtio_net.c */
void net_config_get(const struct virtio_net *net, struct virtio_net_config *out);
void net_set_mac(struct virtio_net *net, const uint8_t mac[NET_MAC_BYTES]);
/* Clear @clear of the status field and set @set; tells the driver if that changed it. */
void net_change_status(struct virtio_net *net, uint16_t clear, uint16_t set);
/* Bring the back end in line with what is negotiated and chosen. */
void net_apply(struct virtio_net *net);
/* The back end does not exist any more: a cable that was pulled. */
void net_unplug(struct virtio_net *net, int code);
/* Watch the pair's descriptor for what it waits for now. */
void net_watch(struct net_pair *p);

/* virtio_net_face.c */
uint64_t net_possible_features(const struct virtio_net *net);
/* NET_OFFLOAD_... that frames for the driver may use, by what it negotiated and chose since. */
uint32_t net_wanted_offloads(const struct virtio_net *net);
/* Ask in @c for the back end that @face needs. */
int net_adopt_face(const struct virtio_face *face, struct net_config *c, struct err *e);
/* Offer what @face has, which net_adopt_face() has passed; refused if the back end cannot. */
int net_wear_face(struct virtio_net *net, const struct virtio_face *face, struct err *e);

/* virtio_net_rx.c */
void net_rx_run(struct net_pair *p);
/* What has reached the back end so far is the guest's; then buffers go back to the queue. */
void net_rx_stop(struct net_pair *p);
/* Forget what has reached the back end so far. */
void net_rx_discard(const struct virtio_net *net);

/* virtio_net_tx.c */
void net_tx_run(struct net_pair *p);

/* virtio_net_ctrl.c */
void net_ctrl_run(struct virtio_net *net);

/* virtio_net_rounds.c: the announcements' rounds. */
int net_announcer_init(struct virtio_net *net, struct err *e);
void net_announcer_fini(struct virtio_net *net);
void net_announcer_start(struct virtio_net *net);
void net_announcer_stop(struct virtio_net *net);

/* virtio_net_state.c */
int net_save(const struct virtio_kind *k, struct buf *out, struct err *e);
int net_load(struct virtio_kind *k, uint32_t version, const uint8_t *data, size_t len,
	     struct err *e);
