/*
 * Live migration: the source engine and the destination engine, each on a thread of its own.
 *
 * The promise: at most one side ever runs the guest, and until COMMIT is handed to the kernel any
 * failure, cancellation or death of the peer leaves the source as if nothing had happened.
 *
 * _start makes the thread; _query is for any thread; _cancel is for any thread, takes effect at any
 * moment before commit and does nothing after; _free waits for the thread (cancel first if it must
 * not be long). The VM outlives its source engine.
 */
#pragma once

#include "migration/params.h"
#include "migration/report.h"
#include "vmm/base/fault.h"
#include "vmm/base/link.h"
#include "vmm/base/uri.h"
#include "vmm/net/net_announce.h"
#include "vmm/vm.h"

/* Called on engine threads; must not block. NULL members are skipped. */
struct migration_events {
	void (*on_status)(void *ctx, enum migration_status status);
	/* @last: the guest stands still. */
	void (*on_round)(void *ctx, uint32_t round, bool last);
	/* The last call, after the final on_status: the engine's thread is about to end. */
	void (*on_end)(void *ctx);
	void *ctx;
};

struct migration_source;

/* Migrate @vm (running or paused) to @uri. The VM ends POSTMIGRATE (completed), paused (unknown) or
 * as it was. @fault is for tests; NULL otherwise. */
int migration_source_start(struct vm *vm, const struct uri *uri,
			   const struct migration_params *params,
			   const struct migration_events *events, struct fault *fault,
			   struct migration_source **out, struct err *e);
void migration_source_cancel(struct migration_source *s);
void migration_source_query(const struct migration_source *s, struct migration_report *out);
/* Wait for the end; the final report in @out (may be NULL). */
void migration_source_wait(struct migration_source *s, struct migration_report *out);
void migration_source_free(struct migration_source *s);

struct migration_destination;

/* Builds the machine the source described. @config has memory, CPUs and devices filled in; the
 * callee adds the back ends of this host (serial, ...) and calls vm_new. On the engine's thread. */
typedef int (*migration_build_fn)(void *ctx, struct vm_config *config, struct vm **vm,
				  struct err *e);

struct migration_destination_config {
	migration_build_fn build;
	void *build_ctx;
	struct migration_events events;
	struct fault *fault;
	uint64_t accept_timeout_ns;      /* 0: wait for ever for the source */
	struct announce_params announce; /* how the guest's networks are told */
	bool has_memory; /* what is built has all of its memory: what the host has left is no matter
			  */
	/* For a listener at an rdma: address; else unused. */
	uint64_t rdma_pin_bytes;       /* most to pin; 0: the default of migration/params.h */
	bool rdma_fallback;            /* listen without RDMA when this host has none */
	const struct verbs_ops *verbs; /* NULL: the system's */
};

/* Take one VM from @listener (which outlives the engine). After a commit the VM runs (or stays
 * paused if it was paused at the source); on any failure it never runs and is freed. */
int migration_destination_start(struct link_listener *listener,
				const struct migration_destination_config *config,
				struct migration_destination **out, struct err *e);
void migration_destination_cancel(struct migration_destination *d);
void migration_destination_query(const struct migration_destination *d,
				 struct migration_report *out);
/* Wait for the end. On MIGRATION_COMPLETED *@vm is the caller's; otherwise NULL. */
void migration_destination_wait(struct migration_destination *d, struct migration_report *out,
				struct vm **vm);
void migration_destination_free(struct migration_destination *d);

/* The largest gap the guest has recorded lately (its report page), if it publishes any; any thread.
 */
int migration_read_blackout(struct vm *vm, struct guest_blackout *out);
