/*
 * One VM in one process: the machine, its migration engines, the QMP endpoint and the loop that
 * serves them. `godwit run` and `godwit receive` are this with different configurations.
 *
 * The loop thread owns the session and makes every call into it. Other threads (vCPUs, engines)
 * reach it only through the mailbox.
 */
#pragma once

#include <stdbool.h>

#include "migration/report.h"
#include "vmm/base/fault.h"
#include "vmm/vm.h"

/* What the command wants to hear; NULL members are skipped. Loop thread. */
struct session_observer {
	void (*on_listening)(void *ctx, const char *address);
	void (*on_progress)(void *ctx, const struct migration_report *report);
	/* @notes: what this host cannot keep exact (vm_host_notes), "" if nothing. */
	void (*on_received)(void *ctx, const struct migration_report *report, const char *notes);
	void *ctx;
};

/* Strings are borrowed for the session's life. */
struct session_config {
	struct vm_config vm;     /* with incoming, a memory_bytes or nr_cpus of 0 accepts any */
	bool prealloc;           /* allocate vm.memory_bytes, which is not 0, beforehand */
	const char *qmp;         /* unix:PATH[,server=off]; NULL: none */
	const char *incoming;    /* NULL: boot; "defer": wait for migrate-incoming; or a URI */
	int handed_fd;           /* connections to @incoming come over this; 0: listen there */
	const char *tracker;     /* dirty tracker of outgoing migrations; NULL: the default */
	bool paused;             /* do not start the guest */
	uint64_t rdma_pin_bytes; /* of migrations in both directions; 0: the default */
	bool rdma_fallback;      /* go on over TCP when RDMA does not work */
	struct session_observer observer;
	struct fault *fault; /* for tests: of the migration engines; NULL otherwise */
};

struct session;

/* Opens the QMP endpoint, then boots or listens. */
int session_new(const struct session_config *config, struct session **out, struct err *e);

/* Serve until the guest, a client or a signal ends it; the exit status. */
int session_run(struct session *s);

void session_free(struct session *s);
