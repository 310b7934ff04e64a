/* Starting, watching and ending the migration engines of a session. */
#include <errno.h>
#include <string.h>

#include "control/command.h"
#include "control/session_state.h"
#include "vmm/base/log.h"
#include "vmm/blank.h"

/* Engine thread. */
static void on_status(void *ctx, enum migration_status status)
{
	struct session *s = ctx;
	/* DEVICE: the guest stands, or is about to. STOP follows, or RESUME, or the end. */
	struct mail mail = {
		.kind = MAIL_STATUS, .status = status, .can_wait = status == MIGRATION_DEVICE};

	mailbox_post(s->mailbox, &mail);
}

/* Engine thread; see struct session.switchover for why the lock. */
static void on_source_status(void *ctx, enum migration_status status)
{
	struct session *s = ctx;

	pthread_mutex_lock(&s->switchover);
	s->outgoing = status;
	pthread_mutex_unlock(&s->switchover);
	on_status(ctx, status);
}

/* Engine thread. */
static void on_round(void *ctx, uint32_t round, bool last)
{
	struct session *s = ctx;
	/* The last round: the guest stands, see on_status(). */
	struct mail mail = {.kind = MAIL_ROUND, .round = round, .can_wait = last};

	mailbox_post(s->mailbox, &mail);
}

/* Engine thread. */
static void on_end(void *ctx)
{
	struct session *s = ctx;
	struct mail mail = {.kind = MAIL_END};

	mailbox_post(s->mailbox, &mail);
}

bool session_is_switching(struct session *s)
{
	bool switching;

	pthread_mutex_lock(&s->switchover);
	switching = s->outgoing == MIGRATION_DEVICE;
	pthread_mutex_unlock(&s->switchover);
	return switching;
}

static void finish_source(struct session *s)
{
	migration_source_wait(s->source, &s->last);
	migration_source_free(s->source);
	s->source = NULL;
	if (s->last.status == MIGRATION_FAILED || s->last.status == MIGRATION_UNKNOWN)
		log_warning("%s", s->last.error.msg);
	session_do_deferred(s);
}

static int check_can_leave(struct session *s, struct err *e)
{
	if (session_is_leaving(s))
		return err_set(
			e, ERR_STATE, EBUSY,
			"There's a migration process in progress: wait for its end or cancel it");
	if (!session_vm(s))
		return err_set(e, ERR_STATE, EINVAL,
			       "there is no guest here yet: it is still to arrive");
	switch (vm_status(s->vm)) {
	case VM_POSTMIGRATE:
		return err_set(e, ERR_STATE, EINVAL,
			       "the guest has already been migrated away: it runs elsewhere");
	case VM_SHUTDOWN:
	case VM_INTERNAL_ERROR:
		return err_set(e, ERR_STATE, EINVAL, "the guest has stopped for good (%s)",
			       vm_status_name(vm_status(s->vm)));
	default:
		break;
	}
	if (s->last.status == MIGRATION_UNKNOWN)
		return err_set(e, ERR_STATE, EINVAL,
			       "the last migration may have succeeded: look at its destination, "
			       "then 'quit' this one or 'cont' with x-godwit-force");
	return 0;
}

bool session_is_leaving(struct session *s)
{
	bool leaving;

	pthread_mutex_lock(&s->switchover);
	leaving = s->source && s->outgoing <= MIGRATION_DEVICE;
	pthread_mutex_unlock(&s->switchover);
	return leaving;
}

/* The engine's memory of the last one; waits for its thread, which has nothing left to do. */
static void forget_last(struct session *s)
{
	if (s->source)
		finish_source(s);
	s->outgoing = MIGRATION_NONE; /* no engine, so nobody else looks */
}

int session_migrate(struct session *s, const char *uri_text, struct err *e)
{
	struct migration_events events = {on_source_status, on_round, on_end, s};
	struct migration_params params;
	struct uri uri;
	int ret = check_can_leave(s, e);

	migration_settings_resolve(&s->settings, &params);
	if (!ret)
		ret = uri_parse(uri_text, &uri, e);
	if (!ret)
		ret = migration_params_check(&params, e);
	if (!ret)
		forget_last(s);
	if (!ret)
		ret = migration_source_start(s->vm, &uri, &params, &events, s->config.fault,
					     &s->source, e);
	return ret;
}

static int check_machine(const struct session_config *here, const struct vm_config *there,
			 struct err *e)
{
	if (here->vm.memory_bytes && here->vm.memory_bytes != there->memory_bytes)
		return err_set(e, ERR_STATE, EINVAL,
			       "the arriving guest has %llu MiB of memory, --memory says %llu",
			       (unsigned long long)(there->memory_bytes >> 20),
			       (unsigned long long)(here->vm.memory_bytes >> 20));
	if (here->vm.nr_cpus && here->vm.nr_cpus != there->nr_cpus)
		return err_set(e, ERR_STATE, EINVAL,
			       "the arriving guest has %u CPUs, --cpus says %u", there->nr_cpus,
			       here->vm.nr_cpus);
	return 0;
}

/* Engine thread. The machine is the source's; what connects it to this host is ours. */
static int build(void *ctx, struct vm_config *config, struct vm **vm, struct err *e)
{
	struct session *s = ctx;
	int ret = check_machine(&s->config, config, e);

	if (ret < 0)
		return ret;
	ret = vm_config_take_back_ends(config, &s->config.vm, e);
	if (ret < 0)
		return ret;
	config->serial = s->config.vm.serial;
	config->memory = s->memory;
	config->blank = s->blank;
	s->memory = NULL;
	s->blank = NULL;
	return vm_new(config, session_on_vm_event, s, vm, e);
}

/* Not being able to is no failure yet: whoever sends a guest has to hear of it. */
static void make_blank(struct session *s)
{
	struct err e = ERR_INIT;

	if (!s->blank && vm_blank_new(&s->blank, &e) < 0)
		log_info("no machine made ahead: %s", e.msg);
}

int session_listen(struct session *s, const char *uri_text, struct err *e)
{
	struct migration_destination_config config = {
		.build = build,
		.build_ctx = s,
		.events = {on_status, on_round, on_end, s},
		.fault = s->config.fault,
		.rdma_pin_bytes = s->settings.params.rdma_pin_bytes,
		.rdma_fallback = s->settings.params.rdma_fallback,
		.announce = s->settings.params.announce,
		.has_memory = s->config.prealloc,
	};
	struct uri uri;
	int ret;

	if (!s->may_listen)
		return err_set(e, ERR_STATE, EINVAL,
			       s->config.incoming
				       ? "The incoming migration has already been started"
				       : "'--incoming' was not specified on the command line");
	ret = uri_parse(uri_text, &uri, e);
	if (!ret) /* again, if a guest that did not arrive has had it */
		ret = session_prealloc(s, e);
	if (!ret && s->config.handed_fd)
		ret = link_listen_handed(s->config.handed_fd, uri_text, &s->listener, e);
	else if (!ret)
		ret = link_listen(&uri, &s->listener, e);
	if (ret < 0)
		return ret;
	make_blank(s);
	ret = migration_destination_start(s->listener, &config, &s->destination, e);
	if (ret < 0) {
		link_listener_free(s->listener);
		s->listener = NULL;
		return ret;
	}
	s->may_listen = false;
	if (s->config.observer.on_listening)
		s->config.observer.on_listening(s->config.observer.ctx,
						link_listener_address(s->listener));
	return 0;
}

/* A guest that did not arrive: with "defer" somebody steers us and may try again. */
static void incoming_failed(struct session *s)
{
	if (s->ending)
		return;
	if (!strcmp(s->config.incoming, "defer")) {
		s->may_listen = true;
		log_warning("%s", s->last.error.msg);
		return;
	}
	log_error("%s", s->last.error.msg);
	session_end(s,
		    s->last.status == MIGRATION_CANCELLED ? EXIT_CANCELLED : EXIT_MIGRATION_FAILED);
}

static void finish_destination(struct session *s)
{
	migration_destination_wait(s->destination, &s->last, &s->vm);
	migration_destination_free(s->destination);
	s->destination = NULL;
	link_listener_free(s->listener);
	s->listener = NULL;
	if (s->config.observer.on_received)
		s->config.observer.on_received(s->config.observer.ctx, &s->last,
					       s->vm ? vm_host_notes(s->vm) : "");
	if (s->vm)
		session_do_deferred(s);
	else
		incoming_failed(s);
}

void session_on_engine_end(struct session *s)
{
	if (s->source)
		finish_source(s);
	else if (s->destination)
		finish_destination(s);
}

struct vm *session_vm(struct session *s)
{
	struct migration_report report;

	if (s->vm || !s->destination)
		return s->vm;
	migration_destination_query(s->destination, &report);
	if (report.status == MIGRATION_COMPLETED)
		finish_destination(s); /* waits for the engine's last moments only */
	return s->vm;
}

bool session_query(struct session *s, struct migration_report *out)
{
	if (s->source) {
		migration_source_query(s->source, out);
		if (out->status == MIGRATION_NONE)
			out->status = MIGRATION_SETUP; /* its thread is about to say so */
	} else if (s->destination) {
		migration_destination_query(s->destination, out);
	} else {
		*out = s->last;
	}
	return out->status != MIGRATION_NONE;
}

void session_stop_engines(struct session *s)
{
	if (s->source) {
		migration_source_cancel(s->source);
		finish_source(s);
	}
	if (s->destination) {
		migration_destination_cancel(s->destination);
		finish_destination(s);
	}
}
