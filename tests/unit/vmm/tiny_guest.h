/*
 * Guests of a few instructions: 32-bit code behind a Multiboot 1 header, as a file that vm_boot()
 * takes, and a machine to run it in. Include after cmocka.
 */
#pragma once

#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/rig/must.h"
#include "vmm/base/clock.h"
#include "vmm/vm.h"

#define TINY_LOAD_GPA 0x100000u
#define TINY_DATA_GPA 0x200000u

#define TINY_PATIENCE_NS (60 * NS_PER_S)

struct tiny {
	char path[64];
	struct vm *vm;
	/* events, counted by type */
	atomic_uint nr_events[VM_EVENT_ERROR + 1];
	atomic_int code;
	char text[256];
};

static inline void tiny_on_event(void *ctx, const struct vm_event *ev)
{
	struct tiny *t = ctx;

	atomic_store(&t->code, ev->code);
	memcpy(t->text, ev->text, sizeof(t->text));
	atomic_fetch_add(&t->nr_events[ev->type], 1);
}

static inline void tiny_write_image(struct tiny *t, const uint8_t *code, size_t len)
{
	const uint32_t flags = 1u << 16;
	const uint32_t header[8] = {
		0x1badb002, flags, 0u - 0x1badb002u - flags,      TINY_LOAD_GPA, TINY_LOAD_GPA,
		0,          0,     TINY_LOAD_GPA + sizeof(header)};
	int fd;

	snprintf(t->path, sizeof(t->path), "/tmp/godwit-tiny-XXXXXX");
	fd = mkstemp(t->path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, header, sizeof(header)), sizeof(header));
	assert_int_equal(write(fd, code, len), len);
	close(fd);
}

static inline void tiny_new_as(struct tiny *t, struct vm_config config, const uint8_t *code,
			       size_t len)
{
	struct err e = ERR_INIT;

	memset(t, 0, sizeof(*t));
	if (code) {
		tiny_write_image(t, code, len);
		config.kernel = t->path;
	}
	if (vm_new(&config, tiny_on_event, t, &t->vm, &e) < 0)
		fail_msg("%s", e.msg);
	if (code && vm_boot(t->vm, &e) < 0)
		fail_msg("%s", e.msg);
}

/* @code NULL: a machine without an image, as on a destination. */
static inline void tiny_new(struct tiny *t, uint32_t nr_cpus, const uint8_t *code, size_t len)
{
	const struct vm_config config = {
		.memory_bytes = 16 << 20, .nr_cpus = nr_cpus, .debug_exit = true};

	tiny_new_as(t, config, code, len);
}

static inline void tiny_free(struct tiny *t)
{
	vm_free(t->vm);
	if (t->path[0])
		unlink(t->path);
}

static inline uint32_t tiny_word(struct tiny *t, uint64_t gpa)
{
	return __atomic_load_n((const uint32_t *)guest_mem_at(vm_mem(t->vm), gpa, 4),
			       __ATOMIC_RELAXED);
}

static inline void tiny_wait_event(struct tiny *t, enum vm_event_type type, unsigned int nr)
{
	uint64_t deadline = clock_now_ns() + TINY_PATIENCE_NS;

	while (atomic_load(&t->nr_events[type]) < nr && clock_now_ns() < deadline)
		usleep(200);
	assert_true(atomic_load(&t->nr_events[type]) >= nr);
}

/* Wait until the guest's counter has moved. */
static inline void tiny_wait_moving(struct tiny *t)
{
	uint32_t before = tiny_word(t, TINY_DATA_GPA);
	uint64_t deadline = clock_now_ns() + TINY_PATIENCE_NS;

	while (tiny_word(t, TINY_DATA_GPA) == before && clock_now_ns() < deadline)
		usleep(100);
	assert_int_not_equal(tiny_word(t, TINY_DATA_GPA), before);
}
