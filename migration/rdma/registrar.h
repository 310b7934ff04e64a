/*
 * The thread that pins and unpins for one channel at the source, ahead of the writes and beside
 * them: a system call for 2 MiB takes as long as sending a good part of them.
 *
 * Requests are carried out in the order they are made: what is unpinned first makes room for what
 * is pinned next. All functions are for the channel's thread.
 */
#pragma once

#include <stdint.h>

#include "migration/rdma/conn.h"
#include "vmm/base/fault.h"

struct registrar;

/* One registration. The maker fills in the first group and frees it after it has seen it done;
 * registrar_unpin() takes it over. */
struct rdma_pin {
	const void *at;
	size_t bytes;
	uint64_t gpa;
	void *owner;

	struct ibv_mr *mr; /* NULL: not pinned */
	int refused;       /* 0 or the errno */

	bool unpin;            /* the registrar's */
	struct rdma_pin *next; /* the registrar's */
};

/* @conn and @fault (may be NULL) outlive it. */
int registrar_new(struct rdma_conn *conn, struct fault *fault, struct registrar **out,
		  struct err *e);
/* Unpins what it was asked to unpin, and every pin that nobody has fetched, and ends. */
void registrar_free(struct registrar *r);

/* Neither is begun before registrar_go(), except that it may be if others are under way. */
void registrar_pin(struct registrar *r, struct rdma_pin *pin);
/* Unpin and free. */
void registrar_unpin(struct registrar *r, struct rdma_pin *pin);
/* Carry out what was asked for: where processors are few, whoever is woken runs at once, so one
 * wakes the thread for all of it. */
void registrar_go(struct registrar *r);

/* The next pin that is done, either way; NULL: none now. */
struct rdma_pin *registrar_fetch(struct registrar *r);
/* Readable when there may be one. */
int registrar_fd(const struct registrar *r);
