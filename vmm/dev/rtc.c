/*
 * MC146818A real-time clock and CMOS memory (Motorola datasheet). Guest time is the host's
 * CLOCK_REALTIME plus an offset that changes only when the guest sets its clock, so it needs no
 * ticking: registers are computed when read, and flags for whatever lies between the last look and
 * now. The timer thread only looks often enough for the interrupts that are enabled. The weekday
 * follows from the date; what the guest writes there is ignored.
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
#include "vmm/dev/rtc_time.h"
#include "vmm/dev/state_message.h"

#define A_UIP           0x80
#define A_DIVIDER_RESET 0x60 /* DV2 and DV1: 11x holds the divider chain in reset */
#define A_RATE          0x0f
#define A_POWER_ON      0x26 /* 32768 Hz crystal, 1024 Hz periodic rate */

#define C_UF     0x10
#define C_AF     0x20
#define C_PF     0x40
#define C_IRQF   0x80
#define C_EVENTS (C_UF | C_AF | C_PF)

#define D_VALID 0x80 /* VRT: the battery is fine */

#define CRYSTAL_HZ       32768u
#define UIP_LEAD_NS      244000u /* t_BUC: UIP rises 244 us before the update */
#define DIVIDER_START_NS 500000000u
#define SECONDS_PER_DAY  86400
/* The guest's clock stays within what four digits of a year can say, from 0000 to about 18000 when
 * it writes digits that are none. */
#define OFFSET_LIMIT_S (1ll << 40)

struct rtc {
	struct device dev;

	/* immutable after new */
	struct dev_timer *timer;
	void (*alarm)(void *ctx); /* may be NULL */
	void *alarm_ctx;

	pthread_mutex_t lock; /* before the timer's own */
	/* guarded by lock */
	uint8_t index;
	uint8_t nvram[RTC_NVRAM_BYTES];
	struct rtc_time offset;    /* guest time - CLOCK_REALTIME */
	struct rtc_time evaluated; /* register C holds all events up to this guest time */
	struct irq_line irq;
	bool quiesced;
};

static struct rtc *to_rtc(struct device *d)
{
	return (struct rtc *)d;
}

static struct rtc_time host_time(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (struct rtc_time){.s = ts.tv_sec, .ns = (uint32_t)ts.tv_nsec};
}

static struct rtc_time guest_time(const struct rtc *r)
{
	return rtc_time_add(host_time(), r->offset);
}

static bool divider_reset(const struct rtc *r)
{
	return (r->nvram[RTC_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

/* Time stands still, and the registers are plain memory. */
static bool halted(const struct rtc *r)
{
	return (r->nvram[RTC_B] & RTC_B_SET) || divider_reset(r);
}

static void latch_time(struct rtc *r)
{
	rtc_encode(r->nvram, guest_time(r).s);
}

/* Guest time is now what the registers say, @ns into the second. */
static void set_time(struct rtc *r, uint32_t ns)
{
	struct rtc_time t = {.s = rtc_decode(r->nvram), .ns = ns};

	r->offset = rtc_time_sub(t, host_time());
	r->evaluated = t;
}

/* --- events --- */

static void update_irq(struct rtc *r)
{
	bool level = r->nvram[RTC_C] & r->nvram[RTC_B] & C_EVENTS;

	if (level)
		r->nvram[RTC_C] |= C_IRQF;
	else
		r->nvram[RTC_C] &= (uint8_t)~C_IRQF;
	irq_line_set(&r->irq, level);
}

/* Periods of the periodic interrupt are 2^shift crystal cycles; -1: it is off (table 5: rates 1 and
 * 2 are those of 8 and 9). */
static int periodic_shift(const struct rtc *r)
{
	int rate = r->nvram[RTC_A] & A_RATE;

	if (!rate || divider_reset(r))
		return -1;
	return rate < 3 ? rate + 6 : rate - 1;
}

static int64_t crystal_cycles(struct rtc_time t)
{
	return t.s * CRYSTAL_HZ + (int64_t)((uint64_t)t.ns * CRYSTAL_HZ / NS_PER_S);
}

static bool alarm_between(const struct rtc *r, int64_t after, int64_t until)
{
	int64_t s = until - after > SECONDS_PER_DAY ? until - SECONDS_PER_DAY : after;

	while (s < until)
		if (rtc_alarm_matches(r->nvram, ++s))
			return true;
	return false;
}

static bool earlier(struct rtc_time a, struct rtc_time b)
{
	return a.s < b.s || (a.s == b.s && a.ns < b.ns);
}

/* Raise the flags of everything that happened since the last look. */
static void catch_up(struct rtc *r, struct rtc_time now)
{
	int shift = periodic_shift(r);
	uint8_t flags = 0;

	if (earlier(now, r->evaluated)) /* the host's clock was set back */
		r->evaluated = now;
	if (shift >= 0 && crystal_cycles(now) >> shift != crystal_cycles(r->evaluated) >> shift)
		flags |= C_PF;
	if (!halted(r) && now.s != r->evaluated.s) {
		flags |= C_UF;
		if (alarm_between(r, r->evaluated.s, now.s))
			flags |= C_AF;
	}
	r->evaluated = now;
	r->nvram[RTC_C] |= flags;
	update_irq(r);
	if (r->alarm && (flags & r->nvram[RTC_B] & C_AF))
		r->alarm(r->alarm_ctx);
}

static uint64_t ns_to_next_period(struct rtc_time now, int shift)
{
	int64_t next = ((crystal_cycles(now) >> shift) + 1) << shift;
	uint64_t cycles = (uint64_t)(next - now.s * CRYSTAL_HZ);

	/* Rounded up: the look must not come before the event. */
	return (cycles * NS_PER_S + CRYSTAL_HZ - 1) / CRYSTAL_HZ - now.ns;
}

/* When to look next. A flag that is set already cannot interrupt again before the guest reads
 * register C, and that read arms the timer anew. An alarm is looked for once a second. */
static void arm(struct rtc *r, struct rtc_time now)
{
	uint8_t wanted = r->nvram[RTC_B] & (uint8_t)~r->nvram[RTC_C];
	int shift = periodic_shift(r);
	uint64_t wait_ns = UINT64_MAX;

	if ((wanted & (RTC_B_UIE | RTC_B_AIE)) && !halted(r))
		wait_ns = NS_PER_S - now.ns;
	if ((wanted & RTC_B_PIE) && shift >= 0 && ns_to_next_period(now, shift) < wait_ns)
		wait_ns = ns_to_next_period(now, shift);
	if (r->quiesced || wait_ns == UINT64_MAX)
		dev_timer_set(r->timer, DEV_TIMER_NEVER);
	else
		dev_timer_set(r->timer, clock_now_ns() + wait_ns);
}

static void look(struct rtc *r)
{
	struct rtc_time now = guest_time(r);

	catch_up(r, now);
	arm(r, now);
}

/* On the timer's thread. */
static void rtc_fire(void *ctx)
{
	struct rtc *r = ctx;

	pthread_mutex_lock(&r->lock);
	if (!r->quiesced)
		look(r);
	pthread_mutex_unlock(&r->lock);
}

/* --- registers --- */

static uint8_t read_a(const struct rtc *r)
{
	bool uip = !halted(r) && guest_time(r).ns >= NS_PER_S - UIP_LEAD_NS;

	return (uint8_t)(r->nvram[RTC_A] | (uip ? A_UIP : 0));
}

static uint8_t read_c(struct rtc *r)
{
	uint8_t value;

	look(r);
	value = r->nvram[RTC_C];
	r->nvram[RTC_C] = 0;
	look(r); /* lowers the line and arms the timer for flags that are clear now */
	return value;
}

static uint8_t read_register(struct rtc *r)
{
	if (r->index == RTC_A)
		return read_a(r);
	if (r->index == RTC_C)
		return read_c(r);
	if (rtc_is_time_register(r->index) && !halted(r))
		latch_time(r);
	return r->nvram[r->index];
}

static void write_time(struct rtc *r, uint8_t value)
{
	if (halted(r)) {
		r->nvram[r->index] = value;
		return;
	}
	latch_time(r);
	r->nvram[r->index] = value;
	set_time(r, guest_time(r).ns);
}

/* Registers A and B: what halts the clock keeps its time in the registers, what starts it takes it
 * from there. */
static void write_control(struct rtc *r, uint8_t value)
{
	bool was_halted = halted(r);
	bool was_reset = divider_reset(r);

	if (!was_halted)
		latch_time(r);
	if (r->index == RTC_A)
		r->nvram[RTC_A] = value & (uint8_t)~A_UIP;
	else /* SET clears UIE */
		r->nvram[RTC_B] = value & RTC_B_SET ? value & (uint8_t)~RTC_B_UIE : value;
	/* The first update comes half a second after the divider is let go. */
	if (was_halted && !halted(r))
		set_time(r, was_reset ? DIVIDER_START_NS : guest_time(r).ns);
}

static void write_register(struct rtc *r, uint8_t value)
{
	look(r); /* what happened so far happened under the old settings */
	switch (r->index) {
	case RTC_A:
	case RTC_B:
		write_control(r, value);
		break;
	case RTC_C:
	case RTC_D:
		break; /* read-only */
	default:
		if (rtc_is_time_register(r->index))
			write_time(r, value);
		else
			r->nvram[r->index] = value;
	}
	look(r);
}

static void rtc_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct rtc *r = ctx;
	uint8_t *bytes = data;

	pthread_mutex_lock(&r->lock);
	for (uint32_t i = 0; i < len; i++) /* 0x70 is write-only */
		bytes[i] = offset + i == 1 ? read_register(r) : 0xff;
	pthread_mutex_unlock(&r->lock);
}

static void rtc_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct rtc *r = ctx;
	const uint8_t *bytes = data;

	pthread_mutex_lock(&r->lock);
	for (uint32_t i = 0; i < len; i++) {
		if (offset + i == 0)
			r->index = bytes[i] & 0x7f; /* bit 7 masks NMIs: there are none */
		else
			write_register(r, bytes[i]);
	}
	pthread_mutex_unlock(&r->lock);
}

/* --- memory size, as a PC's firmware leaves it in CMOS --- */

static void put_le(uint8_t *at, uint64_t value, uint32_t nr_bytes)
{
	uint64_t max = (1ull << (8 * nr_bytes)) - 1;

	value = value < max ? value : max;
	for (uint32_t i = 0; i < nr_bytes; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t beyond(uint64_t bytes, uint64_t start)
{
	return bytes > start ? bytes - start : 0;
}

static void fill_memory_size(uint8_t *nvram, const struct guest_mem *mem)
{
	uint64_t low = 0;
	uint64_t high = 0;

	for (uint32_t i = 0; i < guest_mem_nr_slots(mem); i++) {
		const struct mem_slot *slot = guest_mem_slot(mem, i);

		if (slot->gpa < MEM_HOLE_END)
			low += slot->bytes;
		else
			high += slot->bytes;
	}
	put_le(nvram + 0x15, 640, 2);                          /* KiB below 640 K */
	put_le(nvram + 0x17, beyond(low, 1u << 20) >> 10, 2);  /* KiB above 1 MiB */
	memcpy(nvram + 0x30, nvram + 0x17, 2);                 /* the same, "actual" */
	put_le(nvram + 0x34, beyond(low, 16u << 20) >> 16, 2); /* 64 KiB above 16 MiB */
	put_le(nvram + 0x5b, high >> 16, 3);                   /* 64 KiB above 4 GiB */
}

/* --- device --- */

static void first_power_on(struct rtc *r, const struct guest_mem *mem)
{
	r->nvram[RTC_A] = A_POWER_ON;
	r->nvram[RTC_B] = RTC_B_24H;
	r->nvram[RTC_D] = D_VALID;
	fill_memory_size(r->nvram, mem);
	r->evaluated = guest_time(r);
}

/* The RESET pin leaves the battery-backed clock and memory alone: it disables the interrupts and
 * clears their flags. */
static void rtc_reset(struct device *d)
{
	struct rtc *r = to_rtc(d);

	pthread_mutex_lock(&r->lock);
	r->index = 0;
	look(r);
	r->nvram[RTC_B] &= (uint8_t) ~(RTC_B_PIE | RTC_B_AIE | RTC_B_UIE);
	r->nvram[RTC_C] = 0;
	look(r);
	pthread_mutex_unlock(&r->lock);
}

static int rtc_quiesce(struct device *d, struct err *e)
{
	struct rtc *r = to_rtc(d);

	(void)e;
	pthread_mutex_lock(&r->lock);
	r->quiesced = true;
	dev_timer_set(r->timer, DEV_TIMER_NEVER);
	pthread_mutex_unlock(&r->lock);
	return 0;
}

static void rtc_unquiesce(struct device *d)
{
	struct rtc *r = to_rtc(d);

	pthread_mutex_lock(&r->lock);
	r->quiesced = false;
	look(r);
	pthread_mutex_unlock(&r->lock);
}

/* Without the lock: vCPUs are paused and, quiesced, the timer's thread changes nothing here. */
static int rtc_save(const struct device *d, struct buf *out, struct err *e)
{
	const struct rtc *r = (const struct rtc *)d;
	Godwit__RtcState s = GODWIT__RTC_STATE__INIT;
	uint8_t nvram[RTC_NVRAM_BYTES];

	memcpy(nvram, r->nvram, sizeof(nvram));
	s.has_index = s.has_nvram = s.has_offset_s = s.has_offset_ns = true;
	s.has_evaluated_s = s.has_evaluated_ns = true;
	s.index = r->index;
	s.nvram = (ProtobufCBinaryData){.len = sizeof(nvram), .data = nvram};
	s.offset_s = r->offset.s;
	s.offset_ns = r->offset.ns;
	s.evaluated_s = r->evaluated.s;
	s.evaluated_ns = r->evaluated.ns;
	return state_message_pack(&s.base, out, e);
}

static const struct state_limit rtc_limits[] = {
	{"index", RTC_NVRAM_BYTES - 1},
	{"nvram", RTC_NVRAM_BYTES},
	{"offset_ns", NS_PER_S - 1},
	{"evaluated_ns", NS_PER_S - 1},
	{NULL, 0},
};

static bool plausible(int64_t s)
{
	return s > -OFFSET_LIMIT_S && s < OFFSET_LIMIT_S;
}

static int check_rtc(const Godwit__RtcState *s, struct err *e)
{
	if (s->nvram.len != RTC_NVRAM_BYTES)
		return err_set(e, ERR_STREAM, EINVAL, "rtc state: nvram is %zu bytes instead of %d",
			       s->nvram.len, RTC_NVRAM_BYTES);
	if (!plausible(s->offset_s) || !plausible(s->evaluated_s))
		return err_set(e, ERR_STREAM, ERANGE,
			       "rtc state: time %lld (offset %lld s) is absurd",
			       (long long)s->evaluated_s, (long long)s->offset_s);
	if ((s->nvram.data[RTC_A] & A_UIP) || (s->nvram.data[RTC_C] & ~(C_EVENTS | C_IRQF)) ||
	    s->nvram.data[RTC_D] != D_VALID)
		return err_set(e, ERR_STREAM, EINVAL,
			       "rtc state: registers A 0x%x, C 0x%x, D 0x%x are impossible",
			       s->nvram.data[RTC_A], s->nvram.data[RTC_C], s->nvram.data[RTC_D]);
	return 0;
}

static void assign_rtc(struct rtc *r, const Godwit__RtcState *s)
{
	r->index = (uint8_t)s->index;
	memcpy(r->nvram, s->nvram.data, sizeof(r->nvram));
	r->offset = (struct rtc_time){.s = s->offset_s, .ns = s->offset_ns};
	/* Not the present: an alarm that fell into the blackout still rings, at unquiesce. */
	r->evaluated = (struct rtc_time){.s = s->evaluated_s, .ns = s->evaluated_ns};
	r->quiesced = true; /* until unquiesce, so that what is loaded stays what was saved */
	dev_timer_set(r->timer, DEV_TIMER_NEVER);
	irq_line_load(&r->irq, r->nvram[RTC_C] & r->nvram[RTC_B] & C_EVENTS);
}

static int rtc_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		    struct err *e)
{
	struct rtc *r = to_rtc(d);
	ProtobufCMessage *msg;
	int ret;

	(void)version;
	ret = state_message_unpack(d->ops->type, &godwit__rtc_state__descriptor, rtc_limits, data,
				   len, &msg, e);
	if (ret)
		return ret;
	ret = check_rtc((const Godwit__RtcState *)msg, e);
	if (!ret) {
		pthread_mutex_lock(&r->lock);
		assign_rtc(r, (const Godwit__RtcState *)msg);
		pthread_mutex_unlock(&r->lock);
	}
	protobuf_c_message_free_unpacked(msg, NULL);
	return ret;
}

static void rtc_free(struct device *d)
{
	struct rtc *r = to_rtc(d);

	dev_timer_free(r->timer);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static const struct dev_ops rtc_ops = {
	.type = "rtc",
	.state_version = 1,
	.oldest_loadable = 1,
	.reset = rtc_reset,
	.quiesce = rtc_quiesce,
	.unquiesce = rtc_unquiesce,
	.save = rtc_save,
	.load = rtc_load,
	.free = rtc_free,
};

void rtc_on_alarm(struct device *d, void (*alarm)(void *ctx), void *ctx)
{
	struct rtc *r = to_rtc(d);

	r->alarm = alarm;
	r->alarm_ctx = ctx;
}

static const struct bus_ops rtc_bus_ops = {.read = rtc_read, .write = rtc_write};

int rtc_new(const struct machine *m, struct device **out, struct err *e)
{
	struct rtc *r = calloc(1, sizeof(*r));
	int ret;

	if (!r)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for the RTC");
	r->dev.ops = &rtc_ops;
	r->irq = (struct irq_line){.m = m, .gsi = BOARD_RTC_GSI};
	pthread_mutex_init(&r->lock, NULL);
	first_power_on(r, m->mem);
	ret = dev_timer_new("rtc", rtc_fire, r, &r->timer, e);
	if (!ret)
		ret = bus_add(m->bus, BUS_PIO, BOARD_RTC_PORT, 2, "rtc", &rtc_bus_ops, r, e);
	if (ret) {
		rtc_free(&r->dev);
		return ret;
	}
	*out = &r->dev;
	return 0;
}
