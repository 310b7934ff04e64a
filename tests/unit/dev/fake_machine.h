/* A machine without KVM for device tests: a real bus and real guest memory; interrupt lines and
 * requests are recorded. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/base/clock.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/serial_backend.h"

#define FAKE_NR_GSI       24
#define FAKE_MEMORY_BYTES (64ull << 20)

struct fake_machine {
	struct machine m;
	/* Atomic: back-end and timer threads drive lines too. */
	int level[FAKE_NR_GSI];
	int nr_raised[FAKE_NR_GSI];
	int nr_requests;
	enum machine_request request;
	int code;
};

static inline void fake_set_irq(void *ctx, uint32_t gsi, bool level)
{
	struct fake_machine *f = ctx;

	assert_true(gsi < FAKE_NR_GSI);
	if (level && !__atomic_load_n(&f->level[gsi], __ATOMIC_ACQUIRE))
		__atomic_add_fetch(&f->nr_raised[gsi], 1, __ATOMIC_ACQ_REL);
	__atomic_store_n(&f->level[gsi], level, __ATOMIC_RELEASE);
}

static inline void fake_request(void *ctx, enum machine_request what, int code)
{
	struct fake_machine *f = ctx;

	f->nr_requests++;
	f->request = what;
	f->code = code;
}

static inline void fake_init_with(struct fake_machine *f, uint64_t memory_bytes)
{
	struct err e = ERR_INIT;

	*f = (struct fake_machine){.m = {.set_irq = fake_set_irq, .request = fake_request}};
	f->m.ctx = f;
	assert_int_equal(bus_new(&f->m.bus, &e), 0);
	assert_int_equal(guest_mem_new(memory_bytes, &f->m.mem, &e), 0);
}

static inline void fake_init(struct fake_machine *f)
{
	fake_init_with(f, FAKE_MEMORY_BYTES);
}

static inline void fake_fini(struct fake_machine *f)
{
	bus_free(f->m.bus);
	guest_mem_free(f->m.mem);
}

static inline bool fake_line(struct fake_machine *f, uint32_t gsi)
{
	return __atomic_load_n(&f->level[gsi], __ATOMIC_ACQUIRE);
}

static inline int fake_raised(struct fake_machine *f, uint32_t gsi)
{
	return __atomic_load_n(&f->nr_raised[gsi], __ATOMIC_ACQUIRE);
}

static inline bool fake_wait_line(struct fake_machine *f, uint32_t gsi, bool level,
				  uint64_t timeout_ns)
{
	uint64_t end = clock_now_ns() + timeout_ns;

	while (fake_line(f, gsi) != level && clock_now_ns() < end)
		clock_sleep_until_ns(clock_now_ns() + NS_PER_MS);
	return fake_line(f, gsi) == level;
}

static inline bool fake_wait_raised(struct fake_machine *f, uint32_t gsi, int nr,
				    uint64_t timeout_ns)
{
	uint64_t end = clock_now_ns() + timeout_ns;

	while (fake_raised(f, gsi) < nr && clock_now_ns() < end)
		clock_sleep_until_ns(clock_now_ns() + NS_PER_MS);
	return fake_raised(f, gsi) >= nr;
}

static inline uint32_t io_in(struct fake_machine *f, uint16_t port, uint32_t len)
{
	uint32_t value = 0;

	bus_read(f->m.bus, BUS_PIO, port, &value, len);
	return value;
}

static inline void io_out(struct fake_machine *f, uint16_t port, uint32_t value, uint32_t len)
{
	bus_write(f->m.bus, BUS_PIO, port, &value, len);
}

static inline uint8_t inb(struct fake_machine *f, uint16_t port)
{
	return (uint8_t)io_in(f, port, 1);
}

static inline void outb(struct fake_machine *f, uint16_t port, uint8_t value)
{
	io_out(f, port, value, 1);
}

static inline void dev_save(const struct device *d, struct buf *out)
{
	struct err e = ERR_INIT;

	buf_reset(out);
	assert_int_equal(d->ops->save(d, out, &e), 0);
}

static inline int dev_load(struct device *d, const struct buf *state, struct err *e)
{
	return d->ops->load(d, d->ops->state_version, state->data, state->len, e);
}

/* The interrupt controllers' state, which a migration loads before the devices'. */
static inline void fake_copy_lines(const struct fake_machine *from, struct fake_machine *to)
{
	memcpy(to->level, from->level, sizeof(to->level));
}

/* As a migration does it: quiesce, save, load into @to, unquiesce there. Checks that what was
 * loaded saves to the same bytes, and that loading raises no interrupt. */
static inline void dev_migrate(struct fake_machine *f, struct device *from, struct fake_machine *g,
			       struct device *to)
{
	int nr_raised[FAKE_NR_GSI];

	struct buf a = BUF_INIT;
	struct buf b = BUF_INIT;
	struct err e = ERR_INIT;

	if (from->ops->quiesce)
		assert_int_equal(from->ops->quiesce(from, &e), 0);
	dev_save(from, &a);
	fake_copy_lines(f, g);
	memcpy(nr_raised, g->nr_raised, sizeof(nr_raised));
	assert_int_equal(dev_load(to, &a, &e), 0);
	assert_memory_equal(nr_raised, g->nr_raised, sizeof(nr_raised));
	assert_memory_equal(f->level, g->level, sizeof(g->level));
	dev_save(to, &b);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	if (to->ops->unquiesce)
		to->ops->unquiesce(to);
	buf_fini(&a);
	buf_fini(&b);
}
