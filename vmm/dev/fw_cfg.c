/*
 * QEMU's firmware configuration device, the part of it that kvm-unit-tests read (QEMU,
 * docs/specs/fw_cfg.rst): a 16-bit selector at 0x510, then the item's bytes one at a time from
 * 0x511. Items are little endian; past their end, and for keys there are none of, zeroes come.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "proto/device.pb-c.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/state_message.h"

enum fw_cfg_key {
	KEY_SIGNATURE = 0x00,
	KEY_ID = 0x01,
	KEY_RAM_SIZE = 0x03,
	KEY_NR_CPUS = 0x05,
	KEY_MAX_CPUS = 0x0f,
	KEY_MAX_RAM = 0x11, /* kvm-unit-tests' own */
};

#define PORT_SELECTOR  0
#define PORT_DATA      1
#define NR_PORTS       2
#define ITEM_BYTES     8           /* the longest */
#define ID_TRADITIONAL 1           /* no DMA interface */
#define SIGNATURE      0x554d4551u /* "QEMU" */

struct fw_cfg {
	struct device dev;

	/* immutable after new */
	uint64_t memory_bytes;
	uint32_t nr_cpus;

	pthread_mutex_t lock;
	/* guarded by lock */
	uint16_t key;
	uint32_t at; /* bytes of the item read so far, at most ITEM_BYTES */
};

static struct fw_cfg *to_fw_cfg(struct device *d)
{
	return (struct fw_cfg *)d;
}

static uint64_t item(const struct fw_cfg *c)
{
	switch ((enum fw_cfg_key)c->key) {
	case KEY_SIGNATURE:
		return SIGNATURE;
	case KEY_ID:
		return ID_TRADITIONAL;
	case KEY_RAM_SIZE:
	case KEY_MAX_RAM:
		return c->memory_bytes;
	case KEY_NR_CPUS:
	case KEY_MAX_CPUS:
		return c->nr_cpus;
	}
	return 0;
}

static uint8_t next_byte(struct fw_cfg *c)
{
	if (c->at == ITEM_BYTES)
		return 0;
	return (uint8_t)(item(c) >> 8 * c->at++);
}

static void fw_cfg_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct fw_cfg *c = ctx;
	uint8_t byte;

	memset(data, 0, len);
	if (offset != PORT_DATA)
		return;
	pthread_mutex_lock(&c->lock);
	byte = next_byte(c);
	pthread_mutex_unlock(&c->lock);
	memcpy(data, &byte, 1);
}

static void fw_cfg_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct fw_cfg *c = ctx;

	if (offset != PORT_SELECTOR || len != sizeof(c->key))
		return;
	pthread_mutex_lock(&c->lock);
	memcpy(&c->key, data, sizeof(c->key));
	c->at = 0;
	pthread_mutex_unlock(&c->lock);
}

static void fw_cfg_reset(struct device *d)
{
	struct fw_cfg *c = to_fw_cfg(d);

	pthread_mutex_lock(&c->lock);
	c->key = 0;
	c->at = 0;
	pthread_mutex_unlock(&c->lock);
}

static int fw_cfg_save(const struct device *d, struct buf *out, struct err *e)
{
	const struct fw_cfg *c = (const struct fw_cfg *)d;
	Godwit__FwCfgState s = GODWIT__FW_CFG_STATE__INIT;

	s.has_key = s.has_at = true;
	s.key = c->key;
	s.at = c->at;
	return state_message_pack(&s.base, out, e);
}

static const struct state_limit fw_cfg_limits[] = {
	{"key", UINT16_MAX}, {"at", ITEM_BYTES}, {NULL, 0}};

static int fw_cfg_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		       struct err *e)
{
	struct fw_cfg *c = to_fw_cfg(d);
	const Godwit__FwCfgState *s;
	ProtobufCMessage *msg;
	int ret;

	(void)version;
	ret = state_message_unpack(d->ops->type, &godwit__fw_cfg_state__descriptor, fw_cfg_limits,
				   data, len, &msg, e);
	if (ret)
		return ret;
	s = (const Godwit__FwCfgState *)msg;
	pthread_mutex_lock(&c->lock);
	c->key = (uint16_t)s->key;
	c->at = s->at;
	pthread_mutex_unlock(&c->lock);
	protobuf_c_message_free_unpacked(msg, NULL);
	return 0;
}

static void fw_cfg_free(struct device *d)
{
	struct fw_cfg *c = to_fw_cfg(d);

	pthread_mutex_destroy(&c->lock);
	free(c);
}

static const struct dev_ops fw_cfg_ops = {
	.type = "fw-cfg",
	.state_version = 1,
	.oldest_loadable = 1,
	.reset = fw_cfg_reset,
	.save = fw_cfg_save,
	.load = fw_cfg_load,
	.free = fw_cfg_free,
};

static const struct bus_ops fw_cfg_bus_ops = {.read = fw_cfg_read, .write = fw_cfg_write};

int fw_cfg_new(const struct machine *m, uint32_t nr_cpus, struct device **out, struct err *e)
{
	struct fw_cfg *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for fw_cfg");
	c->dev.ops = &fw_cfg_ops;
	c->memory_bytes = guest_mem_bytes(m->mem);
	c->nr_cpus = nr_cpus;
	pthread_mutex_init(&c->lock, NULL);
	ret = bus_add(m->bus, BUS_PIO, BOARD_FW_CFG_PORT, NR_PORTS, "fw_cfg", &fw_cfg_bus_ops, c,
		      e);
	if (ret) {
		fw_cfg_free(&c->dev);
		return ret;
	}
	*out = &c->dev;
	return 0;
}
