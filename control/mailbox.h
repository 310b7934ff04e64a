/*
 * Carries messages from vCPU and engine threads to the loop thread.
 *
 * mailbox_post() is for any thread and never waits for the loop. mailbox_drain() belongs to the
 * loop thread; the loop also calls it by itself soon after a post. Messages arrive in the order in
 * which they were posted.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "migration/report.h"
#include "vmm/vm.h"

enum mail_kind {
	MAIL_VM_EVENT,
	MAIL_STATUS, /* migration status */
	MAIL_ROUND,
	MAIL_END, /* the engine's thread is ending */
};

struct mail {
	enum mail_kind kind;
	enum migration_status status;
	uint32_t round;
	struct vm_event event;
	bool can_wait; /* the loop is not woken for it: it comes with whatever is posted next */
};

typedef void (*mail_fn)(void *ctx, const struct mail *mail);

struct mailbox;

/* @on_mail is called on the loop thread. */
int mailbox_new(uv_loop_t *loop, mail_fn on_mail, void *ctx, struct mailbox **out, struct err *e);

/* Loop thread; nobody may post any more. The loop must run once more to finish this. */
void mailbox_close(struct mailbox *m);

void mailbox_post(struct mailbox *m, const struct mail *mail);

/* Deliver what is there now; what comes meanwhile waits for the loop, so that a guest that never
 * stops asking (a reset loop) cannot keep others from being served. Safe to call from within
 * @on_mail: the rest is then delivered first. */
void mailbox_drain(struct mailbox *m);
