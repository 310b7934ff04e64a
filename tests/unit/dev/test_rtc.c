#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/dev/fake_machine.h"
#include "tests/unit/dev/in_time.h"

#define PATIENCE_NS (60 * NS_PER_S)

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

/* Not time(2), which lags behind by a tick. */
static time_t host_second(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec;
}

static time_t read_clock(struct fake_machine *f)
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

/* BCD and 24 hours. Read again until two readings agree: the clock may have gone on between two
 * registers of one. */
static time_t guest_clock(struct fake_machine *f)
{
	time_t last = read_clock(f);
	time_t t;

	while ((t = read_clock(f)) != last)
		last = t;
	return t;
}

/* With half a second to go to the next one. */
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

static int weekday(time_t t)
{
	struct tm tm;

	gmtime_r(&t, &tm);
	return tm.tm_wday + 1;
}

static void tells_host_time(void **state)
{
	struct fixture *x = *state;
	time_t before = host_second();
	time_t told = guest_clock(&x->f);
	int day = get(&x->f, 6);
	time_t after = host_second();

	assert_in_range(told, before, after);
	assert_true(day == weekday(before) || day == weekday(after));
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

IN_TIME(set_bit_freezes)
{
	struct fake_machine *f = &x->f;
	uint64_t released_ns;
	uint8_t seconds;

	set(f, REG_B, B_24H | B_SET | B_UIE);
	assert_int_equal(get(f, REG_B), B_24H | B_SET); /* SET clears UIE */
	set(f, 0, 0x58);
	set(f, 2, 0x30);
	usleep(1100000);
	assert_int_equal(get(f, 0), 0x58);
	assert_int_equal(get(f, REG_C) & 0x10, 0);
	released_ns = clock_now_ns();
	set(f, REG_B, B_24H);
	seconds = get(f, 0);
	if (in_time_late(released_ns, NS_PER_S))
		return false;
	assert_int_equal(seconds & 0xf0, 0x50);
	usleep(1000000);
	seconds = get(f, 0);
	if (in_time_late(released_ns, 60 * NS_PER_S))
		return false;
	assert_int_not_equal(seconds, 0x58);
	return true;
}

/* Linux' mc146818_set_time(): SET, divider reset, write, release both; the next second begins half
 * a second later. */
IN_TIME(divider_reset)
{
	struct fake_machine *f = &x->f;
	uint64_t released_ns;
	uint8_t seconds;

	set(f, REG_B, B_24H | B_SET);
	set(f, REG_A, 0x76);
	set(f, 0, 0x10);
	set(f, REG_B, B_24H);
	usleep(600000);
	assert_int_equal(get(f, 0), 0x10); /* still held */
	released_ns = clock_now_ns();
	set(f, REG_A, 0x26);
	usleep(200000);
	seconds = get(f, 0);
	if (in_time_late(released_ns, NS_PER_S / 2))
		return false;
	assert_int_equal(seconds, 0x10);
	usleep(500000);
	seconds = get(f, 0);
	if (in_time_late(released_ns, NS_PER_S * 3 / 2))
		return false;
	assert_int_equal(seconds, 0x11);
	return true;
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
	uint64_t end = clock_now_ns() + PATIENCE_NS; /* a busy host misses 244 us easily */
	bool seen = false;

	while (!seen && clock_now_ns() < end)
		seen = get(f, REG_A) & 0x80;
	assert_true(seen);
	set(f, REG_B, B_24H | B_SET);
	end = clock_now_ns() + NS_PER_S + 100 * NS_PER_MS;
	while (clock_now_ns() < end)
		assert_false(get(f, REG_A) & 0x80);
}

/* The clock is the host's, so the next event comes when a second of the host's begins. */
IN_TIME(update_interrupt)
{
	struct fake_machine *f = &x->f;

	get(f, REG_C);
	set(f, REG_B, B_24H | B_UIE);
	for (int i = 1; i <= 2; i++) {
		uint8_t c[2];
		int nr_raised;
		time_t second;
		bool line;

		assert_true(fake_wait_line(f, BOARD_RTC_GSI, true, PATIENCE_NS));
		second = host_second();
		c[0] = get(f, REG_C);
		line = fake_line(f, BOARD_RTC_GSI);
		c[1] = get(f, REG_C);
		nr_raised = fake_raised(f, BOARD_RTC_GSI);
		if (host_second() != second)
			return false;
		assert_int_equal(c[0] & 0x90, 0x90);
		assert_false(line);
		assert_int_equal(c[1] & 0x90, 0);
		assert_int_equal(nr_raised, i);
	}
	return true;
}

static int ticks_in_a_second(struct fake_machine *f)
{
	uint64_t start_ns = clock_now_ns();
	int nr = 0;

	while (!in_time_late(start_ns, NS_PER_S)) {
		if (fake_line(f, BOARD_RTC_GSI) && get(f, REG_C) & 0x40)
			nr++;
		usleep(500);
	}
	return nr;
}

/* Never more than 64 a second; fewer where the processors were busy, but not in every second. */
static void periodic_interrupt(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;
	uint64_t end = clock_now_ns() + PATIENCE_NS;
	int nr;

	set(f, REG_A, 0x2a); /* 64 Hz */
	set(f, REG_B, B_24H | B_PIE);
	do {
		nr = ticks_in_a_second(f);
		assert_true(nr <= 66);
	} while (nr < 10 && clock_now_ns() < end);
	assert_true(nr >= 10);
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

/* At the second second of the host's that begins from now on. */
IN_TIME(alarm_interrupt)
{
	struct fake_machine *f = &x->f;
	time_t set_at = host_second();
	uint8_t seconds, hours, c;
	bool line;

	set_clock(f, B_24H, 0x23, 0x59, 0x58);
	set(f, 1, 0x00);
	set(f, 3, 0xff); /* any minute */
	set(f, 5, 0x00);
	get(f, REG_C);
	set(f, REG_B, B_24H | B_AIE);
	usleep(700000);
	line = fake_line(f, BOARD_RTC_GSI);
	if (host_second() >= set_at + 2)
		return false;
	assert_false(line);
	assert_true(fake_wait_line(f, BOARD_RTC_GSI, true, PATIENCE_NS));
	seconds = get(f, 0);
	hours = get(f, 4);
	c = get(f, REG_C);
	line = fake_line(f, BOARD_RTC_GSI);
	if (host_second() != set_at + 2)
		return false;
	assert_int_equal(seconds, 0x00);
	assert_int_equal(hours, 0x00);
	assert_int_equal(c & 0xa0, 0xa0);
	assert_false(line);
	return true;
}

static void reset_keeps_the_clock(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	set(f, 0x40, 0x5a);
	set_clock(f, B_24H | B_UIE, 0x03, 0x00, 0x00);
	assert_true(fake_wait_line(f, BOARD_RTC_GSI, true, PATIENCE_NS));
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
	time_t before, after;

	set_clock(&x->f, B_24H, 0x04, 0x05, 0x06);
	set(&x->f, 0x40, 0x5a);
	before = guest_clock(&x->f);
	outb(&x->f, 0x70, 0x40);
	dev_migrate(&x->f, x->rtc, &g, d);
	assert_int_equal(inb(&g, 0x71), 0x5a); /* the index came along */
	after = guest_clock(&g);
	assert_in_range(after, before, guest_clock(&x->f)); /* which goes on, too */
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
IN_TIME(alarm_in_blackout)
{
	struct fake_machine g;
	struct device *d = other_rtc(&g);
	struct buf state_bytes = BUF_INIT;
	struct err e = ERR_INIT;
	time_t set_at;
	bool in_time;

	early_in_second();
	set_at = host_second();
	set_clock(&x->f, B_24H, 0x10, 0x00, 0x00);
	set(&x->f, 1, 0x01);
	set(&x->f, 3, 0x00);
	set(&x->f, 5, 0x10);
	get(&x->f, REG_C);
	set(&x->f, REG_B, B_24H | B_AIE);
	assert_int_equal(x->rtc->ops->quiesce(x->rtc, &e), 0);
	in_time = host_second() == set_at;
	dev_save(x->rtc, &state_bytes);
	assert_int_equal(dev_load(d, &state_bytes, &e), 0);
	if (in_time) {
		usleep(1600000);
		assert_false(fake_line(&x->f, BOARD_RTC_GSI));
		assert_false(fake_line(&g, BOARD_RTC_GSI));
		d->ops->unquiesce(d);
		assert_true(fake_line(&g, BOARD_RTC_GSI));
		assert_int_equal(get(&g, REG_C) & 0xa0, 0xa0);
	}
	buf_fini(&state_bytes);
	d->ops->free(d);
	fake_fini(&g);
	return in_time;
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
