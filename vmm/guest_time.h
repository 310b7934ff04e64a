/*
 * How long a guest was away between two hosts, by their wall clocks. Any thread.
 *
 * The guest's TSC and kvmclock go on through a migration by this much, so that the guest's time
 * neither stops nor runs back. It is an estimate: hosts whose clocks disagree by more than the
 * migration took would shift the guest's time by the difference, so anything but 0 to 10 s counts
 * as disagreement, and the guest's time stands still instead.
 */
#pragma once

#include <stdint.h>
#include <time.h>

#define GUEST_TIME_MAX_AWAY_NS 10000000000ull

static inline uint64_t guest_time_realtime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static inline uint64_t guest_time_away_ns(uint64_t saved_realtime_ns)
{
	uint64_t now = guest_time_realtime_ns();

	if (now < saved_realtime_ns || now - saved_realtime_ns >= GUEST_TIME_MAX_AWAY_NS)
		return 0;
	return now - saved_realtime_ns;
}
