#include "vmm/dev/serial_backend.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/dev/dev_thread.h"
#include "vmm/dev/serial_port.h"

/* Holds a whole boot log for the client that connects late. */
#define OUTPUT_BYTES (256u << 10)
#define INPUT_BYTES  4096u
/* How long free waits for a reader to take what is still queued. */
#define FLUSH_NS (250 * NS_PER_MS)

static const struct serial_kind *const kinds[] = {
	&serial_null, &serial_stdio, &serial_file, &serial_pty, &serial_unix,
};

struct serial_backend {
	/* immutable after start */
	int wake_fd;
	pthread_t thread;
	bool started;
	serial_input_fn input;
	void *input_ctx;

	/* owned by the thread once started */
	struct serial_port port;
	uint8_t in[INPUT_BYTES]; /* received, not taken by the UART */
	size_t in_len;
	bool write_failed;

	pthread_mutex_t lock;
	/* guarded by lock; out[] only outside [out_at, out_at + out_len), which is the thread's */
	bool stop;
	uint64_t flush_deadline_ns;
	uint8_t *out;
	size_t out_at, out_len;
	uint64_t dropped_bytes;
};

enum polled {
	POLLED_WAKE,
	POLLED_LISTEN,
	POLLED_IN,
	POLLED_OUT,
	NR_POLLED
};

static void wake(struct serial_backend *b)
{
	uint64_t one = 1;

	/* It can only fail by the counter being full, and then the thread is awake anyway. */
	if (write(b->wake_fd, &one, sizeof(one)) < 0)
		return;
}

/* --- output --- */

static size_t output_pending(struct serial_backend *b)
{
	size_t len;

	pthread_mutex_lock(&b->lock);
	len = b->out_len;
	pthread_mutex_unlock(&b->lock);
	return len;
}

static void output_done(struct serial_backend *b, size_t len)
{
	pthread_mutex_lock(&b->lock);
	b->out_at = (b->out_at + len) % OUTPUT_BYTES;
	b->out_len -= len;
	pthread_mutex_unlock(&b->lock);
}

static void output_failed(struct serial_backend *b, size_t len)
{
	struct serial_port *p = &b->port;

	if (p->kind->hangup) {
		p->kind->hangup(p); /* what it did not take is for the next client */
		return;
	}
	if (!b->write_failed)
		log_warning("serial %s: output is lost: %s", p->kind->name, strerrordesc_np(errno));
	b->write_failed = true;
	if (errno == ENOSPC || errno == EDQUOT)
		output_done(b, len); /* there may be space again later */
	else
		p->out_fd = -1; /* its owner, the kind, has its own copy to close */
}

static void send_output(struct serial_backend *b)
{
	size_t at;
	size_t len;
	ssize_t n;

	pthread_mutex_lock(&b->lock);
	at = b->out_at;
	len = b->out_len < OUTPUT_BYTES - at ? b->out_len : OUTPUT_BYTES - at;
	pthread_mutex_unlock(&b->lock);
	if (!len)
		return;
	n = write(b->port.out_fd, b->out + at, len);
	if (n >= 0)
		output_done(b, (size_t)n);
	else if (errno != EAGAIN && errno != EINTR)
		output_failed(b, len);
}

/* --- input --- */

static void deliver_input(struct serial_backend *b)
{
	size_t taken;

	if (!b->in_len)
		return;
	taken = b->input(b->input_ctx, b->in, b->in_len);
	b->in_len -= taken;
	memmove(b->in, b->in + taken, b->in_len);
}

static void input_ended(struct serial_backend *b)
{
	/* End of file on stdin, or a client that only listens from now on. Output goes on; a client
	 * that is gone altogether shows as a hang-up of the output side. */
	b->port.in_fd = -1;
}

static void receive_input(struct serial_backend *b)
{
	struct serial_port *p = &b->port;
	uint8_t excess[256];
	bool full = b->in_len == INPUT_BYTES;
	uint8_t *at = full ? excess : b->in + b->in_len;
	ssize_t n = read(p->in_fd, at, full ? sizeof(excess) : INPUT_BYTES - b->in_len);
	size_t len;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		input_ended(b);
		return;
	}
	len = (size_t)n;
	if (p->kind->filter)
		len = p->kind->filter(p, at, len);
	if (!full)
		b->in_len += len;
}

/* --- the thread --- */

/* False once the thread is to end. @tried: to send what is left, since that was asked for. Without
 * a try it would be lost wherever this thread gets no processor before the deadline. */
static bool keep_running(struct serial_backend *b, bool tried)
{
	bool run;

	pthread_mutex_lock(&b->lock);
	run = !b->stop || (b->out_len && b->port.out_fd >= 0 &&
			   (!tried || clock_now_ns() < b->flush_deadline_ns));
	pthread_mutex_unlock(&b->lock);
	return run;
}

static bool stopping(struct serial_backend *b)
{
	bool stop;

	pthread_mutex_lock(&b->lock);
	stop = b->stop;
	pthread_mutex_unlock(&b->lock);
	return stop;
}

static bool wants_input(struct serial_backend *b)
{
	struct serial_port *p = &b->port;

	if (p->in_fd < 0 || (b->in_len == INPUT_BYTES && !p->drop_excess_input))
		return false;
	return !p->kind->may_read || p->kind->may_read(p);
}

/* Returns the time-out for poll. A descriptor is polled only if its readiness would be acted upon:
 * one that hung up is always ready and would spin. */
static int plan(struct serial_backend *b, struct pollfd *fds)
{
	struct serial_port *p = &b->port;
	bool stop = stopping(b);
	bool out = output_pending(b) > 0;
	bool in = !stop && wants_input(b);
	bool idle = p->listen_fd >= 0 && p->in_fd < 0 && p->out_fd < 0;

	fds[POLLED_WAKE] = (struct pollfd){.fd = b->wake_fd, .events = POLLIN};
	fds[POLLED_LISTEN] =
		(struct pollfd){.fd = idle && !stop ? p->listen_fd : -1, .events = POLLIN};
	fds[POLLED_IN] = (struct pollfd){.fd = in ? p->in_fd : -1, .events = POLLIN};
	fds[POLLED_OUT] = (struct pollfd){.fd = out || p->kind->hangup ? p->out_fd : -1,
					  .events = out ? POLLOUT : 0};
	if (stop)
		return FLUSH_NS / NS_PER_MS;
	return p->kind->may_read && p->in_fd >= 0 && !in ? 1000 : -1;
}

static void serve(struct serial_backend *b, const struct pollfd *fds)
{
	struct serial_port *p = &b->port;
	uint64_t count;

	if (fds[POLLED_WAKE].revents && read(b->wake_fd, &count, sizeof(count)) < 0)
		return;
	if (fds[POLLED_IN].revents)
		receive_input(b);
	deliver_input(b);
	if (fds[POLLED_OUT].revents & (POLLOUT | POLLERR) && fds[POLLED_OUT].events & POLLOUT)
		send_output(b);
	/* Hung up, and nothing left to read that there is room for. */
	if (p->kind->hangup && fds[POLLED_OUT].revents & (POLLHUP | POLLERR) &&
	    fds[POLLED_IN].fd < 0 && p->out_fd >= 0)
		p->kind->hangup(p);
	if (fds[POLLED_LISTEN].revents)
		p->kind->accept(p);
}

static void *backend_thread(void *arg)
{
	struct serial_backend *b = arg;
	struct pollfd fds[NR_POLLED];
	bool tried = false;

	while (keep_running(b, tried)) {
		int timeout_ms;

		tried = stopping(b);
		timeout_ms = plan(b, fds);
		if (poll(fds, NR_POLLED, timeout_ms) >= 0)
			serve(b, fds);
	}
	return NULL;
}

/* --- the interface --- */

static const struct serial_kind *find_kind(const char *spec, const char **argument)
{
	size_t name_len = strcspn(spec, ":");

	*argument = spec[name_len] ? spec + name_len + 1 : "";
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strlen(kinds[i]->name) == name_len && !strncmp(spec, kinds[i]->name, name_len))
			return kinds[i];
	return NULL;
}

static int open_port(struct serial_port *p, const char *spec, struct err *e)
{
	const char *argument;
	const struct serial_kind *kind = find_kind(spec, &argument);

	if (!kind)
		return err_set(e, ERR_USAGE, EINVAL,
			       "serial '%s' is not a back end; use null, stdio, pty, file:PATH or "
			       "unix:PATH",
			       spec);
	if (kind->has_argument && !*argument)
		return err_set(e, ERR_USAGE, EINVAL, "serial '%s' lacks a path; write %s:PATH",
			       spec, kind->name);
	if (!kind->has_argument && *argument)
		return err_set(e, ERR_USAGE, EINVAL, "serial '%s': %s takes no argument", spec,
			       kind->name);
	p->kind = kind;
	return kind->open(p, argument, e);
}

static void destroy(struct serial_backend *b)
{
	if (b->port.kind)
		b->port.kind->close(&b->port);
	if (b->wake_fd >= 0)
		close(b->wake_fd);
	pthread_mutex_destroy(&b->lock);
	free(b->out);
	free(b);
}

static int init(struct serial_backend *b, const char *spec, struct err *e)
{
	int ret;

	b->port.in_fd = b->port.out_fd = b->port.listen_fd = -1;
	pthread_mutex_init(&b->lock, NULL);
	b->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->wake_fd < 0)
		return err_sys(e, "serial %s: cannot create an eventfd", spec);
	b->out = malloc(OUTPUT_BYTES);
	if (!b->out)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for serial %s", spec);
	ret = open_port(&b->port, spec, e);
	if (ret)
		b->port.kind = NULL; /* it cleaned up after itself */
	return ret;
}

int serial_backend_new(const char *spec, struct serial_backend **out, struct err *e)
{
	struct serial_backend *b = calloc(1, sizeof(*b));
	int ret;

	if (!b)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a serial back end");
	ret = init(b, spec ? spec : "null", e);
	if (ret) {
		destroy(b);
		return ret;
	}
	*out = b;
	return 0;
}

int serial_backend_start(struct serial_backend *b, serial_input_fn input, void *ctx, struct err *e)
{
	int ret;

	b->input = input;
	b->input_ctx = ctx;
	if (b->port.kind == &serial_null)
		return 0; /* nothing to wait for */
	ret = dev_thread_start(&b->thread, "serial", backend_thread, b, e);
	b->started = !ret;
	return ret;
}

void serial_backend_free(struct serial_backend *b)
{
	if (!b)
		return;
	if (b->started) {
		pthread_mutex_lock(&b->lock);
		b->stop = true;
		b->flush_deadline_ns = clock_now_ns() + FLUSH_NS;
		pthread_mutex_unlock(&b->lock);
		wake(b);
		pthread_join(b->thread, NULL);
	}
	if (b->dropped_bytes)
		log_info("serial %s: %llu bytes of output had no reader and were dropped",
			 b->port.kind->name, (unsigned long long)b->dropped_bytes);
	destroy(b);
}

/* Append what fits; returns whether the thread must be woken. */
static bool queue_output(struct serial_backend *b, const uint8_t *data, size_t len)
{
	size_t room = OUTPUT_BYTES - b->out_len;
	size_t n = len < room ? len : room;
	size_t at = (b->out_at + b->out_len) % OUTPUT_BYTES;
	size_t first = n < OUTPUT_BYTES - at ? n : OUTPUT_BYTES - at;
	bool was_empty = !b->out_len;

	memcpy(b->out + at, data, first);
	memcpy(b->out, data + first, n - first);
	b->out_len += n;
	b->dropped_bytes += len - n;
	return was_empty && n;
}

void serial_backend_write(struct serial_backend *b, const uint8_t *data, size_t len)
{
	bool must_wake;

	if (b->port.kind == &serial_null)
		return;
	pthread_mutex_lock(&b->lock);
	must_wake = queue_output(b, data, len);
	pthread_mutex_unlock(&b->lock);
	if (must_wake)
		wake(b);
}

void serial_backend_kick(struct serial_backend *b)
{
	wake(b);
}

const char *serial_backend_path(const struct serial_backend *b)
{
	return b->port.path;
}
