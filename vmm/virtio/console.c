/*
 * A console without ports (virtio 1.2, 5.3): hvc0 in Linux. Its other end is one of the serial
 * port's back ends, which has a thread of its own: input comes from there into a small buffer and
 * on by way of an eventfd to the I/O thread, which alone touches the queues.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "proto/virtio.pb-c.h"
#include "vmm/base/log.h"
#include "vmm/dev/serial_backend.h"
#include "vmm/dev/state_message.h"
#include "vmm/virtio/kinds.h"

#define QUEUE_IN    0
#define QUEUE_OUT   1
#define INPUT_BYTES 256

struct console {
	struct virtio_kind kind; /* first */

	/* immutable after new */
	struct serial_backend *backend;

	/* the I/O thread's */
	struct io_watch wake;

	pthread_mutex_t lock; /* guards the rest */
	bool taking;          /* started: input may come in */
	uint8_t input[INPUT_BYTES];
	uint32_t nr_input;
};

static struct console *self(struct virtio_kind *k)
{
	return (struct console *)k;
}

/* ---- From the back end to the driver ---- */

/* On the back end's thread. */
static size_t take_input(void *ctx, const uint8_t *data, size_t len)
{
	struct console *c = ctx;
	const uint64_t one = 1;
	size_t room, n = 0;

	pthread_mutex_lock(&c->lock);
	room = c->taking ? INPUT_BYTES - c->nr_input : 0;
	n = len < room ? len : room;
	if (n)
		memcpy(c->input + c->nr_input, data, n);
	c->nr_input += (uint32_t)n;
	pthread_mutex_unlock(&c->lock);
	if (n && write(c->wake.fd, &one, sizeof(one)) < 0)
		log_debug("console: its eventfd is full"); /* and hence awake */
	return n;
}

static bool give_some(struct console *c, struct virtq *q, struct virtq_chain *chain)
{
	uint32_t n;

	if (!c->nr_input || virtq_pop(q, chain) <= 0)
		return false;
	n = (uint32_t)virtq_write(chain, 0, c->input, c->nr_input);
	memmove(c->input, c->input + n, c->nr_input - n);
	c->nr_input -= n;
	virtq_push(q, chain, n);
	return true;
}

static void give_input(struct console *c)
{
	struct virtq *q = virtio_queue(c->kind.transport, QUEUE_IN);
	struct virtq_chain chain;
	bool gave = false;

	if (!q)
		return;
	pthread_mutex_lock(&c->lock);
	/* Kicks are of use only while input waits for a buffer. */
	do {
		virtq_kicks_off(q);
		while (give_some(c, q, &chain))
			gave = true;
	} while (c->nr_input && virtq_kicks_on(q));
	pthread_mutex_unlock(&c->lock);
	virtq_flush(q);
	if (gave)
		serial_backend_kick(c->backend);
}

static void on_wake(void *ctx, uint32_t events)
{
	struct console *c = ctx;
	uint64_t count;

	(void)events;
	if (read(c->wake.fd, &count, sizeof(count)) > 0)
		give_input(c);
}

/* ---- From the driver to the back end ---- */

static void write_out(struct console *c, const struct virtq_chain *chain)
{
	for (uint32_t i = 0; i < chain->nr_out; i++)
		serial_backend_write(c->backend, chain->iov[i].iov_base, chain->iov[i].iov_len);
}

static void take_output(struct console *c)
{
	struct virtq *q = virtio_queue(c->kind.transport, QUEUE_OUT);
	struct virtq_chain chain;

	do {
		virtq_kicks_off(q);
		while (virtq_pop(q, &chain) > 0) {
			write_out(c, &chain);
			virtq_push(q, &chain, 0);
		}
	} while (virtq_kicks_on(q));
	virtq_flush(q);
}

static void console_handle_queue(struct virtio_kind *k, uint32_t index)
{
	if (index == QUEUE_IN)
		give_input(self(k));
	else
		take_output(self(k));
}

/* ---- Life ---- */

static void set_taking(struct console *c, bool taking)
{
	pthread_mutex_lock(&c->lock);
	c->taking = taking;
	pthread_mutex_unlock(&c->lock);
}

static void console_start(struct virtio_kind *k)
{
	struct console *c = self(k);
	struct err e = ERR_INIT;

	if (io_thread_watch(virtio_io(k->transport), &c->wake, EPOLLIN, &e) < 0)
		virtio_broken(k->transport, e.msg);
	set_taking(c, true);
	serial_backend_kick(c->backend);
}

static int console_stop(struct virtio_kind *k, struct err *e)
{
	set_taking(self(k), false);
	return io_thread_watch(virtio_io(k->transport), &self(k)->wake, 0, e);
}

static void console_reset(struct virtio_kind *k)
{
	pthread_mutex_lock(&self(k)->lock);
	self(k)->nr_input = 0;
	pthread_mutex_unlock(&self(k)->lock);
}

static int console_save(const struct virtio_kind *k, struct buf *out, struct err *e)
{
	const struct console *c = (const struct console *)k;
	Godwit__VirtioConsoleState m = GODWIT__VIRTIO_CONSOLE_STATE__INIT;

	m.has_input = true;
	m.input = (ProtobufCBinaryData){.len = c->nr_input, .data = (uint8_t *)(uintptr_t)c->input};
	return state_message_pack(&m.base, out, e);
}

static int console_load(struct virtio_kind *k, uint32_t version, const uint8_t *data, size_t len,
			struct err *e)
{
	static const struct state_limit limits[] = {{"input", INPUT_BYTES}, {NULL, 0}};
	struct console *c = self(k);
	Godwit__VirtioConsoleState *m;
	ProtobufCMessage *message;
	int ret = state_message_unpack(k->ops->type, &godwit__virtio_console_state__descriptor,
				       limits, data, len, &message, e);

	(void)version;
	if (ret < 0)
		return ret;
	m = (Godwit__VirtioConsoleState *)message;
	pthread_mutex_lock(&c->lock);
	if (m->input.len)
		memcpy(c->input, m->input.data, m->input.len);
	c->nr_input = (uint32_t)m->input.len;
	pthread_mutex_unlock(&c->lock);
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}

static void console_free(struct virtio_kind *k)
{
	struct console *c = self(k);

	serial_backend_free(c->backend); /* joins the thread that calls take_input() */
	if (c->wake.fd >= 0)
		close(c->wake.fd);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static const struct virtio_ops console_ops = {
	.type = "virtio-console",
	.device_id = VIRTIO_ID_CONSOLE,
	.queue_size = 64,
	.state_version = 1,
	.oldest_loadable = 1,
	.start = console_start,
	.stop = console_stop,
	.handle_queue = console_handle_queue,
	.reset = console_reset,
	.save = console_save,
	.load = console_load,
	.free = console_free,
};

static int open_back_end(struct console *c, const char *spec, struct err *e)
{
	int ret = serial_backend_new(spec[0] ? spec : NULL, &c->backend, e);

	if (ret < 0)
		return ret;
	c->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake.fd < 0)
		return err_sys(e, "cannot make an eventfd (raise `ulimit -n`?)");
	return serial_backend_start(c->backend, take_input, c, e);
}

int virtio_console_new(const char *spec, uint32_t instance, const struct virtio_face *face,
		       struct virtio_kind **out, struct err *e)
{
	struct console *c = calloc(1, sizeof(*c));

	(void)instance;
	(void)face;
	if (!c)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for virtio-console");
	c->kind = (struct virtio_kind){.ops = &console_ops, .nr_queues = 2};
	c->wake = (struct io_watch){.fd = -1, .ready = on_wake, .ctx = c};
	pthread_mutex_init(&c->lock, NULL);
	if (open_back_end(c, spec, e) < 0) {
		console_free(&c->kind);
		return err_prefix(e, "virtio-console");
	}
	*out = &c->kind;
	return 0;
}
