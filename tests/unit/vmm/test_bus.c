/* vmm/bus.c: who answers which address. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "vmm/bus.h"

struct probe {
	uint64_t offset;
	uint32_t len;
	uint64_t value;
};

static void probe_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct probe *p = ctx;

	p->offset = offset;
	p->len = len;
	memcpy(data, &p->value, len);
}

static void probe_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct probe *p = ctx;

	p->offset = offset;
	p->len = len;
	memcpy(&p->value, data, len);
}

static const struct bus_ops ops = {.read = probe_read, .write = probe_write};

static int setup(void **state)
{
	struct err e = ERR_INIT;

	return bus_new((struct bus **)state, &e);
}

static int teardown(void **state)
{
	bus_free(*state);
	return 0;
}

static void ranges_are_found_in_any_order(void **state)
{
	struct probe a = {.value = 0xaa};
	struct probe b = {.value = 0xbb};
	struct probe c = {.value = 0xcc};
	struct err e = ERR_INIT;
	uint8_t got = 0;

	assert_int_equal(bus_add(*state, BUS_PIO, 0x3f8, 8, "b", &ops, &b, &e), 0);
	assert_int_equal(bus_add(*state, BUS_PIO, 0x60, 1, "a", &ops, &a, &e), 0);
	assert_int_equal(bus_add(*state, BUS_PIO, 0xcf9, 1, "c", &ops, &c, &e), 0);
	bus_read(*state, BUS_PIO, 0x60, &got, 1);
	assert_int_equal(got, 0xaa);
	bus_read(*state, BUS_PIO, 0x3ff, &got, 1);
	assert_int_equal(got, 0xbb);
	assert_int_equal(b.offset, 7);
	bus_read(*state, BUS_PIO, 0xcf9, &got, 1);
	assert_int_equal(got, 0xcc);
	bus_write(*state, BUS_PIO, 0x3fa, "\x12", 1);
	assert_int_equal(b.offset, 2);
	assert_int_equal(b.value & 0xff, 0x12);
}

static void spaces_are_apart(void **state)
{
	struct probe p = {.value = 1};
	struct err e = ERR_INIT;
	uint32_t got = 0;

	assert_int_equal(bus_add(*state, BUS_PIO, 0x1000, 4, "p", &ops, &p, &e), 0);
	bus_read(*state, BUS_MMIO, 0x1000, &got, 4);
	assert_int_equal(got, 0xffffffff);
	assert_int_equal(bus_add(*state, BUS_MMIO, 0x1000, 4, "p", &ops, &p, &e), 0);
	bus_read(*state, BUS_MMIO, 0x1000, &got, 4);
	assert_int_equal(got, 1);
}

static void nobody_reads_as_ones(void **state)
{
	struct probe p = {.value = 0};
	struct err e = ERR_INIT;
	uint64_t got = 0;

	assert_int_equal(bus_add(*state, BUS_PIO, 0x100, 4, "p", &ops, &p, &e), 0);
	bus_read(*state, BUS_PIO, 0xff, &got, 8);
	assert_true(got == UINT64_MAX);
	got = 0;
	bus_read(*state, BUS_PIO, 0x102, &got, 4); /* sticks out */
	assert_int_equal(got, 0xffffffff);
	bus_write(*state, BUS_PIO, 0x104, &got, 4);
	assert_int_equal(p.len, 0);
	bus_read(*state, BUS_MMIO, UINT64_MAX, &got, 1);
}

static void overlap_is_refused_and_names_both(void **state)
{
	const uint64_t at[] = {0x2f8, 0x3f8, 0x3ff, 0x3f1};
	struct probe p = {.value = 0};
	struct err e = ERR_INIT;

	assert_int_equal(bus_add(*state, BUS_PIO, 0x3f8, 8, "serial", &ops, &p, &e), 0);
	for (size_t i = 1; i < 4; i++) {
		err_clear(&e);
		assert_true(bus_add(*state, BUS_PIO, at[i], 8, "other", &ops, &p, &e) < 0);
		assert_int_equal(e.kind, ERR_STATE);
		assert_non_null(strstr(e.msg, "serial"));
		assert_non_null(strstr(e.msg, "other"));
	}
	assert_int_equal(bus_add(*state, BUS_PIO, at[0], 8, "other", &ops, &p, &e), 0);
	assert_true(bus_add(*state, BUS_PIO, 0x10, 0, "empty", &ops, &p, &e) < 0);
	assert_true(bus_add(*state, BUS_MMIO, UINT64_MAX, 2, "wraps", &ops, &p, &e) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(ranges_are_found_in_any_order, setup, teardown),
		cmocka_unit_test_setup_teardown(spaces_are_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_reads_as_ones, setup, teardown),
		cmocka_unit_test_setup_teardown(overlap_is_refused_and_names_both, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
