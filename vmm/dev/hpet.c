/*
 * The High Precision Event Timers (IA-PC HPET specification 1.0a): a 64-bit counter of 100 MHz and
 * three comparators, each one-shot or periodic, edge- or level-triggered, on interrupt lines 20 to
 * 23. Neither legacy replacement routing nor message interrupts; both are optional. Linux does not
 * see it (there is no ACPI table for it): it is there for kvm-unit-tests, which know its address.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "proto/device.pb-c.h"
#include "vmm/base/clock.h"
#include "vmm/dev/dev_timer.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/irq_line.h"
#include "vmm/dev/state_message.h"
#include "vmm/guest_time.h"

#define NR_COMPARATORS 3u
#define HPET_BYTES     0x400
#define NS_PER_TICK    10u
/* Table 2: revision 1, 64-bit counter, vendor Intel, period in femtoseconds. */
#define CAPABILITIES \
	(0x8086a001ull | (uint64_t)(NR_COMPARATORS - 1) << 8 | NS_PER_TICK * 1000000ull << 32)

enum hpet_register { /* 2.3.1 */
	REG_CAPABILITIES = 0x000,
	REG_CONFIG = 0x010,
	REG_STATUS = 0x020,
	REG_COUNTER = 0x0f0,
	REG_FIRST_COMPARATOR = 0x100,
};
#define COMPARATOR_STRIDE 0x20
#define COMPARATOR_CONFIG 0x00
#define COMPARATOR_VALUE  0x08

#define CONFIG_ENABLE 1u

/* 2.3.8, timer n configuration and capabilities */
#define CMP_LEVEL       0x0002u
#define CMP_ENABLE      0x0004u
#define CMP_PERIODIC    0x0008u
#define CMP_SET_VALUE   0x0040u /* the next write of the comparator also sets an accumulator */
#define CMP_32_BIT      0x0100u
#define CMP_ROUTE       0x3e00u
#define CMP_ROUTE_SHIFT 9
#define CMP_STORED      (CMP_LEVEL | CMP_ENABLE | CMP_PERIODIC | CMP_SET_VALUE | CMP_32_BIT | CMP_ROUTE)
#define CMP_FIRST_LINE  20u
#define CMP_NR_LINES    4u
/* Periodic, 64 bits wide, lines 20 to 23. */
#define CMP_CAPABILITIES (0x0030ull | 0x00f00000ull << 32)

/* A guest may ask for a tick every 10 ns; this thread does not wake up more often than so. */
#define MIN_SLEEP_NS 20000u

struct comparator {
	uint32_t config;
	uint64_t value;
	uint64_t period; /* 0: not periodic, or not set yet */
	bool armed;      /* the match lies ahead */
};

/* What the counter said at a moment of CLOCK_REALTIME, which two hosts have in common. */
struct hpet_instant {
	uint64_t ticks;
	uint64_t realtime_ns;
};

struct hpet {
	struct device dev;

	/* immutable after new */
	const struct machine *m;
	struct dev_timer *timer;

	pthread_mutex_t lock; /* before the timer's own */
	/* guarded by lock */
	bool enabled;
	uint32_t status;
	/* The counter said start_ticks at start_ns (CLOCK_MONOTONIC); it counts while enabled, and
	 * through pauses and migrations as the PM timer does. */
	uint64_t start_ticks, start_ns;
	struct comparator cmp[NR_COMPARATORS];
	struct irq_line lines[CMP_NR_LINES];
	struct hpet_instant saved; /* while quiesced: what save writes */
	bool quiesced;
};

static struct hpet *to_hpet(struct device *d)
{
	return (struct hpet *)d;
}

/* --- counter and comparators --- */

static uint64_t ticks_now(const struct hpet *h)
{
	if (!h->enabled)
		return h->start_ticks;
	return h->start_ticks + (clock_now_ns() - h->start_ns) / NS_PER_TICK;
}

static void start_at(struct hpet *h, uint64_t ticks)
{
	h->start_ticks = ticks;
	h->start_ns = clock_now_ns();
}

static uint64_t width_mask(const struct comparator *c)
{
	return c->config & CMP_32_BIT ? UINT32_MAX : UINT64_MAX;
}

/* Ticks until the match; those of a match just missed are more than half of what there is. */
static uint64_t ticks_left(const struct comparator *c, uint64_t now)
{
	return (c->value - now) & width_mask(c);
}

static bool has_passed(const struct comparator *c, uint64_t now)
{
	uint64_t left = ticks_left(c, now);

	return left == 0 || left > width_mask(c) / 2;
}

/* Of h->lines; CMP_NR_LINES: routed to none of them. */
static uint32_t line_of(const struct comparator *c)
{
	uint32_t gsi = (c->config & CMP_ROUTE) >> CMP_ROUTE_SHIFT;

	if (gsi < CMP_FIRST_LINE || gsi >= CMP_FIRST_LINE + CMP_NR_LINES)
		return CMP_NR_LINES;
	return gsi - CMP_FIRST_LINE;
}

/* Level-triggered comparators that share a line hold it high together. */
static bool line_is_high(const struct hpet *h, uint32_t line)
{
	for (uint32_t i = 0; i < NR_COMPARATORS; i++)
		if (h->status & 1u << i && h->cmp[i].config & CMP_ENABLE &&
		    line_of(&h->cmp[i]) == line)
			return true;
	return false;
}

static void update_lines(struct hpet *h)
{
	for (uint32_t i = 0; i < CMP_NR_LINES; i++)
		irq_line_set(&h->lines[i], line_is_high(h, i));
}

static void raise(struct hpet *h, uint32_t i)
{
	const struct comparator *c = &h->cmp[i];
	uint32_t line = line_of(c);

	if (c->config & CMP_LEVEL) {
		h->status |= 1u << i;
		return; /* the caller updates the lines */
	}
	if (line == CMP_NR_LINES || !(c->config & CMP_ENABLE))
		return;
	irq_line_set(&h->lines[line], true);
	irq_line_set(&h->lines[line], false);
}

/* However many periods were missed, they are one interrupt. */
static void match(struct hpet *h, uint32_t i, uint64_t now)
{
	struct comparator *c = &h->cmp[i];

	raise(h, i);
	if (!(c->config & CMP_PERIODIC) || !c->period) {
		c->armed = false;
		return;
	}
	c->value += ((now - c->value) & width_mask(c)) / c->period * c->period + c->period;
	c->value &= width_mask(c);
}

static void arm_timer(struct hpet *h, uint64_t now)
{
	uint64_t left = UINT64_MAX, sleep_ns;

	for (uint32_t i = 0; i < NR_COMPARATORS; i++)
		if (h->cmp[i].armed && ticks_left(&h->cmp[i], now) < left)
			left = ticks_left(&h->cmp[i], now);
	/* Beyond a few centuries: never. */
	if (!h->enabled || h->quiesced || left > INT64_MAX / NS_PER_TICK) {
		dev_timer_set(h->timer, DEV_TIMER_NEVER);
		return;
	}
	sleep_ns = left * NS_PER_TICK;
	dev_timer_set(h->timer,
		      clock_now_ns() + (sleep_ns < MIN_SLEEP_NS ? MIN_SLEEP_NS : sleep_ns));
}

static void match_all(struct hpet *h, uint64_t now)
{
	for (uint32_t i = 0; h->enabled && i < NR_COMPARATORS; i++)
		if (h->cmp[i].armed && has_passed(&h->cmp[i], now))
			match(h, i, now);
}

/* Bring matches, lines and the timer up to date. */
static void look(struct hpet *h)
{
	uint64_t now = ticks_now(h);

	match_all(h, now);
	update_lines(h);
	arm_timer(h, now);
}

/* On the timer's thread. */
static void hpet_fire(void *ctx)
{
	struct hpet *h = ctx;

	pthread_mutex_lock(&h->lock);
	if (!h->quiesced)
		look(h);
	pthread_mutex_unlock(&h->lock);
}

/* --- registers, as 64-bit words --- */

static struct comparator *comparator_at(struct hpet *h, uint64_t reg)
{
	uint64_t i = (reg - REG_FIRST_COMPARATOR) / COMPARATOR_STRIDE;

	return reg >= REG_FIRST_COMPARATOR && i < NR_COMPARATORS ? &h->cmp[i] : NULL;
}

static uint64_t read_comparator(const struct comparator *c, uint64_t reg)
{
	switch (reg % COMPARATOR_STRIDE) {
	case COMPARATOR_CONFIG:
		return CMP_CAPABILITIES | c->config;
	case COMPARATOR_VALUE:
		return c->value;
	default:
		return 0;
	}
}

static uint64_t read_register(struct hpet *h, uint64_t reg)
{
	const struct comparator *c = comparator_at(h, reg);

	if (c)
		return read_comparator(c, reg);
	switch ((enum hpet_register)reg) {
	case REG_CAPABILITIES:
		return CAPABILITIES;
	case REG_CONFIG:
		return h->enabled ? CONFIG_ENABLE : 0;
	case REG_STATUS:
		return h->status;
	case REG_COUNTER:
		return ticks_now(h);
	default:
		return 0;
	}
}

/* 2.3.9.2.2: in periodic mode a write sets the period, and the next match only when software has
 * said so with CMP_SET_VALUE. */
static void write_value(struct comparator *c, uint64_t value)
{
	if (c->config & CMP_PERIODIC)
		c->period = value & width_mask(c);
	if (!(c->config & CMP_PERIODIC) || c->config & CMP_SET_VALUE)
		c->value = value & width_mask(c);
	c->config &= ~CMP_SET_VALUE;
	c->armed = true;
}

static void write_comparator(struct hpet *h, struct comparator *c, uint64_t reg, uint64_t value)
{
	if (reg % COMPARATOR_STRIDE == COMPARATOR_VALUE)
		write_value(c, value);
	if (reg % COMPARATOR_STRIDE != COMPARATOR_CONFIG)
		return;
	c->config = (uint32_t)value & CMP_STORED;
	c->value &= width_mask(c);
	if (!(c->config & CMP_PERIODIC))
		c->period = 0;
	if (!(c->config & CMP_LEVEL))
		h->status &= ~(1u << (c - h->cmp));
}

/* @mask: the bits that were written. Status bits are cleared by writing ones. */
static void write_register(struct hpet *h, uint64_t reg, uint64_t value, uint64_t mask)
{
	struct comparator *c = comparator_at(h, reg);
	uint64_t now = ticks_now(h);

	match_all(h, now); /* what was due comes first, whether or not the timer has run by now */
	if (c)
		write_comparator(h, c, reg, value);
	else if (reg == REG_STATUS)
		h->status &= ~(uint32_t)(value & mask);
	else if (reg == REG_COUNTER && !h->enabled)
		h->start_ticks = value;
	else if (reg == REG_CONFIG && h->enabled != (value & CONFIG_ENABLE)) {
		h->enabled = value & CONFIG_ENABLE;
		start_at(h, now);
	}
	look(h);
}

/* --- the bus --- */

static void hpet_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct hpet *h = ctx;
	uint64_t value;

	pthread_mutex_lock(&h->lock);
	value = read_register(h, offset & ~7ull) >> 8 * (offset & 7);
	pthread_mutex_unlock(&h->lock);
	memset(data, 0, len);
	memcpy(data, &value, len < sizeof(value) ? len : sizeof(value));
}

/* 2.3.2: accesses are 32 or 64 bits wide and aligned. */
static void hpet_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct hpet *h = ctx;
	uint64_t value = 0, mask = len == 8 ? UINT64_MAX : UINT32_MAX, old;
	uint32_t shift = 8 * (offset & 7);

	if ((len != 4 && len != 8) || offset % len)
		return;
	memcpy(&value, data, len);
	pthread_mutex_lock(&h->lock);
	old = read_register(h, offset & ~7ull) & ~(mask << shift);
	write_register(h, offset & ~7ull, old | value << shift, mask << shift);
	pthread_mutex_unlock(&h->lock);
}

/* --- device --- */

static void power_on(struct hpet *h)
{
	h->enabled = false;
	h->status = 0;
	start_at(h, 0);
	for (uint32_t i = 0; i < NR_COMPARATORS; i++)
		h->cmp[i] = (struct comparator){.value = UINT64_MAX}; /* 2.3.9 */
}

static struct hpet_instant present(const struct hpet *h)
{
	return (struct hpet_instant){ticks_now(h), guest_time_realtime_ns()};
}

static void hpet_reset(struct device *d)
{
	struct hpet *h = to_hpet(d);

	pthread_mutex_lock(&h->lock);
	power_on(h);
	h->saved = present(h);
	look(h);
	pthread_mutex_unlock(&h->lock);
}

static int hpet_quiesce(struct device *d, struct err *e)
{
	struct hpet *h = to_hpet(d);

	(void)e;
	pthread_mutex_lock(&h->lock);
	look(h);
	h->saved = present(h);
	h->quiesced = true;
	dev_timer_set(h->timer, DEV_TIMER_NEVER);
	pthread_mutex_unlock(&h->lock);
	return 0;
}

static void hpet_unquiesce(struct device *d)
{
	struct hpet *h = to_hpet(d);

	pthread_mutex_lock(&h->lock);
	h->quiesced = false;
	look(h);
	pthread_mutex_unlock(&h->lock);
}

/* A comparator as it travels: little endian, as all of the stream. */
struct comparator_bytes {
	uint64_t value, period;
	uint32_t config, armed;
};
_Static_assert(sizeof(struct comparator_bytes) == 24, "HpetState.comparators");
#define ALL_COMPARATORS_BYTES (NR_COMPARATORS * sizeof(struct comparator_bytes))

static int hpet_save(const struct device *d, struct buf *out, struct err *e)
{
	const struct hpet *h = (const struct hpet *)d;
	Godwit__HpetState s = GODWIT__HPET_STATE__INIT;
	struct hpet_instant saved = h->quiesced ? h->saved : present(h);
	struct comparator_bytes c[NR_COMPARATORS];

	for (uint32_t i = 0; i < NR_COMPARATORS; i++)
		c[i] = (struct comparator_bytes){h->cmp[i].value, h->cmp[i].period,
						 h->cmp[i].config, h->cmp[i].armed};
	s.has_enabled = s.has_status = s.has_counter = s.has_counter_realtime_ns = true;
	s.has_comparators = true;
	s.enabled = h->enabled;
	s.status = h->status;
	s.counter = saved.ticks;
	s.counter_realtime_ns = saved.realtime_ns;
	s.comparators = (ProtobufCBinaryData){sizeof(c), (uint8_t *)c};
	return state_message_pack(&s.base, out, e);
}

static const struct state_limit hpet_limits[] = {
	{"status", (1u << NR_COMPARATORS) - 1},
	{"comparators", ALL_COMPARATORS_BYTES},
	{NULL, 0},
};

static bool sound(const struct comparator_bytes *c)
{
	const struct comparator like = {.config = c->config};

	return !(c->config & ~CMP_STORED) && c->armed <= 1 &&
	       (c->value & ~width_mask(&like)) == 0 && (c->period & ~width_mask(&like)) == 0 &&
	       (!c->period || c->config & CMP_PERIODIC);
}

static int check_hpet(const Godwit__HpetState *s, struct comparator_bytes c[NR_COMPARATORS],
		      struct err *e)
{
	if (s->comparators.len != ALL_COMPARATORS_BYTES)
		return err_set(e, ERR_STREAM, EINVAL, "hpet state: %zu bytes of comparators",
			       s->comparators.len);
	memcpy(c, s->comparators.data, ALL_COMPARATORS_BYTES);
	for (uint32_t i = 0; i < NR_COMPARATORS; i++)
		if (!sound(&c[i]) || (s->status & 1u << i && !(c[i].config & CMP_LEVEL)))
			return err_set(e, ERR_STREAM, EINVAL,
				       "hpet state: comparator %u is impossible (config 0x%x)", i,
				       c[i].config);
	return 0;
}

static void assign(struct hpet *h, const Godwit__HpetState *s, const struct comparator_bytes *c)
{
	uint64_t away_ns = s->enabled ? guest_time_away_ns(s->counter_realtime_ns) : 0;

	for (uint32_t i = 0; i < NR_COMPARATORS; i++)
		h->cmp[i] = (struct comparator){.config = c[i].config,
						.value = c[i].value,
						.period = c[i].period,
						.armed = c[i].armed};
	h->enabled = s->enabled;
	h->status = s->status;
	h->saved = (struct hpet_instant){s->counter, s->counter_realtime_ns};
	start_at(h, s->counter + away_ns / NS_PER_TICK);
	h->quiesced = true; /* until unquiesce, so that what is loaded stays what was saved */
	for (uint32_t i = 0; i < CMP_NR_LINES; i++)
		irq_line_load(&h->lines[i], line_is_high(h, i));
	dev_timer_set(h->timer, DEV_TIMER_NEVER);
}

static int hpet_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		     struct err *e)
{
	struct hpet *h = to_hpet(d);
	struct comparator_bytes c[NR_COMPARATORS];
	ProtobufCMessage *msg;
	int ret;

	(void)version;
	ret = state_message_unpack(d->ops->type, &godwit__hpet_state__descriptor, hpet_limits, data,
				   len, &msg, e);
	if (ret)
		return ret;
	ret = check_hpet((const Godwit__HpetState *)msg, c, e);
	if (!ret) {
		pthread_mutex_lock(&h->lock);
		assign(h, (const Godwit__HpetState *)msg, c);
		pthread_mutex_unlock(&h->lock);
	}
	protobuf_c_message_free_unpacked(msg, NULL);
	return ret;
}

static void hpet_free(struct device *d)
{
	struct hpet *h = to_hpet(d);

	dev_timer_free(h->timer);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

static const struct dev_ops hpet_ops = {
	.type = "hpet",
	.state_version = 1,
	.oldest_loadable = 1,
	.reset = hpet_reset,
	.quiesce = hpet_quiesce,
	.unquiesce = hpet_unquiesce,
	.save = hpet_save,
	.load = hpet_load,
	.free = hpet_free,
};

static const struct bus_ops hpet_bus_ops = {.read = hpet_read, .write = hpet_write};

int hpet_new(const struct machine *m, struct device **out, struct err *e)
{
	struct hpet *h = calloc(1, sizeof(*h));
	int ret;

	if (!h)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for the HPET");
	h->dev.ops = &hpet_ops;
	h->m = m;
	pthread_mutex_init(&h->lock, NULL);
	for (uint32_t i = 0; i < CMP_NR_LINES; i++)
		h->lines[i] = (struct irq_line){.m = m, .gsi = CMP_FIRST_LINE + i};
	power_on(h);
	ret = dev_timer_new("hpet", hpet_fire, h, &h->timer, e);
	if (!ret)
		ret = bus_add(m->bus, BUS_MMIO, BOARD_HPET, HPET_BYTES, "HPET", &hpet_bus_ops, h,
			      e);
	if (ret) {
		hpet_free(&h->dev);
		return ret;
	}
	*out = &h->dev;
	return 0;
}
