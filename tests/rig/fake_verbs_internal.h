/*
 * The inside of the fake provider, shared by its parts: objects and calls (fake_verbs.c) and the
 * connection manager (fake_verbs_cm.c). Everything is guarded by the lock of struct fake_verbs.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/rig/fake_verbs.h"

#define MAX_OBJECTS 64
#define MAX_WCS     1024

struct event {
	struct rdma_cm_event pub; /* first */
	uint8_t data[64];
	struct event *next;
};

struct channel {
	struct rdma_event_channel pub; /* first */
	struct event *events;
};

struct comp {
	struct ibv_comp_channel pub; /* first */
};

struct cq {
	struct ibv_cq pub; /* first */
	struct ibv_wc wcs[MAX_WCS];
	uint32_t nr;
	bool armed;
};

struct mr {
	struct ibv_mr pub; /* first */
	uint64_t iova;
	int access;
	struct mr *next;
};

struct held {
	struct ibv_send_wr wr;
	struct ibv_sge sge;
	struct held *next;
};

struct id {
	struct rdma_cm_id pub; /* first */
	struct ibv_qp qp;
	struct id *peer;
	uint16_t port;
	bool listens;
	bool connected;
	bool broken; /* the queue pair is in the error state */
	uint32_t nr_recvs;
	struct held *held; /* posted, not carried out */
	bool told;         /* of the end */
};

struct fake_verbs {
	struct verbs_ops ops; /* first */
	struct ibv_device device;
	struct ibv_context context;

	pthread_mutex_t lock; /* guards the rest */
	uint32_t random;
	struct id *ids[MAX_OBJECTS];
	struct cq *cqs[MAX_OBJECTS];
	struct mr *mrs;
	uint32_t nr_alive;
	uint32_t next_key;
	uint64_t pinned[2];
	uint64_t most_pinned[2];
	uint64_t limit[2];
	uint32_t nr_regions[2];
	uint32_t max_regions[2]; /* 0: no limit */
	uint64_t written_bytes;
	uint64_t nr_registered;
	bool on_demand;
	bool no_device;
	bool no_route;
	bool hangs;
	uint64_t nr_calls;
	uint64_t fail_call;
	int fail_code;
	uint64_t nr_completions;
	uint64_t fail_completion;
	enum ibv_wc_status fail_status;
	const char *fired;
	struct cq *overrun[MAX_OBJECTS];
	uint32_t nr_overrun;
};

static inline struct fake_verbs *fake_self(const struct verbs_ops *v)
{
	return (struct fake_verbs *)(uintptr_t)
		v; /* first member; the table is const, its owner not */
}

static inline void *fake_make(struct fake_verbs *f, size_t bytes)
{
	void *p = calloc(1, bytes);

	if (!p)
		abort();
	f->nr_alive++;
	return p;
}

static inline void fake_unmake(struct fake_verbs *f, void *p)
{
	f->nr_alive--;
	free(p);
}

/* Enter a call: 0 with the lock held, or the failure that was asked for. */
static inline int fake_enter(struct fake_verbs *f, const char *name)
{
	pthread_mutex_lock(&f->lock);
	if (++f->nr_calls != f->fail_call)
		return 0;
	f->fired = name;
	pthread_mutex_unlock(&f->lock);
	return -f->fail_code;
}

static inline int fake_leave(struct fake_verbs *f, int ret)
{
	pthread_mutex_unlock(&f->lock);
	return ret;
}

#define ENTER(v)                               \
	struct fake_verbs *f = fake_self(v);   \
	int refused = fake_enter(f, __func__); \
	if (refused)                           \
	return refused

static inline void fake_ring(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) < 0)
		abort();
}

static inline bool fake_rang(int fd)
{
	uint64_t count;

	return read(fd, &count, sizeof(count)) == sizeof(count);
}

static inline int fake_bell(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
}

/* The connection manager's calls into @ops. */
void fake_cm_install(struct verbs_ops *ops);

/* An event for whoever listens on the channel of @id. */
void fake_tell(struct fake_verbs *f, struct id *id, enum rdma_cm_event_type type,
	       struct rdma_cm_id *child, const void *data, size_t len);

/* Forget what was posted and not carried out. */
void fake_drop_held(struct fake_verbs *f, struct id *id);
