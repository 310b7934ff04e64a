#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/dev/fake_machine.h"

#define REG_A 10
#define REG_B 11
#define REG_C 12
#define REG_D 13

#define B_SET    0x80
#define B_PIE    0x40
#define B_AIE    0x20
#define B_UIE    0x10
#define B_BINARY 0x04
#define B_24H    0x02

struct fixture {
	struct fake_machine f;
	struct device *rtc;
};

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	struct err e = ERR_INIT;

	fake_init(&x->f);
	assert_int_equal(rtc_new(&x->f.m, &x->rtc, &e), 0);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	x->rtc->ops->free(x->rtc);
	fake_fini(&x->f);
	free(x);
	return 0;
}

static uint8_t get(struct fake_machine *f, uint8_t reg)
{
	outb(f, 0x70, reg | 0x80); /* the NMI mask bit is not part of the index */
	return inb(f, 0x71);
}

static void set(struct fake_machine *f, uint8_t reg, uint8_t value)
{
	outb(f, 0x70, reg);
	outb(f, 0x71, value);
}

static int bcd(uint8_t v)
{
	return (v >> 4) * 10 + (v & 15);
}

/* As Linux' mc146818_get_time() reads it, BCD and 24 hours. */
static time_t guest_clock(struct fake_machine *f)
{
	struct tm tm = {0};

	while (get(f, REG_A) & 0x80)
		;
	tm.tm_sec = bcd(get(f, 0));
	tm.tm_min = bcd(get(f, 2));
	tm.tm_hour = bcd(get(f, 4));
	tm.tm_mday = bcd(get(f, 7));
	tm.tm_mon = bcd(get(f, 8)) - 1;
	tm.tm_year = bcd(get(f, 0x32)) * 100 + bcd(get(f, 9)) - 1900;
	return timegm(&tm);
}

/* Away from the second's edge, so that two clocks read one after the other agree. */
static void early_in_second(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (ts.tv_nsec > 500000000)
		usleep((useconds_t)(1001000 - ts.tv_nsec / 1000));
}

static void set_clock(struct fake_machine *f, uint8_t b, uint8_t hour, uint8_t min, uint8_t sec)
{
	set(f, REG_B, b | B_SET);
	set(f, 0, sec);
	set(f, 2, min);
	set(f, 4, hour);
	set(f, REG_B, b);
}

static void tells_host_time(void **state)
{
	struct fixture *x = *state;
	struct tm tm;
	time_t now;

	early_in_second();
	now = time(NULL);
	assert_in_range(guest_clock(&x->f), now, now + 1);
	gmtime_r(&now, &tm);
	assert_int_equal(get(&x->f, 6), tm.tm_wday + 1);
	assert_int_equal(get(&x->f, REG_A) & 0x7f, 0x26);
	assert_int_equal(get(&x->f, REG_B), 0x02);
	assert_int_equal(get(&x->f, REG_D), 0x80);
	assert_int_equal(inb(&x->f, 0x70), 0xff);
}

static void formats(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	set_clock(f, B_24H, 0x23, 0x59, 0x30);
	assert_int_equal(get(f, 4), 0x23);
	set(f, REG_B, 0); /* 12 hours: 11 PM */
	assert_int_equal(get(f, 4), 0x91);
	set(f, REG_B, B_BINARY);
	assert_int_equal(get(f, 4), 0x8b);
	assert_int_equal(get(f, 2), 59);
	set_clock(f, B_BINARY, 12, 0, 0); /* 12 AM is midnight */
	set(f, REG_B, B_BINARY | B_24H);
	assert_int_equal(get(f, 4), 0);
	set_clock(f, 0, 0x92, 0, 0); /* 12 PM is noon */
	set(f, REG_B, B_24H);
	assert_int_equal(get(f, 4), 0x12);
}

static void set_bit_freezes(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	set(f, REG_B, B_24H | B_SET | B_UIE);
	assert_int_equal(get(f, REG_B), B_24H | B_SET); /* SET clears UIE */
	set(f, 0, 0x58);
	set(f, 2, 0x30);
	usleep(1100000);
	assert_int_equal(get(f, 0), 0x58);
	assert_int_equal(get(f, REG_C) & 0x10, 0);
	set(f, REG_B, B_24H);
	assert_int_equal(get(f, 0) & 0xf0, 0x50);
	usleep(1000000);
	assert_int_not_equal(get(f, 0), 0x58);
}

/* Linux' mc146818_set_time(): SET, divider reset, write, release both; the next second begins half
 * a second later. */
static void divider_reset(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	set(f, REG_B, B_24H | B_SET);
	set(f, REG_A, 0x76);
	set(f, 0, 0x10);
	set(f, REG_B, B_24H);
	usleep(600000);
	assert_int_equal(get(f, 0), 0x10); /* still held */
	set(f, REG_A, 0x26);
	usleep(200000);
	assert_int_equal(get(f, 0), 0x10);
	usleep(500000);
	assert_int_equal(get(f, 0), 0x11);
}

static void nonsense_dates_carry_over(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	set(f, REG_B, B_24H | B_SET);
	for (int reg = 0; reg < 10; reg++)
		set(f, (uint8_t)reg, 0xff);
	set(f, 0x32, 0xff);
	set(f, REG_B, B_24H);
	guest_clock(f); /* any date will do, as long as the sanitizers are content */
	set(f, REG_B, B_24H | B_SET);
	for (int reg = 0; reg < 10; reg++)
		set(f, (uint8_t)reg, 0);
	set(f, 0x32, 0);
	set(f, REG_B, B_24H);
	guest_clock(f);
	set(f, 8, 0x02);
	set(f, 7, 0x30);
	set(f, 0x32, 0x20);
	set(f, 9, 0x23);
	assert_int_equal(get(f, 8), 0x03); /* February 30 */
}

static void uip_precedes_update(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;
	uint64_t end = clock_now_ns() + 20 * NS_PER_S; /* a busy host misses 244 us easily */
	bool seen = false;

	while (!seen && clock_now_ns() < end)
		seen = get(f, REG_A) & 0x80;
	assert_true(seen);
	set(f, REG_B, B_24H | B_SET);
	end = clock_now_ns() + NS_PER_S + 100 * NS_PER_MS;
	while (clock_now_ns() < end)
		assert_false(get(f, REG_A) & 0x80);
}

static void update_interrupt(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	get(f, REG_C);
	set(f, REG_B, B_24H | B_UIE);
	for (int i = 0; i < 2; i++) {
		assert_true(fake_wait_line(f, BOARD_RTC_GSI, true, 1500 * NS_PER_MS));
		assert_int_equal(get(f, REG_C) & 0x90, 0x90);
		assert_false(fake_line(f, BOARD_RTC_GSI));
		assert_int_equal(get(f, REG_C) & 0x90, 0);
	}
	assert_int_equal(fake_raised(f, BOARD_RTC_GSI), 2);
}

static void periodic_interrupt(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;
	uint64_t end;
	int nr = 0;

	set(f, REG_A, 0x2a); /* 64 Hz */
	set(f, REG_B, B_24H | B_PIE);
	end = clock_now_ns() + NS_PER_S;
	while (clock_now_ns() < end) {
		if (fake_line(f, BOARD_RTC_GSI) && get(f, REG_C) & 0x40)
			nr++;
		usleep(500);
	}
	assert_in_range(nr, 10, 66);
	set(f, REG_A, 0x20); /* rate 0: none */
	get(f, REG_C);
	usleep(100000);
	assert_false(fake_line(f, BOARD_RTC_GSI));
}

static void periodic_flag_without_interrupt(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	get(f, REG_C);
	usleep(5000);
	assert_int_equal(get(f, REG_C) & 0xc0, 0x40); /* 1024 Hz: PF but no IRQF */
	assert_int_equal(fake_raised(f, BOARD_RTC_GSI), 0);
}

static void alarm_interrupt(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	set_clock(f, B_24H, 0x23, 0x59, 0x58);
	set(f, 1, 0x00);
	set(f, 3, 0xff); /* any minute */
	set(f, 5, 0x00);
	get(f, REG_C);
	set(f, REG_B, B_24H | B_AIE);
	assert_false(fake_wait_line(f, BOARD_RTC_GSI, true, 700 * NS_PER_MS));
	assert_true(fake_wait_line(f, BOARD_RTC_GSI, true, 3 * NS_PER_S));
	assert_int_equal(get(f, 0), 0x00);
	assert_int_equal(get(f, 4), 0x00);
	assert_int_equal(get(f, REG_C) & 0xa0, 0xa0);
	assert_false(fake_line(f, BOARD_RTC_GSI));
}

static void reset_keeps_the_clock(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	set(f, 0x40, 0x5a);
	set_clock(f, B_24H | B_UIE, 0x03, 0x00, 0x00);
	assert_true(fake_wait_line(f, BOARD_RTC_GSI, true, 1500 * NS_PER_MS));
	x->rtc->ops->reset(x->rtc);
	assert_false(fake_line(f, BOARD_RTC_GSI));
	assert_int_equal(get(f, REG_B), B_24H);
	assert_int_equal(get(f, 0x40), 0x5a);
	assert_int_equal(get(f, 4), 0x03);
}

static uint32_t get_le(struct fake_machine *f, uint8_t reg, uint32_t nr)
{
	uint32_t v = 0;

	for (uint32_t i = 0; i < nr; i++)
		v |= (uint32_t)get(f, (uint8_t)(reg + i)) << (8 * i);
	return v;
}

static void memory_size(void **state)
{
	struct fixture *x = *state;
	struct fake_machine g;
	struct device *d;
	struct err e = ERR_INIT;

	assert_int_equal(get_le(&x->f, 0x15, 2), 640);
	assert_int_equal(get_le(&x->f, 0x17, 2), 63 * 1024);
	assert_int_equal(get_le(&x->f, 0x30, 2), 63 * 1024);
	assert_int_equal(get_le(&x->f, 0x34, 2), 48 * 16);
	assert_int_equal(get_le(&x->f, 0x5b, 3), 0);

	fake_init_with(&g, 5ull << 30);
	assert_int_equal(rtc_new(&g.m, &d, &e), 0);
	assert_int_equal(get_le(&g, 0x17, 2), 0xffff);
	assert_int_equal(get_le(&g, 0x34, 2), (3 * 1024 - 16) * 16);
	assert_int_equal(get_le(&g, 0x5b, 3), 2 * 1024 * 16);
	d->ops->free(d);
	fake_fini(&g);
}

static struct device *other_rtc(struct fake_machine *g)
{
	struct device *d;
	struct err e = ERR_INIT;

	fake_init(g);
	assert_int_equal(rtc_new(&g->m, &d, &e), 0);
	return d;
}

static void time_goes_on_across_migration(void **state)
{
	struct fixture *x = *state;
	struct fake_machine g;
	struct device *d = other_rtc(&g);
	time_t before;

	set_clock(&x->f, B_24H, 0x04, 0x05, 0x06);
	set(&x->f, 0x40, 0x5a);
	early_in_second();
	before = guest_clock(&x->f);
	outb(&x->f, 0x70, 0x40);
	dev_migrate(&x->f, x->rtc, &g, d);
	assert_int_equal(inb(&g, 0x71), 0x5a); /* the index came along */
	assert_in_range(guest_clock(&g), before, before + 1);
	d->ops->free(d);
	fake_fini(&g);
}

/* Saved while the guest is setting its clock: it stays halted with what was written so far. */
static void migrates_while_being_set(void **state)
{
	struct fixture *x = *state;
	struct fake_machine g;
	struct device *d = other_rtc(&g);

	set(&x->f, REG_B, B_24H | B_SET);
	set(&x->f, 4, 0x17);
	set(&x->f, 2, 0x42);
	dev_migrate(&x->f, x->rtc, &g, d);
	assert_int_equal(get(&g, 4), 0x17);
	set(&g, 0, 0x10);
	set(&g, REG_B, B_24H);
	assert_int_equal(get(&g, 4), 0x17);
	assert_int_equal(get(&g, 2), 0x42);
	d->ops->free(d);
	fake_fini(&g);
}

/* An alarm that falls into the blackout rings at the destination; nothing rings in between. */
static void alarm_in_blackout(void **state)
{
	struct fixture *x = *state;
	struct fake_machine g;
	struct device *d = other_rtc(&g);
	struct buf state_bytes = BUF_INIT;
	struct err e = ERR_INIT;

	set_clock(&x->f, B_24H, 0x10, 0x00, 0x00);
	set(&x->f, 1, 0x01);
	set(&x->f, 3, 0x00);
	set(&x->f, 5, 0x10);
	get(&x->f, REG_C);
	set(&x->f, REG_B, B_24H | B_AIE);
	assert_int_equal(x->rtc->ops->quiesce(x->rtc, &e), 0);
	dev_save(x->rtc, &state_bytes);
	assert_int_equal(dev_load(d, &state_bytes, &e), 0);
	usleep(1600000);
	assert_false(fake_line(&x->f, BOARD_RTC_GSI));
	assert_false(fake_line(&g, BOARD_RTC_GSI));
	d->ops->unquiesce(d);
	assert_true(fake_line(&g, BOARD_RTC_GSI));
	assert_int_equal(get(&g, REG_C) & 0xa0, 0xa0);
	buf_fini(&state_bytes);
	d->ops->free(d);
	fake_fini(&g);
}

#define UNIT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNIT(tells_host_time),
		UNIT(formats),
		UNIT(set_bit_freezes),
		UNIT(divider_reset),
		UNIT(nonsense_dates_carry_over),
		UNIT(uip_precedes_update),
		UNIT(update_interrupt),
		UNIT(periodic_interrupt),
		UNIT(periodic_flag_without_interrupt),
		UNIT(alarm_interrupt),
		UNIT(reset_keeps_the_clock),
		UNIT(memory_size),
		UNIT(time_goes_on_across_migration),
		UNIT(migrates_while_being_set),
		UNIT(alarm_in_blackout),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
