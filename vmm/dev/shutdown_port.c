/*
 * The power-off port of Bochs, which QEMU has too: the bytes of "Shutdown", one after another, to
 * port 0x8900. Test programs write them when there is no debug-exit.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "proto/device.pb-c.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/state_message.h"

static const char password[] = "Shutdown";
#define PASSWORD_CHARS ((uint32_t)sizeof(password) - 1)

struct shutdown_port {
	struct device dev;
	const struct machine *m; /* immutable after new */

	pthread_mutex_t lock;
	uint32_t matched; /* guarded by lock: characters seen, less than PASSWORD_CHARS */
};

static struct shutdown_port *to_port(struct device *d)
{
	return (struct shutdown_port *)d;
}

static void port_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	(void)ctx;
	(void)offset;
	memset(data, 0xff, len);
}

/* Whether that was the last one. No character comes twice before its turn but the first, so a
 * mismatch starts anew, with this one. */
static bool advance(struct shutdown_port *p, char c)
{
	if (c != password[p->matched])
		p->matched = 0;
	if (c == password[p->matched])
		p->matched++;
	if (p->matched < PASSWORD_CHARS)
		return false;
	p->matched = 0;
	return true;
}

static void port_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct shutdown_port *p = ctx;
	bool complete;

	(void)offset;
	if (len != 1)
		return;
	pthread_mutex_lock(&p->lock);
	complete = advance(p, *(const char *)data);
	pthread_mutex_unlock(&p->lock);
	if (complete)
		p->m->request(p->m->ctx, MACHINE_POWEROFF, 0);
}

static void port_reset(struct device *d)
{
	struct shutdown_port *p = to_port(d);

	pthread_mutex_lock(&p->lock);
	p->matched = 0;
	pthread_mutex_unlock(&p->lock);
}

static int port_save(const struct device *d, struct buf *out, struct err *e)
{
	Godwit__ShutdownPortState s = GODWIT__SHUTDOWN_PORT_STATE__INIT;

	s.has_matched = true;
	s.matched = ((const struct shutdown_port *)d)->matched;
	return state_message_pack(&s.base, out, e);
}

static const struct state_limit port_limits[] = {{"matched", PASSWORD_CHARS - 1}, {NULL, 0}};

static int port_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		     struct err *e)
{
	struct shutdown_port *p = to_port(d);
	ProtobufCMessage *msg;
	int ret;

	(void)version;
	ret = state_message_unpack(d->ops->type, &godwit__shutdown_port_state__descriptor,
				   port_limits, data, len, &msg, e);
	if (ret)
		return ret;
	pthread_mutex_lock(&p->lock);
	p->matched = ((const Godwit__ShutdownPortState *)msg)->matched;
	pthread_mutex_unlock(&p->lock);
	protobuf_c_message_free_unpacked(msg, NULL);
	return 0;
}

static void port_free(struct device *d)
{
	struct shutdown_port *p = to_port(d);

	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct dev_ops port_ops = {
	.type = "shutdown-port",
	.state_version = 1,
	.oldest_loadable = 1,
	.reset = port_reset,
	.save = port_save,
	.load = port_load,
	.free = port_free,
};

static const struct bus_ops port_bus_ops = {.read = port_read, .write = port_write};

int shutdown_port_new(const struct machine *m, struct device **out, struct err *e)
{
	struct shutdown_port *p = calloc(1, sizeof(*p));
	int ret;

	if (!p)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for the shutdown port");
	p->dev.ops = &port_ops;
	p->m = m;
	pthread_mutex_init(&p->lock, NULL);
	ret = bus_add(m->bus, BUS_PIO, BOARD_SHUTDOWN_PORT, 1, "shutdown port", &port_bus_ops, p,
		      e);
	if (ret) {
		port_free(&p->dev);
		return ret;
	}
	*out = &p->dev;
	return 0;
}
