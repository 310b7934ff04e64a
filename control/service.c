#include "control/service.h"

#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/command.h"
#include "control/service_state.h"
#include "proto/record.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"

#define PEER_BYTES 128
#define AGAIN_MS   1000

static void print_event(const char *event, uint32_t guest, json_t *members)
{
	json_t *object = json_pack("{s:s}", "event", event);

	if (guest)
		json_object_set_new(object, "guest", json_integer(guest));
	if (members)
		json_object_update(object, members);
	json_dumpf(object, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(object);
}

void service_tell(const struct service *s, const char *event, uint32_t guest, void *members,
		  const char *text, ...)
{
	va_list args;

	if (s->config.json) {
		print_event(event, guest, members);
	} else {
		if (guest)
			printf("guest %u: ", guest);
		va_start(args, text);
		vprintf(text, args);
		va_end(args);
		putchar('\n');
	}
	fflush(stdout);
	json_decref(members);
}

/* Where a connection comes from, for messages. */
static void name_peer(int fd, char name[PEER_BYTES])
{
	struct sockaddr_storage peer = {.ss_family = AF_UNIX};
	socklen_t len = sizeof(peer);

	strcpy(name, "this host");
	if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && peer.ss_family != AF_UNIX)
		(void)getnameinfo((struct sockaddr *)&peer, len, name, PEER_BYTES, NULL, 0,
				  NI_NUMERICHOST);
}

static struct service_guest *find_guest(struct service *s, const uint8_t id[MIGRATION_ID_BYTES])
{
	for (uint32_t i = 0; i < s->config.max_guests; i++)
		if (s->guests[i].present && !memcmp(s->guests[i].id, id, sizeof(s->guests[i].id)))
			return &s->guests[i];
	return NULL;
}

/* The lowest number that nobody has: so who has prepared N taps needs no more than N. */
static int choose_number(const struct service *s, const uint8_t id[MIGRATION_ID_BYTES],
			 uint32_t *number, struct err *e)
{
	if (s->ending)
		return err_set(e, ERR_STATE, ESHUTDOWN,
			       "this service is about to end and takes no guests any more");
	if (find_guest((struct service *)(uintptr_t)s, id))
		return err_set(e, ERR_STREAM, EPROTO, "a migration with this id is here already");
	for (uint32_t i = 0; i < s->config.max_guests; i++)
		if (!s->guests[i].present) {
			*number = i + 1;
			return 0;
		}
	return err_set(e, ERR_STATE, EBUSY,
		       "this service takes %u guests at once and has them: try again when one has "
		       "ended, or raise its --keep",
		       s->config.max_guests);
}

/* Say no in the stream's own words. HELLO is here in full and the answer fits into the socket's
 * buffer, so this does not wait. */
static void refuse(int fd, const struct err *why)
{
	struct record_stream records;
	struct record hello = {.body = BUF_INIT};
	struct err ignored = ERR_INIT;
	struct link *link;

	if (link_from_fd(fd, NULL, &link, &ignored) < 0)
		return;
	link_set_stall_timeout(link, NS_PER_S);
	record_stream_init(&records, link, "source");
	if (record_expect(&records, RECORD_HELLO, &hello, &ignored) == 0)
		record_send_abort(&records, why);
	buf_fini(&hello.body);
	link_free(link);
}

static void admit(struct service *s, int fd, const struct first_record *first)
{
	char peer[PEER_BYTES];
	struct err e = ERR_INIT;
	uint32_t number = 0;

	name_peer(fd, peer);
	if (choose_number(s, first->id, &number, &e) < 0 ||
	    service_guest_start(s, number, first->id, fd, &e) < 0) {
		service_tell(s, "refused", 0, json_pack("{s:s,s:s}", "from", peer, "reason", e.msg),
			     "a guest from %s was refused: %s", peer, e.msg);
		refuse(fd, &e);
		return;
	}
	close(fd);
	service_tell(s, "connected", number,
		     json_pack("{s:s,s:i}", "from", peer, "pid", s->guests[number - 1].process.pid),
		     "arriving from %s, in process %d", peer, s->guests[number - 1].process.pid);
}

void service_take(struct service *s, int fd, const struct first_record *first)
{
	struct err e = ERR_INIT;
	struct service_guest *g;

	if (first->begins) {
		admit(s, fd, first);
		return;
	}
	g = find_guest(s, first->id);
	if (g && service_guest_hand(g, fd, &e) < 0)
		log_info("guest %u: %s", g->number, e.msg);
	close(fd);
}

static void on_again(uv_timer_t *timer);

/* Out of descriptors, or too many strangers: leave them in the kernel's queue for a moment. */
static void accept_later(struct service *s)
{
	uv_poll_stop(&s->accepting);
	uv_timer_start(&s->again, on_again, AGAIN_MS, 0);
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
	struct service *s = poll->data;
	struct err e = ERR_INIT;
	int fd;

	(void)status;
	(void)events;
	if (s->nr_knocks == KNOCK_MAX) {
		accept_later(s);
		return;
	}
	fd = link_accept_fd(s->listener, &e);
	if (fd >= 0) {
		knock_new(s, fd);
	} else if (fd != -EAGAIN) {
		log_warning("%s", e.msg);
		accept_later(s);
	}
}

static void on_again(uv_timer_t *timer)
{
	struct service *s = timer->data;

	uv_poll_start(&s->accepting, UV_READABLE, on_connection);
}

void service_on_knock_gone(struct service *s)
{
	s->nr_knocks--;
}

/* Nothing to do any more: let the loop run out of handles. */
static void close_all(struct service *s)
{
	uv_handle_t *accepting = (uv_handle_t *)&s->accepting;

	if (uv_is_closing(accepting))
		return;
	uv_close(accepting, NULL);
	uv_close((uv_handle_t *)&s->again, NULL);
	ending_signals_close(&s->signals);
	knock_close_all(s);
	for (uint32_t i = 0; i < s->config.max_guests; i++)
		if (s->guests[i].present)
			service_guest_leave(&s->guests[i]);
}

void service_on_guest_gone(struct service *s)
{
	s->nr_guests--;
	if (s->ending && !s->nr_guests)
		close_all(s);
}

static void on_signal(uv_signal_t *signal, int signum)
{
	struct service *s = signal->data;
	bool again = s->ending;

	(void)signum;
	s->ending = true;
	if (!s->nr_guests) {
		close_all(s);
	} else if (again) {
		service_tell(s, "leaving", 0, json_pack("{s:i}", "guests", s->nr_guests),
			     "leaving %u guests to themselves: they run on", s->nr_guests);
		close_all(s);
	} else {
		service_tell(s, "ending", 0, json_pack("{s:i}", "guests", s->nr_guests),
			     "no more guests are taken; waiting for the %u that are here (a second "
			     "signal leaves them to themselves)",
			     s->nr_guests);
	}
}

static int open_all(struct service *s, struct err *e)
{
	struct uri uri;
	int ret;

	if (uri_parse(s->config.uri, &uri, e) < 0)
		return -e->code;
	if (uri.scheme == URI_RDMA)
		return err_set(
			e, ERR_UNSUPPORTED, ENOTSUP,
			"a service listens at tcp: or unix:; for RDMA start 'godwit receive' "
			"without --keep, once for each guest");
	if (link_listen(&uri, &s->listener, e) < 0)
		return -e->code;
	ret = uv_poll_init(&s->loop, &s->accepting, link_listener_fd(s->listener));
	if (ret < 0)
		return err_set(e, ERR_SYS, -ret, "cannot watch %s: %s",
			       link_listener_address(s->listener), uv_strerror(ret));
	s->accepting.data = s;
	uv_timer_init(&s->loop, &s->again);
	s->again.data = s;
	ending_signals_watch(&s->signals, &s->loop, on_signal, s);
	uv_poll_start(&s->accepting, UV_READABLE, on_connection);
	return 0;
}

static void serve(struct service *s)
{
	service_tell(s, "listening", 0,
		     json_pack("{s:s,s:i}", "address", link_listener_address(s->listener), "guests",
			       s->config.max_guests),
		     "waiting for guests at %s, %u at once", link_listener_address(s->listener),
		     s->config.max_guests);
	uv_run(&s->loop, UV_RUN_DEFAULT);
}

int service_run(const struct service_config *config, struct err *e)
{
	struct service *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return err_set(e, ERR_SYS, ENOMEM, "no memory for a service");
	s->config = *config;
	ret = uv_loop_init(&s->loop);
	if (ret < 0) {
		free(s);
		return err_set(e, ERR_SYS, -ret, "cannot make an event loop: %s", uv_strerror(ret));
	}
	ret = open_all(s, e);
	if (ret == 0)
		serve(s);
	link_listener_free(s->listener);
	uv_loop_close(&s->loop);
	free(s);
	return ret < 0 ? ret : EXIT_OK;
}
