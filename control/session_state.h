/* The inside of a session, shared by the session_*.c files. */
#pragma once

#include <pthread.h>
#include <uv.h>

#include "control/ending_signals.h"
#include "control/mailbox.h"
#include "control/migration_settings.h"
#include "control/qmp_server.h"
#include "control/session.h"
#include "migration/migration.h"

struct session {
	/* Immutable after new. */
	struct session_config config;
	struct mailbox *mailbox;

	/* Owned by the loop thread. */
	uv_loop_t loop;
	struct ending_signals signals;
	uv_timer_t progress;
	struct qmp_server *qmp;
	/* Allocated for a machine that is yet to be made; or NULL. A destination's engine takes it,
	 * and nobody else looks while there is one. */
	struct guest_mem *memory;
	struct vm_blank *blank; /* likewise */
	struct vm *vm;          /* NULL until an incoming one has arrived */
	struct migration_settings settings;
	struct migration_source *source;
	struct migration_destination *destination;
	struct link_listener *listener;
	bool may_listen;              /* migrate-incoming would be accepted */
	struct migration_report last; /* of the last migration that ended */
	/* What a guest asked for at a moment when it could not be done; its vCPU waits. */
	bool has_deferred;
	struct vm_event deferred;
	bool ending;
	int exit_code;

	/*
	 * While the engine has the guest paused to switch over, nobody else may start or reset it.
	 * Whoever does so holds this lock and looks at outgoing first; the engine's callback takes
	 * it to announce MIGRATION_DEVICE, before it pauses. So neither can slip in between.
	 */
	pthread_mutex_t switchover;
	enum migration_status outgoing; /* guarded by switchover */
};

/* Stop the loop soon; the first call decides the exit status. */
void session_end(struct session *s, int exit_code);

/* With --prealloc: have s->memory, for the next machine to take. */
int session_prealloc(struct session *s, struct err *e);

/* Is the guest in a moment of a migration in which it must be left alone? */
bool session_is_switching(struct session *s);

/* session_events.c: on the loop thread. */
void session_on_mail(void *ctx, const struct mail *mail);
void session_do_deferred(struct session *s);
/* On vCPU and controller threads: vm_event_fn. */
void session_on_vm_event(void *ctx, const struct vm_event *ev);
/* Reset now; QMP event included. */
int session_reset(struct session *s, bool guest, struct err *e);

/* session_migrate.c */
int session_migrate(struct session *s, const char *uri, struct err *e);
int session_listen(struct session *s, const char *uri, struct err *e);
void session_on_engine_end(struct session *s);
/* Is an outgoing migration going on? */
bool session_is_leaving(struct session *s);
/* Cancel what runs and wait for it. */
void session_stop_engines(struct session *s);
bool session_query(struct session *s, struct migration_report *out);
/* The machine; takes over one that has just arrived. NULL while there is none. */
struct vm *session_vm(struct session *s);

/* session_target.c: what QMP commands do. */
extern const struct qmp_target_ops session_qmp_ops;
