/*
 * Example: a device (docs/extending.md). `scratch` is one 32-bit register at port 0x520 that the
 * guest reads and writes, and that survives a migration.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/dev/fake_machine.h"

#define SCRATCH_PORT  0x520
#define SCRATCH_BYTES 4

struct scratch {
	struct device dev;    /* first */
	pthread_mutex_t lock; /* guards the rest: vCPUs come at once */
	uint8_t bytes[SCRATCH_BYTES];
};

static struct scratch *self(struct device *d)
{
	return (struct scratch *)d;
}

static void scratch_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct scratch *s = ctx;

	memset(data, 0xff, len);
	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < len && offset + i < SCRATCH_BYTES; i++)
		((uint8_t *)data)[i] = s->bytes[offset + i];
	pthread_mutex_unlock(&s->lock);
}

static void scratch_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct scratch *s = ctx;

	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < len && offset + i < SCRATCH_BYTES; i++)
		s->bytes[offset + i] = ((const uint8_t *)data)[i];
	pthread_mutex_unlock(&s->lock);
}

static void scratch_reset(struct device *d)
{
	memset(self(d)->bytes, 0, SCRATCH_BYTES);
}

/* A device with more than one field uses a message of proto/device.proto and
 * vmm/dev/state_message.h; four bytes need none. */
static int scratch_save(const struct device *d, struct buf *out, struct err *e)
{
	return buf_append(out, ((const struct scratch *)d)->bytes, SCRATCH_BYTES, e);
}

/* Check everything, then assign: a load that fails changes nothing. */
static int scratch_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
			struct err *e)
{
	(void)version; /* the VM has checked it against oldest_loadable and state_version */
	if (len != SCRATCH_BYTES)
		return err_set(e, ERR_STREAM, EBADMSG, "scratch: %zu bytes of state", len);
	memcpy(self(d)->bytes, data, SCRATCH_BYTES);
	return 0;
}

static void scratch_free(struct device *d)
{
	pthread_mutex_destroy(&self(d)->lock);
	free(self(d));
}

static const struct dev_ops scratch_ops = {
	.type = "scratch",
	.state_version = 1,
	.oldest_loadable = 1,
	.reset = scratch_reset,
	/* no quiesce: it has no thread and touches no guest memory */
	.save = scratch_save,
	.load = scratch_load,
	.free = scratch_free,
};

static const struct bus_ops scratch_bus_ops = {.read = scratch_read, .write = scratch_write};

static int scratch_new(const struct machine *m, struct device **out, struct err *e)
{
	struct scratch *s = calloc(1, sizeof(*s));

	if (!s)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for scratch");
	s->dev.ops = &scratch_ops;
	pthread_mutex_init(&s->lock, NULL);
	if (bus_add(m->bus, BUS_PIO, SCRATCH_PORT, SCRATCH_BYTES, "scratch", &scratch_bus_ops, s,
		    e) < 0) {
		scratch_free(&s->dev);
		return -e->code;
	}
	*out = &s->dev;
	return 0;
}

/* ---- The test ---- */

static void test_the_value_moves_with_the_guest(void **state)
{
	struct fake_machine here;
	struct fake_machine there;
	struct device *a = NULL;
	struct device *b = NULL;
	struct err e = ERR_INIT;

	(void)state;
	fake_init(&here);
	fake_init(&there);
	assert_int_equal(scratch_new(&here.m, &a, &e), 0);
	assert_int_equal(scratch_new(&there.m, &b, &e), 0);
	io_out(&here, SCRATCH_PORT, 0x12345678, 4);
	assert_int_equal(inb(&here, SCRATCH_PORT + 1), 0x56);
	dev_migrate(&here, a, &there, b);
	assert_int_equal(io_in(&there, SCRATCH_PORT, 4), 0x12345678);
	a->ops->reset(a);
	assert_int_equal(io_in(&here, SCRATCH_PORT, 4), 0);
	a->ops->free(a);
	b->ops->free(b);
	fake_fini(&here);
	fake_fini(&there);
}

static void test_bad_state_changes_nothing(void **state)
{
	const uint8_t three[3] = {1, 2, 3};
	struct fake_machine f;
	struct device *d = NULL;
	struct err e = ERR_INIT;

	(void)state;
	fake_init(&f);
	assert_int_equal(scratch_new(&f.m, &d, &e), 0);
	io_out(&f, SCRATCH_PORT, 0xcafe, 4);
	assert_true(d->ops->load(d, 1, three, sizeof(three), &e) < 0);
	assert_int_equal(io_in(&f, SCRATCH_PORT, 4), 0xcafe);
	d->ops->free(d);
	fake_fini(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_value_moves_with_the_guest),
		cmocka_unit_test(test_bad_state_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
