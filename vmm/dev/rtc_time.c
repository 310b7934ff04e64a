#include "vmm/dev/rtc_time.h"

#include <time.h>

#include "vmm/base/clock.h"

#define HOUR_PM         0x80
#define ALARM_ANY       0xc0 /* both top bits set: this unit does not matter */
#define SECONDS_PER_DAY 86400

bool rtc_is_time_register(uint8_t reg)
{
	switch (reg) {
	case RTC_SECONDS:
	case RTC_MINUTES:
	case RTC_HOURS:
	case RTC_WEEKDAY:
	case RTC_DAY:
	case RTC_MONTH:
	case RTC_YEAR:
	case RTC_CENTURY:
		return true;
	default:
		return false;
	}
}

static uint8_t encode(const uint8_t *nvram, int value)
{
	if (nvram[RTC_B] & RTC_B_BINARY)
		return (uint8_t)value;
	return (uint8_t)(value / 10 << 4 | value % 10);
}

static int decode(const uint8_t *nvram, uint8_t value)
{
	if (nvram[RTC_B] & RTC_B_BINARY)
		return value;
	return (value >> 4) * 10 + (value & 0x0f);
}

static uint8_t encode_hour(const uint8_t *nvram, int hour)
{
	int twelve = hour % 12 ? hour % 12 : 12;

	if (nvram[RTC_B] & RTC_B_24H)
		return encode(nvram, hour);
	return (uint8_t)(encode(nvram, twelve) | (hour >= 12 ? HOUR_PM : 0));
}

static int decode_hour(const uint8_t *nvram, uint8_t value)
{
	if (nvram[RTC_B] & RTC_B_24H)
		return decode(nvram, value);
	return decode(nvram, value & 0x7f) % 12 + (value & HOUR_PM ? 12 : 0);
}

void rtc_encode(uint8_t *nvram, int64_t s)
{
	time_t t = (time_t)s;
	struct tm tm = {.tm_mday = 1};
	int year;

	gmtime_r(&t, &tm);
	year = tm.tm_year + 1900;
	nvram[RTC_SECONDS] = encode(nvram, tm.tm_sec);
	nvram[RTC_MINUTES] = encode(nvram, tm.tm_min);
	nvram[RTC_HOURS] = encode_hour(nvram, tm.tm_hour);
	nvram[RTC_WEEKDAY] = encode(nvram, tm.tm_wday + 1);
	nvram[RTC_DAY] = encode(nvram, tm.tm_mday);
	nvram[RTC_MONTH] = encode(nvram, tm.tm_mon + 1);
	nvram[RTC_YEAR] = encode(nvram, year % 100);
	nvram[RTC_CENTURY] = encode(nvram, year / 100 % 100);
}

int64_t rtc_decode(const uint8_t *nvram)
{
	struct tm tm = {
		.tm_sec = decode(nvram, nvram[RTC_SECONDS]),
		.tm_min = decode(nvram, nvram[RTC_MINUTES]),
		.tm_hour = decode_hour(nvram, nvram[RTC_HOURS]),
		.tm_mday = decode(nvram, nvram[RTC_DAY]),
		.tm_mon = decode(nvram, nvram[RTC_MONTH]) - 1,
		.tm_year = decode(nvram, nvram[RTC_CENTURY]) * 100 +
			   decode(nvram, nvram[RTC_YEAR]) - 1900,
	};

	return timegm(&tm);
}

static bool unit_matches(uint8_t alarm, uint8_t value)
{
	return alarm >= ALARM_ANY || alarm == value;
}

bool rtc_alarm_matches(const uint8_t *nvram, int64_t s)
{
	int of_day = (int)((s % SECONDS_PER_DAY + SECONDS_PER_DAY) % SECONDS_PER_DAY);

	return unit_matches(nvram[RTC_SECONDS_ALARM], encode(nvram, of_day % 60)) &&
	       unit_matches(nvram[RTC_MINUTES_ALARM], encode(nvram, of_day / 60 % 60)) &&
	       unit_matches(nvram[RTC_HOURS_ALARM], encode_hour(nvram, of_day / 3600));
}

struct rtc_time rtc_time_add(struct rtc_time a, struct rtc_time b)
{
	uint64_t ns = (uint64_t)a.ns + b.ns;

	return (struct rtc_time){.s = a.s + b.s + (int64_t)(ns / NS_PER_S),
				 .ns = (uint32_t)(ns % NS_PER_S)};
}

struct rtc_time rtc_time_sub(struct rtc_time a, struct rtc_time b)
{
	bool borrow = a.ns < b.ns;

	return (struct rtc_time){.s = a.s - b.s - borrow,
				 .ns = (uint32_t)(a.ns + (borrow ? NS_PER_S : 0) - b.ns)};
}
