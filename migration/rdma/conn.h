/*
 * One RDMA connection: a reliable connected queue pair with its completion queue, protection domain
 * and connection-manager id, set up with librdmacm (proto/STREAM.md, section 6). It does four
 * things: write guest pages, mark a round's end, pin guest memory, and say in plain words what went
 * wrong.
 *
 * Addresses are guest-physical on both sides: a region is registered so that work requests name its
 * bytes by gpa. Every connection has a protection domain of its own, so what is pinned through it
 * can be reached by its queue pair only, and not at all once it is freed.
 *
 * Owned by one thread (its channel's), except rdma_conn_pin() and rdma_conn_unpin(), which any one
 * other thread may call at the same time. Free what was pinned first.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "migration/rdma/verbs.h"
#include "vmm/base/cancel.h"
#include "vmm/base/err.h"
#include "vmm/base/uri.h"

#define RDMA_SEND_DEPTH 256 /* work requests that may be under way */
#define RDMA_MAX_PIECES 32  /* in one rdma_conn_write() */

struct rdma_conn;
struct rdma_listener;

/* The private data of a connection request: which channel of which migration it is for. */
struct rdma_greeting {
	uint8_t migration_id[16];
	uint32_t index;
};
_Static_assert(sizeof(struct rdma_greeting) == 20, "wire layout");

/* Connect to the channel @g of the listener at @uri within @timeout_ns. */
int rdma_conn_connect(const struct verbs_ops *v, const struct uri *uri,
		      const struct rdma_greeting *g, uint64_t timeout_ns,
		      const struct cancel *cancel, struct rdma_conn **out, struct err *e);
/* End all traffic: after this nothing is read or written by RDMA any more. Pins stay, to be
 * unpinned. */
void rdma_conn_close(struct rdma_conn *c);
void rdma_conn_free(struct rdma_conn *c);

/* What the device at this end is and takes. */
struct rdma_device {
	char name[64];
	bool on_demand; /* registering pins nothing: the device faults pages in as it needs them */
	uint32_t max_regions; /* for one connection; a share of what the device has */
};
const struct rdma_device *rdma_conn_device(const struct rdma_conn *c);

/* Register [@at, +@bytes), which is guest memory at @gpa: for the peer to write (@for_peer), or for
 * our own writes to read. 0 or a negative errno; ENOMEM: a limit on pinned memory. */
int rdma_conn_pin(struct rdma_conn *c, const void *at, size_t bytes, uint64_t gpa, bool for_peer,
		  struct ibv_mr **out);
void rdma_conn_unpin(struct rdma_conn *c, struct ibv_mr *mr);

/* Bytes at @gpa here go to @gpa there, inside one region of each side. */
struct rdma_piece {
	uint64_t gpa;
	uint32_t bytes;
	uint32_t local_key;
	uint32_t remote_key;
	bool last;    /* of some that share a completion, */
	uint32_t tag; /* which has this */
};

/* Post the writes of @nr pieces (1 to RDMA_MAX_PIECES) in one call; the final one is the last of
 * some. Each takes one of RDMA_SEND_DEPTH places until the completion that it shares. */
int rdma_conn_write(struct rdma_conn *c, const struct rdma_piece *pieces, uint32_t nr,
		    struct err *e);
/* Post an empty message with @round that arrives after all writes posted before it. One place. */
int rdma_conn_mark(struct rdma_conn *c, uint32_t round, uint32_t tag, struct err *e);

struct rdma_done {
	bool is_mark; /* the peer's mark arrived: `round`; else a post of ours is done: `tag` */
	uint32_t round;
	uint32_t tag;
};

/* 1 and the next completion in @out; 0: none now; negative: something failed, and so has the
 * connection. In whatever order the provider has them. */
int rdma_conn_poll(struct rdma_conn *c, struct rdma_done *out, struct err *e);

/* Wait until rdma_conn_poll() may have something, or one of @fds (-1: none) is readable, at most
 * @timeout_ns (0: for ever). Also fails when the connection or its device is gone. */
int rdma_conn_wait(struct rdma_conn *c, const int fds[2], uint64_t timeout_ns,
		   const struct cancel *cancel, struct err *e);

/* Listen at @host (empty: loopback) and @port. */
int rdma_listener_new(const struct verbs_ops *v, const struct uri *uri, struct rdma_listener **out,
		      struct err *e);
void rdma_listener_free(struct rdma_listener *l);

/* Wait for the connection that greets with @g (NULL: nobody is awaited yet); others are turned
 * away.
 * @out is NULL when @other_fd became readable before it came: the source speaks instead. Fails when
 * the device is removed, which waits for the listener to be freed. */
int rdma_listener_accept(struct rdma_listener *l, const struct rdma_greeting *g, int other_fd,
			 uint64_t timeout_ns, const struct cancel *cancel, struct rdma_conn **out,
			 struct err *e);
