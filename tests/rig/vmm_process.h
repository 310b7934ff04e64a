/*
 * A VMM in a process of its own, for tests that kill one. The real program, or (with points to hold
 * at) tests/rig/held_vmm.c, which is the same VMM and stops at fault points. The guest is the
 * workload guest, 64 MiB, one vCPU. One thread; failures fail the running cmocka test.
 */
#pragma once

#include <stdbool.h>

#include "control/qmp_client.h"
#include "tests/rig/process.h"

struct vmm_process {
	struct process *process; /* NULL: somebody else has started it */
	struct qmp_client *qmp;  /* NULL once it has been killed */
	char qmp_path[100];
	char uri[400]; /* where a destination listens */
	int hold;      /* our end of the line to a held VMM; -1: none */
};

/* Boot a guest and wait until it works. @points: fault points to stop at, comma separated; NULL:
 * none, and it is the real program. */
void vmm_process_run(struct vmm_process *v, const char *points);
void vmm_process_run_workload(struct vmm_process *v, const char *points, const char *append);

/* Listen for a guest. */
void vmm_process_receive(struct vmm_process *v, const char *points);

/* One that somebody else has started, by its QMP socket. */
void vmm_process_attach(struct vmm_process *v, const char *qmp_path);

/* Wait until it has stopped at @point; let it go on to the next one, or past all that come. */
void vmm_process_await(struct vmm_process *v, const char *point);
void vmm_process_release(struct vmm_process *v);
void vmm_process_let_go(struct vmm_process *v);

/* kill -9, and wait for its end. */
void vmm_process_kill(struct vmm_process *v);

/* One QMP command; its result, or NULL with the VMM's words in @refusal (NULL: a refusal fails the
 * test). */
json_t *vmm_process_call(struct vmm_process *v, const char *command, json_t *args,
			 struct err *refusal);

/* Does the guest's own clock sample go on (waits for the guest, and for that), or stand still for
 * 50 ms? */
bool vmm_process_guest_works(struct vmm_process *v);
bool vmm_process_guest_stands(struct vmm_process *v);

/* Every page of the guest, by the real godwit-guest-check. */
void vmm_process_check_pages(struct vmm_process *v);

/* Ends it (QMP quit if it still serves) and frees everything. */
void vmm_process_end(struct vmm_process *v);
