/*
 * What kvm-unit-tests call the test device (QEMU, hw/misc/pc-testdev.c):
 *
 *   port 0xe0, 4 bytes      a register that reads what was written, in any width
 *   port 0xe4, 4 bytes      a write of a physical address makes KVM forget its page
 *   port 0x2000 + n         a write drives interrupt line n: 0 low, else high
 *   memory at 0xff000000    64 KiB of memory that is no RAM: every access is emulated
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "proto/device.pb-c.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/irq_line.h"
#include "vmm/dev/state_message.h"

#define ECHO_BYTES   4
#define NR_LINES     24 /* pins of the IOAPIC */
#define MEMORY_BYTES 0x10000

struct test_device {
	struct device dev;

	/* immutable after new */
	const struct machine *m;

	pthread_mutex_t lock;
	/* guarded by lock */
	uint8_t echo[ECHO_BYTES];
	struct irq_line lines[NR_LINES];
	uint8_t memory[MEMORY_BYTES];
};

static struct test_device *to_test(struct device *d)
{
	return (struct test_device *)d;
}

/* --- bytes that keep what is written --- */

/* An access that runs over the end ends there. */
static uint32_t within(uint64_t offset, uint32_t len, uint32_t bytes)
{
	return len > bytes - offset ? bytes - (uint32_t)offset : len;
}

static void get(struct test_device *t, const uint8_t *from, uint32_t bytes, uint64_t offset,
		void *data, uint32_t len)
{
	memset(data, 0xff, len);
	pthread_mutex_lock(&t->lock);
	memcpy(data, from + offset, within(offset, len, bytes));
	pthread_mutex_unlock(&t->lock);
}

static void put(struct test_device *t, uint8_t *to, uint32_t bytes, uint64_t offset,
		const void *data, uint32_t len)
{
	pthread_mutex_lock(&t->lock);
	memcpy(to + offset, data, within(offset, len, bytes));
	pthread_mutex_unlock(&t->lock);
}

static void echo_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct test_device *t = ctx;

	get(t, t->echo, ECHO_BYTES, offset, data, len);
}

static void echo_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct test_device *t = ctx;

	put(t, t->echo, ECHO_BYTES, offset, data, len);
}

static void memory_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct test_device *t = ctx;

	get(t, t->memory, MEMORY_BYTES, offset, data, len);
}

static void memory_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct test_device *t = ctx;

	put(t, t->memory, MEMORY_BYTES, offset, data, len);
}

/* --- flushing a page, driving a line --- */

static void nothing_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	(void)ctx;
	(void)offset;
	memset(data, 0, len);
}

/* Unmapping here makes KVM unmap the page there (its MMU notifier). Guest memory is a shared file,
 * so that loses nothing, and another thread that touches the page just faults it in again: QEMU's
 * mprotect() would kill it. */
static void flush_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct test_device *t = ctx;
	uint32_t address = 0;
	void *page;

	(void)offset;
	memcpy(&address, data, len < sizeof(address) ? len : sizeof(address));
	page = guest_mem_at_rw(t->m->mem, address & ~(uint32_t)(PAGE_BYTES - 1), PAGE_BYTES);
	if (page)
		madvise(page, PAGE_BYTES, MADV_DONTNEED);
}

static void line_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct test_device *t = ctx;
	uint8_t any = 0;

	for (uint32_t i = 0; i < len; i++)
		any |= ((const uint8_t *)data)[i];
	pthread_mutex_lock(&t->lock);
	irq_line_set(&t->lines[offset], any);
	pthread_mutex_unlock(&t->lock);
}

/* --- device --- */

static void test_reset(struct device *d)
{
	struct test_device *t = to_test(d);

	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 0; i < NR_LINES; i++)
		irq_line_set(&t->lines[i], false);
	memset(t->echo, 0, sizeof(t->echo));
	memset(t->memory, 0, sizeof(t->memory));
	pthread_mutex_unlock(&t->lock);
}

static int test_save(const struct device *d, struct buf *out, struct err *e)
{
	const struct test_device *t = (const struct test_device *)d;
	Godwit__TestDeviceState s = GODWIT__TEST_DEVICE_STATE__INIT;

	s.has_echo = s.has_lines = s.has_memory = true;
	memcpy(&s.echo, t->echo, sizeof(s.echo));
	for (uint32_t i = 0; i < NR_LINES; i++)
		s.lines |= (uint32_t)t->lines[i].level << i;
	s.memory =
		(ProtobufCBinaryData){.len = MEMORY_BYTES, .data = (uint8_t *)(uintptr_t)t->memory};
	return state_message_pack(&s.base, out, e);
}

static const struct state_limit test_limits[] = {
	{"lines", (1u << NR_LINES) - 1}, {"memory", MEMORY_BYTES}, {NULL, 0}};

static void assign(struct test_device *t, const Godwit__TestDeviceState *s)
{
	memcpy(t->echo, &s->echo, sizeof(t->echo));
	memcpy(t->memory, s->memory.data, MEMORY_BYTES);
	for (uint32_t i = 0; i < NR_LINES; i++)
		irq_line_load(&t->lines[i], s->lines >> i & 1);
}

static int test_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		     struct err *e)
{
	struct test_device *t = to_test(d);
	const Godwit__TestDeviceState *s;
	ProtobufCMessage *msg;
	int ret;

	(void)version;
	ret = state_message_unpack(d->ops->type, &godwit__test_device_state__descriptor,
				   test_limits, data, len, &msg, e);
	if (ret)
		return ret;
	s = (const Godwit__TestDeviceState *)msg;
	if (s->memory.len != MEMORY_BYTES) {
		ret = err_set(e, ERR_STREAM, EINVAL, "test-device state: %zu bytes of memory",
			      s->memory.len);
	} else {
		pthread_mutex_lock(&t->lock);
		assign(t, s);
		pthread_mutex_unlock(&t->lock);
	}
	protobuf_c_message_free_unpacked(msg, NULL);
	return ret;
}

static void test_free(struct device *d)
{
	struct test_device *t = to_test(d);

	pthread_mutex_destroy(&t->lock);
	free(t);
}

static const struct dev_ops test_ops = {
	.type = "test-device",
	.state_version = 1,
	.oldest_loadable = 1,
	.reset = test_reset,
	.save = test_save,
	.load = test_load,
	.free = test_free,
};

static const struct {
	enum bus_space space;
	uint32_t base, len;
	const char *name;
	struct bus_ops ops;
} ranges[] = {
	{BUS_PIO, BOARD_TEST_ECHO_PORT, ECHO_BYTES, "test echo", {echo_read, echo_write}},
	{BUS_PIO, BOARD_TEST_FLUSH_PORT, 4, "test flush", {nothing_read, flush_write}},
	{BUS_PIO, BOARD_TEST_LINES_PORT, NR_LINES, "test lines", {nothing_read, line_write}},
	{BUS_MMIO, BOARD_TEST_MEMORY, MEMORY_BYTES, "test memory", {memory_read, memory_write}},
};

int test_device_new(const struct machine *m, struct device **out, struct err *e)
{
	struct test_device *t = calloc(1, sizeof(*t));
	int ret = 0;

	if (!t)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for the test device");
	t->dev.ops = &test_ops;
	t->m = m;
	pthread_mutex_init(&t->lock, NULL);
	for (uint32_t i = 0; i < NR_LINES; i++)
		t->lines[i] = (struct irq_line){.m = m, .gsi = i};
	for (size_t i = 0; ret == 0 && i < sizeof(ranges) / sizeof(ranges[0]); i++)
		ret = bus_add(m->bus, ranges[i].space, ranges[i].base, ranges[i].len,
			      ranges[i].name, &ranges[i].ops, t, e);
	if (ret) {
		test_free(&t->dev);
		return ret;
	}
	*out = &t->dev;
	return 0;
}
