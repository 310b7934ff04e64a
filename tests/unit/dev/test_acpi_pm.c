#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/dev/fake_machine.h"
#include "tests/unit/dev/in_time.h"

#define STATUS  BOARD_PM_EVENT_PORT
#define ENABLE  (BOARD_PM_EVENT_PORT + 2)
#define CONTROL BOARD_PM_CONTROL_PORT
#define TIMER   BOARD_PM_TIMER_PORT

#define POWER_BUTTON 0x0100
#define RTC_EVENT    0x0400
#define WAKE_STATUS  0x8000
#define SLP(type)    (0x2000u | (uint32_t)(type) << 10)

#define TIMER_HZ    3579545ull
#define PATIENCE_NS (60 * NS_PER_S)

struct fixture {
	struct fake_machine f;
	struct device *pm;
};

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	struct err e = ERR_INIT;

	fake_init(&x->f);
	assert_int_equal(acpi_pm_new(&x->f.m, &x->pm, &e), 0);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	x->pm->ops->free(x->pm);
	fake_fini(&x->f);
	free(x);
	return 0;
}

static bool sci(struct fake_machine *f)
{
	return fake_line(f, BOARD_SCI_GSI);
}

static void power_button(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	acpi_pm_press_power_button(x->pm);
	assert_false(sci(f)); /* not enabled */
	assert_int_equal(io_in(f, STATUS, 2), POWER_BUTTON);
	io_out(f, ENABLE, POWER_BUTTON, 2);
	assert_true(sci(f));
	io_out(f, STATUS, 0x0001, 2); /* clears only what is written as one */
	assert_true(sci(f));
	io_out(f, STATUS, POWER_BUTTON, 2);
	assert_false(sci(f));
	assert_int_equal(io_in(f, STATUS, 4), POWER_BUTTON << 16);
	acpi_pm_press_power_button(x->pm);
	assert_true(sci(f));
	io_out(f, STATUS + 1, 0x01, 1); /* byte lanes */
	assert_false(sci(f));
	io_out(f, ENABLE + 1, 0x00, 1);
	assert_int_equal(io_in(f, ENABLE, 2), 0);
	io_out(f, STATUS, 0xffff0000u, 4);
	assert_int_equal(io_in(f, ENABLE, 2), 0x0721);
}

static void sleep_states(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	assert_int_equal(io_in(f, CONTROL, 2), 0x0001);
	io_out(f, CONTROL, 0, 2);
	assert_int_equal(io_in(f, CONTROL, 2), 0x0001); /* always in ACPI mode */
	io_out(f, CONTROL, SLP(1), 2);
	assert_int_equal(f->nr_requests, 0);
	io_out(f, CONTROL, SLP(BOARD_ACPI_S5_TYPE) & ~0x2000u, 2);
	assert_int_equal(f->nr_requests, 0); /* type without enable */
	io_out(f, CONTROL, SLP(BOARD_ACPI_S5_TYPE), 2);
	assert_int_equal(f->nr_requests, 1);
	assert_int_equal(f->request, MACHINE_POWEROFF);
	assert_int_equal(io_in(f, CONTROL, 2), 0x1401); /* SLP_EN is write-only */
	io_out(f, CONTROL + 1, 0x34, 1);
	assert_int_equal(f->nr_requests, 2);
}

static struct device *add_sleep(struct fixture *x)
{
	struct device *rtc;
	struct err e = ERR_INIT;

	assert_int_equal(rtc_new(&x->f.m, &rtc, &e), 0);
	acpi_pm_add_sleep(x->pm, rtc);
	return rtc;
}

/* The power button wakes if it is enabled to, also one pressed before the sleep began. */
static void the_power_button_ends_sleep(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;
	struct device *rtc = add_sleep(x);

	io_out(f, CONTROL, SLP(BOARD_ACPI_S3_TYPE), 2);
	assert_int_equal(f->nr_requests, 1);
	assert_int_equal(f->request, MACHINE_SUSPEND);
	acpi_pm_press_power_button(x->pm);
	assert_int_equal(f->nr_requests, 1); /* it is not enabled */
	io_out(f, STATUS, POWER_BUTTON, 2);
	io_out(f, ENABLE, POWER_BUTTON, 2);
	acpi_pm_press_power_button(x->pm);
	assert_int_equal(f->nr_requests, 2);
	assert_int_equal(f->request, MACHINE_WAKE);
	acpi_pm_wake(x->pm);
	assert_int_equal(io_in(f, STATUS, 2), WAKE_STATUS | POWER_BUTTON);
	io_out(f, STATUS, WAKE_STATUS, 2);
	assert_int_equal(io_in(f, STATUS, 2), POWER_BUTTON);
	io_out(f, CONTROL, SLP(BOARD_ACPI_S3_TYPE), 2);
	assert_int_equal(f->nr_requests, 4); /* asleep, and awake at once */
	assert_int_equal(f->request, MACHINE_WAKE);
	rtc->ops->free(rtc);
}

/* Every second of the clock is an alarm, but only one that may interrupt is an event. */
static void the_clocks_alarm_ends_sleep(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;
	struct device *rtc = add_sleep(x);
	uint64_t patience = clock_now_ns() + PATIENCE_NS;

	for (uint8_t reg = 1; reg <= 5; reg += 2) { /* seconds, minutes, hours: any */
		outb(f, BOARD_RTC_PORT, reg);
		outb(f, BOARD_RTC_PORT + 1, 0xc0);
	}
	io_out(f, ENABLE, RTC_EVENT, 2);
	outb(f, BOARD_RTC_PORT, 0x0b);
	outb(f, BOARD_RTC_PORT + 1, 0x22); /* alarm interrupts, 24 hours */
	while (!(io_in(f, STATUS, 2) & RTC_EVENT) && clock_now_ns() < patience)
		usleep(1000);
	assert_int_equal(io_in(f, STATUS, 2), RTC_EVENT);
	assert_true(sci(f));
	rtc->ops->free(rtc); /* and with it the thread that asks */
	assert_int_equal(f->request, MACHINE_WAKE);
}

/* The most the timer may have counted. */
static uint64_t ticks_since(uint64_t ns)
{
	return (clock_now_ns() - ns) * TIMER_HZ / NS_PER_S + 1;
}

static void pm_timer(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;
	uint64_t ns = clock_now_ns();
	uint32_t t = io_in(f, TIMER, 4);
	uint64_t ticks;

	usleep(100000);
	ticks = io_in(f, TIMER, 4) - t;
	assert_in_range(ticks, TIMER_HZ / 10, ticks_since(ns));
	t = io_in(f, TIMER, 4);
	for (int i = 0; i < 10000; i++) {
		uint32_t now = io_in(f, TIMER, 4);

		assert_true(now >= t);
		t = now;
	}
	io_out(f, TIMER, 0, 4);
	assert_true(io_in(f, TIMER, 4) >= t);
}

/* Like the TSC it runs on through a pause; what is saved meanwhile stays the same. */
static void runs_on_while_quiesced(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;
	struct buf first = BUF_INIT;
	struct buf second = BUF_INIT;
	struct err e = ERR_INIT;
	uint64_t ns = clock_now_ns();
	uint32_t t = io_in(f, TIMER, 4);
	uint32_t later;

	assert_int_equal(x->pm->ops->quiesce(x->pm, &e), 0);
	dev_save(x->pm, &first);
	usleep(20000);
	dev_save(x->pm, &second);
	assert_int_equal(first.len, second.len);
	assert_memory_equal(first.data, second.data, first.len);
	x->pm->ops->unquiesce(x->pm);
	x->pm->ops->unquiesce(x->pm); /* idempotent */
	later = io_in(f, TIMER, 4);
	assert_in_range(later, t + TIMER_HZ / 50, t + ticks_since(ns));
	buf_fini(&first);
	buf_fini(&second);
}

static struct device *other_pm(struct fake_machine *g)
{
	struct device *d;
	struct err e = ERR_INIT;

	fake_init(g);
	assert_int_equal(acpi_pm_new(&g->m, &d, &e), 0);
	return d;
}

static void migrates(void **state)
{
	struct fixture *x = *state;
	struct fake_machine g;
	struct device *d = other_pm(&g);
	struct buf bytes = BUF_INIT;
	struct err e = ERR_INIT;
	uint32_t t, there;
	uint64_t ns;

	io_out(&x->f, ENABLE, POWER_BUTTON, 2);
	io_out(&x->f, CONTROL, 0x1403, 2);
	acpi_pm_press_power_button(x->pm);
	outb(&x->f, 0x92, 0x00);
	outb(&x->f, BOARD_RESET_PORT, 0x02);
	usleep(50000);
	ns = clock_now_ns();
	t = io_in(&x->f, TIMER, 4);
	assert_int_equal(x->pm->ops->quiesce(x->pm, &e), 0);
	dev_save(x->pm, &bytes);
	usleep(50000);
	fake_copy_lines(&x->f, &g);
	assert_int_equal(dev_load(d, &bytes, &e), 0);
	d->ops->unquiesce(d);
	assert_true(sci(&g));
	/* The time away is part of it, and it still agrees with the source's. */
	there = io_in(&g, TIMER, 4);
	assert_in_range(there, t + TIMER_HZ / 20, t + ticks_since(ns) + TIMER_HZ / 10);
	t = io_in(&x->f, TIMER, 4);
	there = io_in(&g, TIMER, 4);
	assert_in_range(there + TIMER_HZ / 10, t, io_in(&x->f, TIMER, 4) + TIMER_HZ / 5);
	assert_int_equal(io_in(&g, STATUS, 4), POWER_BUTTON << 16 | POWER_BUTTON);
	assert_int_equal(io_in(&g, CONTROL, 2), 0x1403);
	assert_int_equal(inb(&g, 0x92), 0x00);
	assert_int_equal(inb(&g, BOARD_RESET_PORT), 0x02);
	buf_fini(&bytes);
	d->ops->free(d);
	fake_fini(&g);
}

/* The timer's carry: loaded just before the top bit changes, TMR_STS must come, with an SCI. */
IN_TIME(timer_carry)
{
	struct fake_machine *f = &x->f;
	/* status 0, enable 1, control 1, ticks 2^31 - 2^22 (1.2 s before), 0, 0, long ago: with
	 * clocks that far apart the time away counts as 0 */
	static const uint8_t bytes[] = {0x08, 0x00, 0x10, 0x01, 0x18, 0x01, 0x20, 0x80, 0x80,
					0x80, 0xfe, 0x07, 0x28, 0x00, 0x30, 0x00, 0x38, 0x00};
	struct err e = ERR_INIT;
	uint64_t loaded_ns = clock_now_ns();
	uint32_t ticks, status;

	assert_int_equal(x->pm->ops->load(x->pm, 1, bytes, sizeof(bytes), &e), 0);
	ticks = io_in(f, TIMER, 4);
	x->pm->ops->unquiesce(x->pm);
	status = io_in(f, STATUS, 2);
	if (in_time_late(loaded_ns, NS_PER_S))
		return false;
	assert_in_range(ticks, 0x7fc00000, 0x7fffffff);
	assert_int_equal(status, 0);
	assert_true(fake_wait_line(f, BOARD_SCI_GSI, true, PATIENCE_NS));
	assert_int_equal(io_in(f, STATUS, 2), 0x0001);
	assert_true(io_in(f, TIMER, 4) >= 0x80000000u);
	io_out(f, STATUS, 0x0001, 2);
	assert_false(sci(f));
	return true;
}

static void reset_ports(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	outb(f, BOARD_RESET_PORT, 0x02);
	assert_int_equal(f->nr_requests, 0);
	outb(f, BOARD_RESET_PORT, 0x06);
	assert_int_equal(f->nr_requests, 1);
	assert_int_equal(f->request, MACHINE_RESET);
	outb(f, BOARD_RESET_PORT, 0x0e);
	assert_int_equal(f->nr_requests, 2);
	assert_int_equal(inb(f, 0x92), 0x02);
	outb(f, 0x92, 0x00);
	outb(f, 0x92, 0x03);
	assert_int_equal(f->nr_requests, 3);
	outb(f, 0x92, 0x03); /* not an edge */
	assert_int_equal(f->nr_requests, 3);
	for (int i = 0; i < 256; i++)
		outb(f, 0x80, (uint8_t)i);
	assert_int_equal(inb(f, 0x80), 0xff);
	assert_int_equal(f->nr_requests, 3);
}

static void reset_restores_power_on(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	io_out(f, ENABLE, POWER_BUTTON, 2);
	acpi_pm_press_power_button(x->pm);
	assert_true(sci(f));
	x->pm->ops->reset(x->pm);
	assert_false(sci(f));
	assert_int_equal(io_in(f, STATUS, 4), 0);
	assert_int_equal(io_in(f, CONTROL, 2), 0x0001);
}

#define UNIT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNIT(power_button),
		UNIT(sleep_states),
		UNIT(the_power_button_ends_sleep),
		UNIT(the_clocks_alarm_ends_sleep),
		UNIT(pm_timer),
		UNIT(runs_on_while_quiesced),
		UNIT(migrates),
		UNIT(timer_carry),
		UNIT(reset_ports),
		UNIT(reset_restores_power_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
