/* The devices of --test-devices: fw_cfg, the shutdown port, the test device, the HPET. */
#include <stdlib.h>

#include "tests/unit/dev/fake_machine.h"
#include "tests/unit/dev/in_time.h"

struct fixture {
	struct fake_machine f;
	struct device *fw_cfg, *shutdown, *test, *hpet;
};

static void make(struct fixture *x)
{
	struct err e = ERR_INIT;

	fake_init(&x->f);
	assert_int_equal(fw_cfg_new(&x->f.m, 3, &x->fw_cfg, &e), 0);
	assert_int_equal(shutdown_port_new(&x->f.m, &x->shutdown, &e), 0);
	assert_int_equal(test_device_new(&x->f.m, &x->test, &e), 0);
	assert_int_equal(hpet_new(&x->f.m, &x->hpet, &e), 0);
}

static void unmake(struct fixture *x)
{
	struct device *all[] = {x->fw_cfg, x->shutdown, x->test, x->hpet};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		all[i]->ops->free(all[i]);
	fake_fini(&x->f);
}

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));

	make(x);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	unmake(*state);
	free(*state);
	return 0;
}

/* --- fw_cfg --- */

static uint64_t item(struct fake_machine *f, uint16_t key, uint32_t bytes)
{
	uint64_t value = 0;

	io_out(f, BOARD_FW_CFG_PORT, key, 2);
	for (uint32_t i = 0; i < bytes; i++)
		value |= (uint64_t)inb(f, BOARD_FW_CFG_PORT + 1) << 8 * i;
	return value;
}

static void fw_cfg_items(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	assert_int_equal(item(f, 0x00, 4), 0x554d4551); /* "QEMU" */
	assert_int_equal(item(f, 0x03, 8), FAKE_MEMORY_BYTES);
	assert_int_equal(item(f, 0x05, 2), 3);
	assert_int_equal(item(f, 0x0f, 2), 3);
	assert_int_equal(item(f, 0x11, 8), FAKE_MEMORY_BYTES);
	assert_int_equal(item(f, 0x1234, 8), 0);
	item(f, 0x03, 8);
	assert_int_equal(inb(f, BOARD_FW_CFG_PORT + 1), 0); /* past the end */
	io_out(f, BOARD_FW_CFG_PORT, 0x05, 1);              /* a selector has 16 bits */
	assert_int_equal(inb(f, BOARD_FW_CFG_PORT + 1), 0);
}

static void fw_cfg_moves_in_mid_item(void **state)
{
	struct fixture *x = *state, y;

	make(&y);
	item(&x->f, 0x03, 3);
	dev_migrate(&x->f, x->fw_cfg, &y.f, y.fw_cfg);
	assert_int_equal(inb(&y.f, BOARD_FW_CFG_PORT + 1), FAKE_MEMORY_BYTES >> 24);
	x->fw_cfg->ops->reset(x->fw_cfg);
	assert_int_equal(inb(&x->f, BOARD_FW_CFG_PORT + 1), 'Q');
	unmake(&y);
}

/* --- the shutdown port --- */

static void spell(struct fake_machine *f, const char *text)
{
	while (*text)
		outb(f, BOARD_SHUTDOWN_PORT, (uint8_t)*text++);
}

static void shutdown_wants_the_whole_word(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	spell(f, "Shutdow");
	spell(f, "Shutdow");
	io_out(f, BOARD_SHUTDOWN_PORT, 'n', 2);
	spell(f, "hutdown");
	assert_int_equal(f->nr_requests, 0);
	spell(f, "ShutShutdown");
	assert_int_equal(f->nr_requests, 1);
	assert_int_equal(f->request, MACHINE_POWEROFF);
	spell(f, "n");
	assert_int_equal(f->nr_requests, 1);
	assert_int_equal(inb(f, BOARD_SHUTDOWN_PORT), 0xff);
}

static void shutdown_moves_in_mid_word(void **state)
{
	struct fixture *x = *state, y;

	make(&y);
	spell(&x->f, "Shut");
	dev_migrate(&x->f, x->shutdown, &y.f, y.shutdown);
	spell(&y.f, "down");
	assert_int_equal(y.f.nr_requests, 1);
	x->shutdown->ops->reset(x->shutdown);
	spell(&x->f, "down");
	assert_int_equal(x->f.nr_requests, 0);
	unmake(&y);
}

/* --- the test device --- */

static uint64_t memory(struct fake_machine *f, uint64_t offset, uint32_t len)
{
	uint64_t value = 0;

	bus_read(f->m.bus, BUS_MMIO, BOARD_TEST_MEMORY + offset, &value, len);
	return value;
}

static void set_memory(struct fake_machine *f, uint64_t offset, uint64_t value, uint32_t len)
{
	bus_write(f->m.bus, BUS_MMIO, BOARD_TEST_MEMORY + offset, &value, len);
}

static void echo_and_memory_keep_what_is_written(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	io_out(f, BOARD_TEST_ECHO_PORT, 0x12345678, 4);
	assert_int_equal(io_in(f, BOARD_TEST_ECHO_PORT, 4), 0x12345678);
	assert_int_equal(io_in(f, BOARD_TEST_ECHO_PORT + 1, 2), 0x3456);
	outb(f, BOARD_TEST_ECHO_PORT + 3, 0xab);
	assert_int_equal(io_in(f, BOARD_TEST_ECHO_PORT, 4), 0xab345678);
	set_memory(f, 0, 0x0123456789abcdef, 8);
	set_memory(f, 0xfff8, 0x1122334455667788, 8);
	assert_int_equal(memory(f, 2, 2), 0x89ab);
	assert_int_equal(memory(f, 0xfffc, 4), 0x11223344);
	assert_int_equal(memory(f, 0xffff, 1), 0x11);
}

static void lines_follow_the_ports(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	outb(f, BOARD_TEST_LINES_PORT + 14, 1);
	io_out(f, BOARD_TEST_LINES_PORT + 20, 0x0100, 4);
	assert_true(fake_line(f, 14) && fake_line(f, 20) && !fake_line(f, 15));
	outb(f, BOARD_TEST_LINES_PORT + 14, 0);
	assert_false(fake_line(f, 14));
	x->test->ops->reset(x->test);
	assert_false(fake_line(f, 20));
}

/* The page stays what it was; memory that is not there is no reason to fail. */
static void flushing_loses_nothing(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;
	struct err e = ERR_INIT;
	uint32_t value = 0xfeedface;

	assert_int_equal(guest_mem_write(f->m.mem, 0x5ffc, &value, sizeof(value), &e), 0);
	io_out(f, BOARD_TEST_FLUSH_PORT, 0x5123, 4);
	io_out(f, BOARD_TEST_FLUSH_PORT, 0xfffff000, 4);
	value = 0;
	assert_int_equal(guest_mem_read(f->m.mem, 0x5ffc, &value, sizeof(value), &e), 0);
	assert_int_equal(value, 0xfeedface);
}

static void test_device_moves(void **state)
{
	struct fixture *x = *state, y;

	make(&y);
	outb(&x->f, BOARD_TEST_LINES_PORT + 7, 1);
	io_out(&x->f, BOARD_TEST_ECHO_PORT, 0xcafe, 4);
	set_memory(&x->f, 0x8000, 0x55aa, 2);
	dev_migrate(&x->f, x->test, &y.f, y.test);
	assert_int_equal(io_in(&y.f, BOARD_TEST_ECHO_PORT, 4), 0xcafe);
	assert_int_equal(memory(&y.f, 0x8000, 2), 0x55aa);
	outb(&y.f, BOARD_TEST_LINES_PORT + 7, 0);
	assert_false(fake_line(&y.f, 7));
	unmake(&y);
}

static void test_device_refuses_less_memory(void **state)
{
	struct fixture *x = *state;
	/* echo 0, lines 0, two bytes of memory */
	static const uint8_t little[] = {0x08, 0, 0x10, 0, 0x1a, 2, 'a', 'b'};
	static const uint8_t line_24[] = {0x08, 0, 0x10, 0x80, 0x80, 0x80, 0x08, 0x1a, 0};
	struct err e = ERR_INIT;

	set_memory(&x->f, 0, 0x77, 1);
	assert_true(x->test->ops->load(x->test, 1, little, sizeof(little), &e) < 0);
	assert_true(strstr(e.msg, "2 bytes of memory"));
	assert_true(x->test->ops->load(x->test, 1, line_24, sizeof(line_24), &e) < 0);
	assert_true(strstr(e.msg, "lines"));
	assert_int_equal(memory(&x->f, 0, 1), 0x77);
}

/* --- HPET --- */

#define TICKS_PER_MS 100000ull
#define LEVEL        0x2u
#define ENABLE       0x4u
#define PERIODIC     0x8u
#define SET_VALUE    0x40u
#define ON_LINE(gsi) ((uint32_t)(gsi) << 9)
#define CONFIG_OF(n) (0x100 + 0x20 * (n))
#define VALUE_OF(n)  (0x108 + 0x20 * (n))
#define PATIENCE_NS  (60 * NS_PER_S)
#define MOVE_NS      (30 * NS_PER_MS)

static uint64_t reg(struct fake_machine *f, uint64_t offset, uint32_t len)
{
	uint64_t value = 0;

	bus_read(f->m.bus, BUS_MMIO, BOARD_HPET + offset, &value, len);
	return value;
}

static void set_reg(struct fake_machine *f, uint64_t offset, uint64_t value, uint32_t len)
{
	bus_write(f->m.bus, BUS_MMIO, BOARD_HPET + offset, &value, len);
}

static void counter_counts_while_enabled(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;
	uint64_t start_ns, ticks;

	assert_int_equal(reg(f, 0, 8) >> 32, 10000000); /* fs */
	assert_int_equal(reg(f, 4, 4), 10000000);
	set_reg(f, 0xf0, 12345, 8);
	assert_int_equal(reg(f, 0xf0, 8), 12345);
	start_ns = clock_now_ns();
	set_reg(f, 0x10, 1, 4);
	clock_sleep_until_ns(start_ns + 3 * NS_PER_MS);
	ticks = reg(f, 0xf0, 8) - 12345;
	assert_true(ticks <= (clock_now_ns() - start_ns) / 10);
	set_reg(f, 0xf0, 0, 8); /* not while it runs */
	assert_true(reg(f, 0xf0, 8) >= ticks);
	set_reg(f, 0x10, 0, 8);
	ticks = reg(f, 0xf0, 8);
	assert_true(ticks > 12345 + 2 * TICKS_PER_MS);
	clock_sleep_until_ns(clock_now_ns() + NS_PER_MS);
	assert_int_equal(reg(f, 0xf0, 8), ticks);
}

static void edge_comparator_fires_once(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	set_reg(f, CONFIG_OF(0), ENABLE | ON_LINE(21), 4);
	set_reg(f, VALUE_OF(0), 2 * TICKS_PER_MS, 8);
	assert_int_equal(fake_raised(f, 21), 0);
	set_reg(f, 0x10, 1, 4);
	assert_true(fake_wait_raised(f, 21, 1, PATIENCE_NS));
	assert_true(reg(f, 0xf0, 8) >= 2 * TICKS_PER_MS);
	clock_sleep_until_ns(clock_now_ns() + 5 * NS_PER_MS);
	assert_int_equal(fake_raised(f, 21), 1);
	assert_int_equal(reg(f, 0x20, 4), 0);
}

static void level_comparator_holds_its_line(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	set_reg(f, CONFIG_OF(2), ENABLE | LEVEL | ON_LINE(22), 4);
	set_reg(f, VALUE_OF(2), TICKS_PER_MS, 8);
	set_reg(f, 0x10, 1, 4);
	assert_true(fake_wait_line(f, 22, true, PATIENCE_NS));
	assert_int_equal(reg(f, 0x20, 4), 1u << 2);
	set_reg(f, 0x20, 1u << 1, 4);
	assert_true(fake_line(f, 22));
	set_reg(f, 0x20, 1u << 2, 4);
	assert_false(fake_line(f, 22));
}

static void periodic_comparator_goes_on(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;
	uint64_t value;

	set_reg(f, CONFIG_OF(1), ENABLE | PERIODIC | SET_VALUE | ON_LINE(20), 4);
	set_reg(f, VALUE_OF(1), TICKS_PER_MS, 8);
	assert_int_equal(reg(f, CONFIG_OF(1), 4) & SET_VALUE, 0);
	set_reg(f, VALUE_OF(1), 2 * TICKS_PER_MS, 8);
	assert_int_equal(reg(f, VALUE_OF(1), 8), TICKS_PER_MS);
	set_reg(f, 0x10, 1, 4);
	assert_true(fake_wait_raised(f, 20, 4, PATIENCE_NS));
	set_reg(f, 0x10, 0, 4);
	value = reg(f, VALUE_OF(1), 8);
	assert_int_equal((value - TICKS_PER_MS) % (2 * TICKS_PER_MS), 0);
	assert_true(value > reg(f, 0xf0, 8));
}

/* A match that was due is not lost because the counter stops before the timer has run. */
static void stopping_the_counter_loses_no_match(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;
	uint64_t period = TICKS_PER_MS / 100;

	for (int i = 0; i < 1000; i++) {
		set_reg(f, 0xf0, 0, 8);
		set_reg(f, CONFIG_OF(1), ENABLE | PERIODIC | SET_VALUE | ON_LINE(20), 4);
		set_reg(f, VALUE_OF(1), period, 8);
		set_reg(f, 0x10, 1, 4);
		while (reg(f, 0xf0, 8) < period)
			;
		set_reg(f, 0x10, 0, 4);
		assert_true(reg(f, VALUE_OF(1), 8) > reg(f, 0xf0, 8));
		assert_true(fake_raised(f, 20) > i);
	}
}

static void unwired_comparator_is_quiet(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	set_reg(f, CONFIG_OF(0), ENABLE | LEVEL | ON_LINE(4), 4); /* not one of its lines */
	set_reg(f, VALUE_OF(0), 1, 4);
	set_reg(f, 0x10, 1, 4);
	clock_sleep_until_ns(clock_now_ns() + 2 * NS_PER_MS);
	assert_int_equal(reg(f, 0x20, 4), 1);
	for (uint32_t gsi = 0; gsi < FAKE_NR_GSI; gsi++)
		assert_int_equal(fake_raised(f, gsi), 0);
	set_reg(f, CONFIG_OF(0), ENABLE, 4);
	assert_int_equal(reg(f, 0x20, 4), 0); /* an edge has no status */
}

/* A match that comes up before the move is the source's, and says nothing. */
IN_TIME(hpet_moves_and_goes_on)
{
	struct fixture y;
	uint64_t before, start_ns;
	bool late;

	make(&y);
	set_reg(&x->f, CONFIG_OF(2), ENABLE | LEVEL | ON_LINE(23), 4);
	set_reg(&x->f, VALUE_OF(2), 1, 8);
	set_reg(&x->f, CONFIG_OF(0), ENABLE | ON_LINE(21), 4);
	set_reg(&x->f, VALUE_OF(0), MOVE_NS / 10, 8);
	start_ns = clock_now_ns();
	set_reg(&x->f, 0x10, 1, 4);
	assert_true(fake_wait_line(&x->f, 23, true, PATIENCE_NS));
	before = reg(&x->f, 0xf0, 8);
	dev_migrate(&x->f, x->hpet, &y.f, y.hpet);
	late = in_time_late(start_ns, MOVE_NS);
	assert_true(reg(&y.f, 0xf0, 8) >= before);
	set_reg(&y.f, 0x20, 1u << 2, 4);
	assert_false(fake_line(&y.f, 23));
	if (!late) {
		assert_true(fake_wait_raised(&y.f, 21, 1, PATIENCE_NS));
		assert_int_equal(fake_raised(&y.f, 21), 1);
		assert_int_equal(fake_raised(&x->f, 21), 0); /* quiesced for good */
	}
	unmake(&y);
	return !late;
}

#define UNIT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNIT(fw_cfg_items),
		UNIT(fw_cfg_moves_in_mid_item),
		UNIT(shutdown_wants_the_whole_word),
		UNIT(shutdown_moves_in_mid_word),
		UNIT(echo_and_memory_keep_what_is_written),
		UNIT(lines_follow_the_ports),
		UNIT(flushing_loses_nothing),
		UNIT(test_device_moves),
		UNIT(test_device_refuses_less_memory),
		UNIT(counter_counts_while_enabled),
		UNIT(edge_comparator_fires_once),
		UNIT(level_comparator_holds_its_line),
		UNIT(periodic_comparator_goes_on),
		UNIT(stopping_the_counter_loses_no_match),
		UNIT(unwired_comparator_is_quiet),
		UNIT(hpet_moves_and_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
