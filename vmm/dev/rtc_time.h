/*
 * The calendar of an MC146818: time as its registers hold it, in whichever format register B
 * selects. Pure functions.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define RTC_NVRAM_BYTES 128

enum rtc_register {
	RTC_SECONDS = 0,
	RTC_SECONDS_ALARM = 1,
	RTC_MINUTES = 2,
	RTC_MINUTES_ALARM = 3,
	RTC_HOURS = 4,
	RTC_HOURS_ALARM = 5,
	RTC_WEEKDAY = 6,
	RTC_DAY = 7,
	RTC_MONTH = 8,
	RTC_YEAR = 9,
	RTC_A = 10,
	RTC_B = 11,
	RTC_C = 12,
	RTC_D = 13,
	RTC_CENTURY = 0x32, /* the FADT's CENTURY field names it */
};

#define RTC_B_24H    0x02
#define RTC_B_BINARY 0x04
#define RTC_B_UIE    0x10
#define RTC_B_AIE    0x20
#define RTC_B_PIE    0x40
#define RTC_B_SET    0x80

/* Seconds since 1970 in UTC and nanoseconds into the second. */
struct rtc_time {
	int64_t s;
	uint32_t ns;
};

bool rtc_is_time_register(uint8_t reg); /* alarm registers are not */

/* Time registers from @s, and back. Registers that make no valid date mean the date that carrying
 * over yields (February 30 is March 1 or 2). */
void rtc_encode(uint8_t *nvram, int64_t s);
int64_t rtc_decode(const uint8_t *nvram);

/* Does the alarm strike at second @s? */
bool rtc_alarm_matches(const uint8_t *nvram, int64_t s);

struct rtc_time rtc_time_add(struct rtc_time a, struct rtc_time b);
struct rtc_time rtc_time_sub(struct rtc_time a, struct rtc_time b);
