#include "control/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/command.h"
#include "control/session_state.h"
#include "vmm/base/log.h"
#include "vmm/blank.h"
#include "vmm/mem_prealloc.h"

#define PROGRESS_MS 200

void session_end(struct session *s, int exit_code)
{
	if (!s->ending)
		s->exit_code = exit_code;
	s->ending = true;
	uv_stop(&s->loop);
}

static void on_signal(uv_signal_t *signal, int signum)
{
	struct session *s = signal->data;
	bool waiting = !s->vm && s->destination;

	(void)signum;
	qmp_server_event(s->qmp, "SHUTDOWN",
			 json_pack("{s:b,s:s}", "guest", 0, "reason", "host-signal"));
	session_end(s, waiting ? EXIT_CANCELLED : EXIT_OK);
}

static void on_progress(uv_timer_t *timer)
{
	struct session *s = timer->data;
	struct migration_report report;

	if (!s->destination || !s->config.observer.on_progress)
		return;
	migration_destination_query(s->destination, &report);
	s->config.observer.on_progress(s->config.observer.ctx, &report);
}

static void start_watching(struct session *s)
{
	ending_signals_watch(&s->signals, &s->loop, on_signal, s);
	uv_timer_init(&s->loop, &s->progress);
	s->progress.data = s;
	if (s->config.observer.on_progress)
		uv_timer_start(&s->progress, on_progress, PROGRESS_MS, PROGRESS_MS);
}

static int open_qmp(struct session *s, struct err *e)
{
	struct qmp_target target = {&session_qmp_ops, s};

	if (!s->config.qmp)
		return 0;
	return qmp_server_new(&s->loop, s->config.qmp, &target, &s->qmp, e);
}

int session_prealloc(struct session *s, struct err *e)
{
	struct guest_mem *memory;

	if (!s->config.prealloc || s->memory)
		return 0;
	if (guest_mem_new(s->config.vm.memory_bytes, &memory, e) < 0)
		return -e->code;
	if (mem_prealloc(memory, e) < 0) {
		guest_mem_free(memory);
		return -e->code;
	}
	s->memory = memory;
	return 0;
}

static int boot(struct session *s, struct err *e)
{
	struct vm_config config = s->config.vm;
	int ret;

	config.memory = s->memory;
	s->memory = NULL;
	ret = vm_new(&config, session_on_vm_event, s, &s->vm, e);
	if (!ret)
		ret = vm_boot(s->vm, e);
	if (!ret && !s->config.paused)
		ret = vm_resume(s->vm, e);
	return ret;
}

static int begin(struct session *s, struct err *e)
{
	if (session_prealloc(s, e) < 0)
		return -e->code;
	if (!s->config.incoming)
		return boot(s, e);
	s->may_listen = true;
	if (!strcmp(s->config.incoming, "defer"))
		return 0;
	return session_listen(s, s->config.incoming, e);
}

static int init_settings(struct session *s, struct err *e)
{
	migration_settings_init(&s->settings);
	if (s->config.rdma_pin_bytes)
		s->settings.params.rdma_pin_bytes = s->config.rdma_pin_bytes;
	s->settings.params.rdma_fallback = s->config.rdma_fallback;
	if (!s->config.tracker)
		return 0;
	if (strlen(s->config.tracker) >= sizeof(s->settings.params.tracker))
		return err_set(e, ERR_USAGE, EINVAL, "--dirty: unknown dirty tracker '%.50s'",
			       s->config.tracker);
	strcpy(s->settings.params.tracker, s->config.tracker);
	if (migration_params_check(&s->settings.params, e) < 0)
		return err_prefix(e, "--dirty");
	return 0;
}

int session_new(const struct session_config *config, struct session **out, struct err *e)
{
	struct session *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return err_set(e, ERR_SYS, ENOMEM, "no memory for a session");
	s->config = *config;
	pthread_mutex_init(&s->switchover, NULL);
	ret = uv_loop_init(&s->loop);
	if (ret < 0) {
		free(s);
		return err_set(e, ERR_SYS, -ret, "cannot make an event loop: %s", uv_strerror(ret));
	}
	start_watching(s);
	ret = mailbox_new(&s->loop, session_on_mail, s, &s->mailbox, e);
	if (!ret)
		ret = init_settings(s, e);
	if (!ret)
		ret = open_qmp(s, e);
	if (!ret)
		ret = begin(s, e);
	if (ret < 0) {
		session_free(s);
		return ret;
	}
	*out = s;
	return 0;
}

int session_run(struct session *s)
{
	if (!s->ending)
		uv_run(&s->loop, UV_RUN_DEFAULT);
	session_stop_engines(s);
	mailbox_drain(s->mailbox); /* clients hear how it ended */
	return s->exit_code;
}

void session_free(struct session *s)
{
	struct err ignored = ERR_INIT;

	if (s->mailbox)
		session_stop_engines(s);
	s->ending = true;
	if (s->vm) {
		if (vm_status(s->vm) == VM_RUNNING)
			vm_pause(s->vm, &ignored);
		vm_free(s->vm);
	}
	guest_mem_free(s->memory);
	vm_blank_free(s->blank);
	/* Every thread that posts is gone. */
	if (s->mailbox)
		mailbox_close(s->mailbox);
	qmp_server_close(s->qmp);
	ending_signals_close(&s->signals);
	uv_close((uv_handle_t *)&s->progress, NULL);
	uv_run(&s->loop, UV_RUN_DEFAULT);
	uv_loop_close(&s->loop);
	pthread_mutex_destroy(&s->switchover);
	free(s);
}
