/* What happens in other threads, acted upon on the loop thread. */
#include "control/command.h"
#include "control/session_state.h"
#include "vmm/base/log.h"

void session_on_vm_event(void *ctx, const struct vm_event *ev)
{
	struct session *s = ctx;
	struct mail mail = {.kind = MAIL_VM_EVENT, .event = *ev};

	mailbox_post(s->mailbox, &mail);
}

static json_t *guest_reason(bool guest, const char *reason)
{
	return json_pack("{s:b,s:s}", "guest", guest, "reason", reason);
}

/* As QEMU's "internal-error": with a QMP endpoint somebody can still look at the guest, so it stays
 * as it is; without one, nobody would ever notice. */
static void fail(struct session *s, const char *text)
{
	log_error("%s", text);
	if (!s->qmp)
		session_end(s, EXIT_FAILED);
}

int session_reset(struct session *s, bool guest, struct err *e)
{
	int ret = vm_reset(s->vm, e);

	if (ret < 0)
		return ret;
	qmp_server_event(s->qmp, "RESET",
			 guest_reason(guest, guest ? "guest-reset" : "host-qmp-system-reset"));
	return 0;
}

static int wake(struct session *s, struct err *e)
{
	int ret = vm_wake(s->vm, e);

	if (ret < 0)
		return ret;
	qmp_server_event(s->qmp, "WAKEUP", NULL);
	return 0;
}

/* A reset the guest asked for, or its wake-up. */
static void guest_restart(struct session *s, enum vm_event_type type)
{
	struct err e = ERR_INIT;
	bool later;
	int ret = 0;

	pthread_mutex_lock(&s->switchover);
	later = s->outgoing == MIGRATION_DEVICE;
	if (!later)
		ret = type == VM_EVENT_WAKE ? wake(s, &e) : session_reset(s, true, &e);
	pthread_mutex_unlock(&s->switchover);
	if (later) {
		s->has_deferred = true;
		s->deferred = (struct vm_event){.type = type};
	} else if (ret < 0) {
		err_prefix(&e, "the guest asked for %s",
			   type == VM_EVENT_WAKE ? "waking" : "a reset");
		fail(s, e.msg);
	}
}

static void shut_down(struct session *s, int exit_code)
{
	qmp_server_event(s->qmp, "SHUTDOWN", guest_reason(true, "guest-shutdown"));
	session_end(s, exit_code);
}

static void act(struct session *s, const struct vm_event *ev)
{
	switch (ev->type) {
	case VM_EVENT_RUNNING:
		qmp_server_event(s->qmp, "RESUME", NULL);
		return;
	case VM_EVENT_PAUSED:
		qmp_server_event(s->qmp, "STOP", NULL);
		return;
	case VM_EVENT_RESET:
	case VM_EVENT_WAKE:
		guest_restart(s, ev->type);
		return;
	case VM_EVENT_SUSPEND:
		qmp_server_event(s->qmp, "SUSPEND", NULL);
		return;
	case VM_EVENT_POWEROFF:
		shut_down(s, EXIT_OK);
		return;
	case VM_EVENT_EXIT:
		shut_down(s, ev->code);
		return;
	case VM_EVENT_ERROR:
		qmp_server_event(s->qmp, "STOP", NULL);
		fail(s, ev->text);
		return;
	}
}

static void on_vm_event(struct session *s, const struct vm_event *ev)
{
	bool needs_vm = ev->type != VM_EVENT_RUNNING && ev->type != VM_EVENT_PAUSED;

	/* A guest that has just arrived may act before its engine has handed it over. */
	if (needs_vm && !session_vm(s)) {
		s->has_deferred = true;
		s->deferred = *ev;
		return;
	}
	act(s, ev);
}

void session_do_deferred(struct session *s)
{
	if (!s->has_deferred || !s->vm)
		return;
	s->has_deferred = false;
	if (vm_status(s->vm) != VM_POSTMIGRATE)
		act(s, &s->deferred);
}

void session_on_mail(void *ctx, const struct mail *mail)
{
	struct session *s = ctx;

	switch (mail->kind) {
	case MAIL_VM_EVENT:
		if (!s->ending)
			on_vm_event(s, &mail->event);
		return;
	case MAIL_STATUS:
		if (s->settings.events)
			qmp_server_event(
				s->qmp, "MIGRATION",
				json_pack("{s:s}", "status", migration_status_name(mail->status)));
		return;
	case MAIL_ROUND:
		if (s->settings.events)
			qmp_server_event(s->qmp, "MIGRATION_PASS",
					 json_pack("{s:I}", "pass", (json_int_t)mail->round));
		return;
	case MAIL_END:
		session_on_engine_end(s);
		return;
	}
}
