#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/numbered.h"
#include "control/service_state.h"
#include "vmm/base/handover.h"

#define HANDOVER_FD 3
/* Its control connection, its channels, that of its disks, and some that turn out to be strangers.
 */
#define MOST_CONNECTIONS 64
/* "godwit", "receive", the address, and the end. */
#define FIXED_WORDS 4

static void free_words(char **words)
{
	for (size_t i = 0; words && words[i]; i++)
		free(words[i]);
	free((void *)words);
}

static char *address_word(const struct service *s)
{
	char *word;

	if (asprintf(&word, "fd:%d@%s", HANDOVER_FD, link_listener_address(s->listener)) < 0)
		return NULL;
	return word;
}

/* The command line of guest @number's process; NULL without memory. */
static char **make_words(const struct service *s, uint32_t number)
{
	size_t nr = 0;
	char **words = (char **)calloc(s->config.nr_options + FIXED_WORDS, sizeof(*words));
	bool complete;

	if (!words)
		return NULL;
	words[nr++] = strdup("godwit");
	words[nr++] = strdup("receive");
	words[nr++] = address_word(s);
	for (size_t i = 0; i < s->config.nr_options; i++)
		words[nr++] = numbered_text(s->config.options[i], number);
	complete = true;
	for (size_t i = 0; i < nr; i++)
		complete &= words[i] != NULL;
	if (complete)
		return words;
	for (size_t i = 0; i < nr; i++)
		free(words[i]);
	free((void *)words);
	return NULL;
}

static void tell_end(const struct service_guest *g)
{
	if (g->signum)
		service_tell(g->service, "ended", g->number,
			     json_pack("{s:i}", "signal", g->signum),
			     "its process was killed by signal %d (%s)", g->signum,
			     strsignal(g->signum));
	else
		service_tell(g->service, "ended", g->number,
			     json_pack("{s:I}", "status", (json_int_t)g->exit_status),
			     "its process ended with status %lld", (long long)g->exit_status);
}

void service_guest_release(struct service_guest *g)
{
	if (--g->nr_open)
		return;
	close(g->handover);
	if (g->exited)
		tell_end(g);
	g->present = false;
	service_on_guest_gone(g->service);
}

static void on_process_closed(uv_handle_t *handle)
{
	service_guest_release(handle->data);
}

static void on_process_exit(uv_process_t *process, int64_t status, int signum)
{
	struct service_guest *g = process->data;

	g->exited = true;
	g->exit_status = status;
	g->signum = signum;
	uv_close((uv_handle_t *)process, on_process_closed);
}

static int spawn(struct service_guest *g, char **words, int theirs, struct err *e)
{
	char program[4096];
	size_t len = sizeof(program);
	uv_stdio_container_t files[HANDOVER_FD + 1] = {
		{.flags = UV_IGNORE},
		{.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE,
		 .data.stream = (uv_stream_t *)&g->out.pipe},
		{.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE,
		 .data.stream = (uv_stream_t *)&g->err.pipe},
		{.flags = UV_INHERIT_FD, .data.fd = theirs},
	};
	/* In a session of its own: Ctrl-C is for the service. */
	uv_process_options_t options = {.exit_cb = on_process_exit,
					.file = program,
					.args = words,
					.flags = UV_PROCESS_DETACHED,
					.stdio_count = HANDOVER_FD + 1,
					.stdio = files};
	int ret = uv_exepath(program, &len);

	if (!ret) {
		g->spawned = true; /* or not: the handle is to be closed in either case */
		g->nr_open++;
		ret = uv_spawn(&g->service->loop, &g->process, &options);
	}
	if (ret < 0)
		return err_set(e, ERR_SYS, -ret, "cannot start a process for the guest: %s",
			       uv_strerror(ret));
	return 0;
}

static int start(struct service_guest *g, int fd, int theirs, struct err *e)
{
	char **words = make_words(g->service, g->number);
	int ret;

	if (!words)
		return err_set(e, ERR_SYS, ENOMEM, "no memory to start a process for the guest");
	ret = service_guest_hand(g, fd, e);
	if (!ret)
		ret = spawn(g, words, theirs, e);
	free_words(words);
	return ret;
}

int service_guest_start(struct service *s, uint32_t number, const uint8_t id[MIGRATION_ID_BYTES],
			int fd, struct err *e)
{
	struct service_guest *g = &s->guests[number - 1];
	int ends[2];
	int ret;

	if (handover_pair(ends, e) < 0)
		return -e->code;
	*g = (struct service_guest){
		.service = s, .number = number, .present = true, .handover = ends[0], .nr_open = 2};
	memcpy(g->id, id, sizeof(g->id));
	s->nr_guests++;
	relay_init(&g->out, g, false);
	relay_init(&g->err, g, true);
	ret = start(g, fd, ends[1], e);
	close(ends[1]);
	g->process.data = g;
	if (ret < 0) {
		service_guest_leave(g);
		return ret;
	}
	relay_start(&g->out);
	relay_start(&g->err);
	return 0;
}

int service_guest_hand(struct service_guest *g, int fd, struct err *e)
{
	if (g->nr_handed++ >= MOST_CONNECTIONS)
		return err_set(e, ERR_PEER, EPROTO, "too many connections for one migration");
	return handover_give(g->handover, fd, e);
}

void service_guest_leave(struct service_guest *g)
{
	if (g->spawned && !uv_is_closing((uv_handle_t *)&g->process))
		uv_close((uv_handle_t *)&g->process, on_process_closed);
	relay_close(&g->out);
	relay_close(&g->err);
}
