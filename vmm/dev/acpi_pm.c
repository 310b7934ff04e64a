/*
 * ACPI fixed hardware (ACPI 6.4, section 4.8.3): PM1a event and control blocks and the PM timer,
 * with the ports a PC resets through: 0xcf9 (the FADT's reset register) and 0x92; and 0x80, where
 * POST codes go. There is no SMI command port, so the machine is always in ACPI mode and SCI_EN
 * reads as one.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "proto/device.pb-c.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/dev/dev_timer.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/irq_line.h"
#include "vmm/dev/state_message.h"
#include "vmm/guest_time.h"

#define PORT_POST 0x80
#define PORT_92   0x92

/* Bits of both PM1 status and PM1 enable (4.8.3.1). */
#define PM1_TIMER        0x0001
#define PM1_GLOBAL       0x0020
#define PM1_POWER_BUTTON 0x0100
#define PM1_SLEEP_BUTTON 0x0200
#define PM1_RTC          0x0400
#define PM1_ENABLE_MASK  (PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC)
#define PM1_STATUS_MASK  (PM1_TIMER | PM1_POWER_BUTTON | PM1_RTC) /* what can happen here */
#define PM1_WAKING       (PM1_POWER_BUTTON | PM1_RTC)             /* ends S3, if enabled */
#define PM1_WAKE         0x8000                                   /* WAK_STS: status only */

#define CONTROL_SCI_EN    0x0001
#define CONTROL_BM_RLD    0x0002
#define CONTROL_SLP_TYP   0x1c00
#define CONTROL_SLP_SHIFT 10
#define CONTROL_SLP_EN    0x2000
#define CONTROL_STORED    (CONTROL_SCI_EN | CONTROL_BM_RLD | CONTROL_SLP_TYP)

#define RESET_CPU    0x04
#define RESET_STORED 0x0a /* SYS_RST and FULL_RST */

#define PORT_92_RESET  0x01
#define PORT_92_A20    0x02
#define PORT_92_STORED (PORT_92_RESET | PORT_92_A20)

#define TIMER_HZ 3579545ull
/* TMR_STS is set whenever the top bit of the counter changes; FADT TMR_VAL_EXT says 32 bits. */
#define TIMER_HALF_TICKS (1ull << 31)
/* 40 years of ticks: keeps the conversion to nanoseconds within 64 bits' reach. */
#define TIMER_MAX_TICKS (1ull << 52)

/* What the timer said at a moment of CLOCK_REALTIME, which two hosts have in common. */
struct pm_instant {
	uint64_t ticks;
	uint64_t realtime_ns;
};

struct acpi_pm {
	struct device dev;

	/* immutable after new */
	const struct machine *m;
	struct dev_timer *timer;
	bool sleeps; /* there is S3 */

	pthread_mutex_t lock; /* before the timer's own */
	/* guarded by lock */
	uint16_t status, enable, control;
	uint8_t reset_control, port_92;
	/* The counter said start_ticks at start_ns (CLOCK_MONOTONIC) and goes on from there through
	 * pauses, and through a migration by the time away, exactly as the TSC does: Linux uses the
	 * one as watchdog of the other (kernel/time/clocksource.c). It never jumps back. */
	uint64_t start_ticks, start_ns;
	/* While quiesced, what save writes: it must not change from one save to the next. */
	struct pm_instant saved;
	bool quiesced;
	uint64_t seen_half; /* ticks / TIMER_HALF_TICKS when TMR_STS was last considered */
	struct irq_line sci;
};

static struct acpi_pm *to_pm(struct device *d)
{
	return (struct acpi_pm *)d;
}

/* --- the timer --- */

static uint64_t ns_to_ticks(uint64_t ns)
{
	return ns / NS_PER_S * TIMER_HZ + ns % NS_PER_S * TIMER_HZ / NS_PER_S;
}

static uint64_t ticks_to_ns(uint64_t ticks)
{
	return ticks / TIMER_HZ * NS_PER_S + ticks % TIMER_HZ * NS_PER_S / TIMER_HZ;
}

static uint64_t ticks_now(const struct acpi_pm *pm)
{
	return pm->start_ticks + ns_to_ticks(clock_now_ns() - pm->start_ns);
}

static void update_irq(struct acpi_pm *pm)
{
	irq_line_set(&pm->sci, pm->status & pm->enable & PM1_STATUS_MASK);
}

static void arm(struct acpi_pm *pm, uint64_t ticks)
{
	uint64_t left = TIMER_HALF_TICKS - ticks % TIMER_HALF_TICKS;

	if (pm->quiesced || !(pm->enable & PM1_TIMER))
		dev_timer_set(pm->timer, DEV_TIMER_NEVER);
	else /* one tick later: the look must not come before the event */
		dev_timer_set(pm->timer, clock_now_ns() + ticks_to_ns(left + 1));
}

/* Bring TMR_STS, the SCI and the timer up to date. */
static void look(struct acpi_pm *pm)
{
	uint64_t ticks = ticks_now(pm);

	if (ticks / TIMER_HALF_TICKS != pm->seen_half)
		pm->status |= PM1_TIMER;
	pm->seen_half = ticks / TIMER_HALF_TICKS;
	update_irq(pm);
	arm(pm, ticks);
}

/* On the timer's thread. */
static void pm_fire(void *ctx)
{
	struct acpi_pm *pm = ctx;

	pthread_mutex_lock(&pm->lock);
	if (!pm->quiesced)
		look(pm);
	pthread_mutex_unlock(&pm->lock);
}

static void timer_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct acpi_pm *pm = ctx;
	uint64_t ticks;

	pthread_mutex_lock(&pm->lock);
	ticks = ticks_now(pm) & UINT32_MAX;
	pthread_mutex_unlock(&pm->lock);
	ticks >>= 8 * offset;
	memcpy(data, &ticks, len <= sizeof(ticks) ? len : sizeof(ticks));
}

static void ignore_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	(void)ctx;
	(void)offset;
	(void)data;
	(void)len;
}

/* --- PM1 event block: status, then enable --- */

static void event_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct acpi_pm *pm = ctx;
	uint8_t *bytes = data;
	uint32_t block;

	pthread_mutex_lock(&pm->lock);
	look(pm);
	block = pm->status | (uint32_t)pm->enable << 16;
	pthread_mutex_unlock(&pm->lock);
	for (uint32_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(block >> (8 * (offset + i)));
}

static void event_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct acpi_pm *pm = ctx;
	const uint8_t *bytes = data;

	pthread_mutex_lock(&pm->lock);
	look(pm);
	for (uint32_t i = 0; i < len; i++) {
		uint32_t at = (uint32_t)offset + i;
		uint16_t bits = (uint16_t)(bytes[i] << (8 * (at % 2)));
		uint16_t lane = (uint16_t)(0xff << (8 * (at % 2)));

		if (at < 2) /* writing ones clears */
			pm->status &= (uint16_t)~bits;
		else
			pm->enable = (uint16_t)((pm->enable & ~lane) | (bits & PM1_ENABLE_MASK));
	}
	look(pm);
	pthread_mutex_unlock(&pm->lock);
}

/* --- sleep --- */

/* An event that the guest wants to be woken by, whether it sleeps or not: the machine knows. */
static bool wakes(const struct acpi_pm *pm)
{
	return pm->sleeps && (pm->status & pm->enable & PM1_WAKING);
}

static void raise(struct acpi_pm *pm, uint16_t event)
{
	bool wake;

	pthread_mutex_lock(&pm->lock);
	pm->status |= event;
	update_irq(pm);
	wake = wakes(pm);
	pthread_mutex_unlock(&pm->lock);
	if (wake)
		pm->m->request(pm->m->ctx, MACHINE_WAKE, 0);
}

static void rtc_alarm(void *ctx)
{
	raise(ctx, PM1_RTC);
}

/* What has happened before the sleep began ends it at once. */
static void suspend(struct acpi_pm *pm)
{
	bool wake;

	pm->m->request(pm->m->ctx, MACHINE_SUSPEND, 0);
	pthread_mutex_lock(&pm->lock);
	wake = wakes(pm);
	pthread_mutex_unlock(&pm->lock);
	if (wake)
		pm->m->request(pm->m->ctx, MACHINE_WAKE, 0);
}

/* --- PM1 control block --- */

static void control_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct acpi_pm *pm = ctx;
	uint8_t *bytes = data;

	pthread_mutex_lock(&pm->lock);
	for (uint32_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(pm->control >> (8 * (offset + i)));
	pthread_mutex_unlock(&pm->lock);
}

static void control_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct acpi_pm *pm = ctx;
	uint32_t value;
	uint32_t type;

	pthread_mutex_lock(&pm->lock);
	value = pm->control;
	memcpy((uint8_t *)&value + offset, data, len);
	pm->control = (uint16_t)((value & CONTROL_STORED) | CONTROL_SCI_EN);
	pthread_mutex_unlock(&pm->lock);
	if (!(value & CONTROL_SLP_EN)) /* reads as zero: only a write has it */
		return;
	type = (value & CONTROL_SLP_TYP) >> CONTROL_SLP_SHIFT;
	/* Outside the lock: the controller comes back here. */
	if (type == BOARD_ACPI_S5_TYPE)
		pm->m->request(pm->m->ctx, MACHINE_POWEROFF, 0);
	else if (type == BOARD_ACPI_S3_TYPE && pm->sleeps)
		suspend(pm);
	else
		log_debug("guest asked for sleep type %u, which this board does not have", type);
}

/* --- ports of a PC's chipset --- */

static void reset_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct acpi_pm *pm = ctx;

	(void)offset;
	memset(data, 0xff, len);
	pthread_mutex_lock(&pm->lock);
	*(uint8_t *)data = pm->reset_control;
	pthread_mutex_unlock(&pm->lock);
}

static void reset_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct acpi_pm *pm = ctx;
	uint8_t value = *(const uint8_t *)data;

	(void)offset;
	(void)len;
	pthread_mutex_lock(&pm->lock);
	pm->reset_control = value & RESET_STORED;
	pthread_mutex_unlock(&pm->lock);
	if (value & RESET_CPU)
		pm->m->request(pm->m->ctx, MACHINE_RESET, 0);
}

static void port_92_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct acpi_pm *pm = ctx;

	(void)offset;
	memset(data, 0xff, len);
	pthread_mutex_lock(&pm->lock);
	*(uint8_t *)data = pm->port_92;
	pthread_mutex_unlock(&pm->lock);
}

static void port_92_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct acpi_pm *pm = ctx;
	uint8_t value = *(const uint8_t *)data;
	bool reset;

	(void)offset;
	(void)len;
	pthread_mutex_lock(&pm->lock);
	reset = value & ~pm->port_92 & PORT_92_RESET; /* on the rising edge */
	pm->port_92 = value & PORT_92_STORED;
	pthread_mutex_unlock(&pm->lock);
	if (reset)
		pm->m->request(pm->m->ctx, MACHINE_RESET, 0);
}

static void post_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	(void)ctx;
	(void)offset;
	memset(data, 0xff, len);
}

struct port_range {
	uint16_t port;
	uint16_t len;
	const char *name;
	struct bus_ops ops;
};

static const struct port_range ranges[] = {
	{BOARD_PM_EVENT_PORT, 4, "PM1a event", {event_read, event_write}},
	{BOARD_PM_CONTROL_PORT, 2, "PM1a control", {control_read, control_write}},
	{BOARD_PM_TIMER_PORT, 4, "PM timer", {timer_read, ignore_write}},
	{BOARD_RESET_PORT, 1, "reset control", {reset_read, reset_write}},
	{PORT_92, 1, "port 0x92", {port_92_read, port_92_write}},
	{PORT_POST, 1, "POST code", {post_read, ignore_write}},
};

/* --- device --- */

void acpi_pm_press_power_button(struct device *d)
{
	raise(to_pm(d), PM1_POWER_BUTTON);
}

void acpi_pm_add_sleep(struct device *d, struct device *rtc)
{
	to_pm(d)->sleeps = true;
	rtc_on_alarm(rtc, rtc_alarm, d);
}

void acpi_pm_wake(struct device *d)
{
	struct acpi_pm *pm = to_pm(d);

	pthread_mutex_lock(&pm->lock);
	pm->status |= PM1_WAKE;
	pthread_mutex_unlock(&pm->lock);
}

static void power_on(struct acpi_pm *pm)
{
	pm->status = 0;
	pm->enable = 0;
	pm->control = CONTROL_SCI_EN;
	pm->reset_control = 0;
	pm->port_92 = PORT_92_A20;
	pm->start_ticks = 0;
	pm->start_ns = clock_now_ns();
	pm->seen_half = 0;
}

static struct pm_instant present(const struct acpi_pm *pm)
{
	return (struct pm_instant){.ticks = ticks_now(pm), .realtime_ns = guest_time_realtime_ns()};
}

static void pm_reset(struct device *d)
{
	struct acpi_pm *pm = to_pm(d);

	pthread_mutex_lock(&pm->lock);
	power_on(pm);
	pm->saved = present(pm); /* a machine may be reset while it is paused, and then saved */
	look(pm);
	pthread_mutex_unlock(&pm->lock);
}

static int pm_quiesce(struct device *d, struct err *e)
{
	struct acpi_pm *pm = to_pm(d);

	(void)e;
	pthread_mutex_lock(&pm->lock);
	look(pm);
	pm->saved = present(pm);
	pm->quiesced = true;
	dev_timer_set(pm->timer, DEV_TIMER_NEVER);
	pthread_mutex_unlock(&pm->lock);
	return 0;
}

static void pm_unquiesce(struct device *d)
{
	struct acpi_pm *pm = to_pm(d);

	pthread_mutex_lock(&pm->lock);
	pm->quiesced = false;
	look(pm);
	pthread_mutex_unlock(&pm->lock);
}

/* Without the lock: vCPUs are paused and, quiesced, the timer's thread changes nothing here. */
static int pm_save(const struct device *d, struct buf *out, struct err *e)
{
	const struct acpi_pm *pm = (const struct acpi_pm *)d;
	Godwit__AcpiPmState s = GODWIT__ACPI_PM_STATE__INIT;
	struct pm_instant saved = pm->quiesced ? pm->saved : present(pm);

	s.has_status = s.has_enable = s.has_control = s.has_timer_ticks = true;
	s.has_timer_realtime_ns = s.has_reset_control = s.has_port_92 = true;
	s.status = pm->status;
	s.enable = pm->enable;
	s.control = pm->control;
	s.timer_ticks = saved.ticks;
	s.timer_realtime_ns = saved.realtime_ns;
	s.reset_control = pm->reset_control;
	s.port_92 = pm->port_92;
	return state_message_pack(&s.base, out, e);
}

static const struct state_limit pm_limits[] = {
	{"status", PM1_STATUS_MASK | PM1_WAKE},
	{"enable", PM1_ENABLE_MASK},
	{"control", CONTROL_STORED},
	{"timer_ticks", TIMER_MAX_TICKS},
	{"reset_control", RESET_STORED},
	{"port_92", PORT_92_STORED},
	{NULL, 0},
};

static int check_pm(const Godwit__AcpiPmState *s, struct err *e)
{
	if ((s->status & ~(uint32_t)(PM1_STATUS_MASK | PM1_WAKE)) ||
	    (s->enable & ~(uint32_t)PM1_ENABLE_MASK) || (s->control & ~(uint32_t)CONTROL_STORED) ||
	    !(s->control & CONTROL_SCI_EN) || (s->reset_control & ~(uint32_t)RESET_STORED))
		return err_set(e, ERR_STREAM, EINVAL,
			       "acpi-pm state: status 0x%x, enable 0x%x, control 0x%x, reset 0x%x "
			       "are impossible",
			       s->status, s->enable, s->control, s->reset_control);
	return 0;
}

static void assign_pm(struct acpi_pm *pm, const Godwit__AcpiPmState *s)
{
	pm->status = (uint16_t)s->status;
	pm->enable = (uint16_t)s->enable;
	pm->control = (uint16_t)s->control;
	pm->reset_control = (uint8_t)s->reset_control;
	pm->port_92 = (uint8_t)s->port_92;
	pm->saved = (struct pm_instant){s->timer_ticks, s->timer_realtime_ns};
	pm->start_ticks = s->timer_ticks + ns_to_ticks(guest_time_away_ns(s->timer_realtime_ns));
	pm->start_ns = clock_now_ns();
	pm->seen_half = s->timer_ticks / TIMER_HALF_TICKS;
	pm->quiesced = true; /* until unquiesce, so that what is loaded stays what was saved */
	irq_line_load(&pm->sci, pm->status & pm->enable & PM1_STATUS_MASK);
	dev_timer_set(pm->timer, DEV_TIMER_NEVER);
}

static int pm_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		   struct err *e)
{
	struct acpi_pm *pm = to_pm(d);
	ProtobufCMessage *msg;
	int ret;

	(void)version;
	ret = state_message_unpack(d->ops->type, &godwit__acpi_pm_state__descriptor, pm_limits,
				   data, len, &msg, e);
	if (ret)
		return ret;
	ret = check_pm((const Godwit__AcpiPmState *)msg, e);
	if (!ret) {
		pthread_mutex_lock(&pm->lock);
		assign_pm(pm, (const Godwit__AcpiPmState *)msg);
		pthread_mutex_unlock(&pm->lock);
	}
	protobuf_c_message_free_unpacked(msg, NULL);
	return ret;
}

static void pm_free(struct device *d)
{
	struct acpi_pm *pm = to_pm(d);

	dev_timer_free(pm->timer);
	pthread_mutex_destroy(&pm->lock);
	free(pm);
}

static const struct dev_ops pm_ops = {
	.type = "acpi-pm",
	.state_version = 1,
	.oldest_loadable = 1,
	.reset = pm_reset,
	.quiesce = pm_quiesce,
	.unquiesce = pm_unquiesce,
	.save = pm_save,
	.load = pm_load,
	.free = pm_free,
};

static int claim_ports(struct acpi_pm *pm, struct err *e)
{
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		const struct port_range *r = &ranges[i];
		int ret = bus_add(pm->m->bus, BUS_PIO, r->port, r->len, r->name, &r->ops, pm, e);

		if (ret)
			return ret;
	}
	return 0;
}

int acpi_pm_new(const struct machine *m, struct device **out, struct err *e)
{
	struct acpi_pm *pm = calloc(1, sizeof(*pm));
	int ret;

	if (!pm)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for ACPI power management");
	pm->dev.ops = &pm_ops;
	pm->m = m;
	pm->sci = (struct irq_line){.m = m, .gsi = BOARD_SCI_GSI};
	pthread_mutex_init(&pm->lock, NULL);
	power_on(pm);
	ret = dev_timer_new("acpi-pm", pm_fire, pm, &pm->timer, e);
	if (!ret)
		ret = claim_ports(pm, e);
	if (ret) {
		pm_free(&pm->dev);
		return ret;
	}
	*out = &pm->dev;
	return 0;
}
