/*
 * The inside of a service, shared by the service*.c files. All of it belongs to the loop thread.
 *
 * service.c         the loop: accepting, deciding who may come, ending
 * service_knock.c   a connection until it is known whose it is
 * service_guest.c   a guest's process: started, given its connections, waited for
 * service_relay.c   what a guest's process prints
 */
#pragma once

#include <uv.h>

#include "control/ending_signals.h"
#include "control/service.h"
#include "proto/first_record.h"
#include "vmm/base/buf.h"
#include "vmm/base/link.h"

#define KNOCK_MAX 64

struct service;

/* One of a guest's standard outputs. */
struct relay {
	struct service_guest *guest;
	uv_pipe_t pipe;
	bool errors; /* it is the one for errors */
	struct buf line;
	char chunk[4096];
};

struct service_guest {
	struct service *service;
	uint32_t number;
	bool present; /* until every handle is closed */
	uint8_t id[MIGRATION_ID_BYTES];
	int handover; /* our end */
	uint32_t nr_handed;
	uv_process_t process;
	struct relay out;
	struct relay err;
	unsigned int nr_open; /* handles whose close callback is still to come */
	bool spawned;         /* the process handle is in use */
	bool exited;
	int64_t exit_status;
	int signum; /* that killed it; 0: none */
};

struct service {
	struct service_config config;
	uv_loop_t loop;
	struct ending_signals signals;
	struct link_listener *listener;
	uv_poll_t accepting;
	uv_timer_t again; /* accepting was stopped for a moment */
	uint32_t nr_knocks;
	struct knock *knocks;
	struct service_guest guests[SERVICE_MAX_GUESTS];
	uint32_t nr_guests;
	bool ending;
};

/* @fd has begun like @first: it is given to a guest, or refused and closed. */
void service_take(struct service *s, int fd, const struct first_record *first);
void service_on_guest_gone(struct service *s);
void service_on_knock_gone(struct service *s);

/* Look at @fd, which is the callee's from here on, until service_take() can be called. */
void knock_new(struct service *s, int fd);
void knock_close_all(struct service *s);

/* Start the process of guest @number; @fd is its first connection, and the caller's to close. */
int service_guest_start(struct service *s, uint32_t number, const uint8_t id[MIGRATION_ID_BYTES],
			int fd, struct err *e);
int service_guest_hand(struct service_guest *g, int fd, struct err *e);
/* Let go of a process that may live on. */
void service_guest_leave(struct service_guest *g);

/* One of the guest's handles is closed for good. */
void service_guest_release(struct service_guest *g);

void relay_init(struct relay *r, struct service_guest *g, bool errors);
void relay_start(struct relay *r);
/* Ends in service_guest_release(); what has come so far was printed. */
void relay_close(struct relay *r);

/* Tell the user: @text, or with --json an object with @event, @guest (0: none) and @members
 * (consumed; may be NULL). */
void service_tell(const struct service *s, const char *event, uint32_t guest, void *members,
		  const char *text, ...) __attribute__((format(printf, 5, 6)));
