/*
 * What the tests of serial back ends share: a receiver, a folder of their own, what a reader must
 * have got.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/unit/dev/fake_machine.h"

#define SERIAL_WAIT_NS (60 * NS_PER_S)

/* A receiver that takes at most `room` bytes. */
struct sink {
	pthread_mutex_t lock;
	char data[8192];
	size_t len;
	size_t room;
	int nr_calls;
};

static inline void sink_init(struct sink *s, size_t room)
{
	*s = (struct sink){.room = room};
	pthread_mutex_init(&s->lock, NULL);
}

static inline size_t sink_input(void *ctx, const uint8_t *data, size_t len)
{
	struct sink *s = ctx;

	pthread_mutex_lock(&s->lock);
	len = len < s->room - s->len ? len : s->room - s->len;
	memcpy(s->data + s->len, data, len);
	s->len += len;
	s->nr_calls++;
	pthread_mutex_unlock(&s->lock);
	return len;
}

static inline size_t sink_len(struct sink *s)
{
	size_t len;

	pthread_mutex_lock(&s->lock);
	len = s->len;
	pthread_mutex_unlock(&s->lock);
	return len;
}

static inline void sink_wait(struct sink *s, size_t len)
{
	uint64_t end = clock_now_ns() + SERIAL_WAIT_NS;

	while (sink_len(s) < len && clock_now_ns() < end)
		usleep(1000);
	assert_int_equal(sink_len(s), len);
}

static inline void sink_set_room(struct sink *s, size_t room)
{
	pthread_mutex_lock(&s->lock);
	s->room = room;
	pthread_mutex_unlock(&s->lock);
}

static inline int make_dir(void **state)
{
	char *dir = strdup("/tmp/godwit-serial-XXXXXX");

	assert_non_null(mkdtemp(dir));
	*state = dir;
	return 0;
}

static inline int remove_dir(void **state)
{
	if (rmdir(*state))
		return -1; /* something was left behind */
	free(*state);
	return 0;
}

static inline void file_path(char *out, size_t cap, const void *dir)
{
	snprintf(out, cap, "%s/x", (const char *)dir);
}

static inline void expect_bytes(int fd, const char *text)
{
	char got[256] = "";
	size_t len = strlen(text);

	for (size_t n = 0; n < len;) {
		ssize_t r = read(fd, got + n, len - n);

		assert_true(r > 0);
		n += (size_t)r;
	}
	assert_string_equal(got, text);
}

static inline uint64_t process_cpu_ns(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * NS_PER_S +
	       ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * NS_PER_US;
}

/* Does this process sleep? It is looked at for a fifth of a second, and again where the machine was
 * held up meanwhile; a thread that loops sleeps in none of them. */
static inline bool comes_to_rest(void)
{
	uint64_t end = clock_now_ns() + SERIAL_WAIT_NS;
	uint64_t cpu;

	do {
		cpu = process_cpu_ns();
		usleep(200000);
		cpu = process_cpu_ns() - cpu;
	} while (cpu > 60 * NS_PER_MS && clock_now_ns() < end);
	return cpu <= 60 * NS_PER_MS;
}
