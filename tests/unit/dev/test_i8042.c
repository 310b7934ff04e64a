#include <stdlib.h>

#include "tests/unit/dev/fake_machine.h"

#define DATA    0x60
#define COMMAND 0x64

struct fixture {
	struct fake_machine f;
	struct device *kbc;
};

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	struct err e = ERR_INIT;

	fake_init(&x->f);
	assert_int_equal(i8042_new(&x->f.m, &x->kbc, &e), 0);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	x->kbc->ops->free(x->kbc);
	fake_fini(&x->f);
	free(x);
	return 0;
}

static uint8_t command(struct fake_machine *f, uint8_t cmd)
{
	outb(f, COMMAND, cmd);
	assert_int_equal(inb(f, COMMAND) & 0x0b, 0x09); /* answered at once: no time-out */
	return inb(f, DATA);
}

static void set_config(struct fake_machine *f, uint8_t value)
{
	outb(f, COMMAND, 0x60);
	outb(f, DATA, value);
}

static void expect_reply(struct fake_machine *f, uint8_t byte)
{
	assert_int_equal(inb(f, COMMAND) & 0x21, 0x01);
	assert_int_equal(inb(f, DATA), byte);
}

/* The order of drivers/input/serio/i8042.c: flush, self-test, configuration, AUX checks. */
static void linux_probe(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	assert_int_equal(inb(f, COMMAND), 0x1c);
	assert_int_equal(command(f, 0xaa), 0x55);
	assert_int_equal(command(f, 0x20), 0x65);
	set_config(f, 0x74);
	assert_int_equal(command(f, 0x20), 0x74);
	assert_int_equal(command(f, 0xab), 0x00);
	/* AUX loop: the answer lacks the AUX bit, and the AUX test fails: no mouse port. */
	outb(f, COMMAND, 0xd3);
	outb(f, DATA, 0x5a);
	expect_reply(f, 0x5a);
	assert_int_equal(command(f, 0xa9), 0x01);
	outb(f, COMMAND, 0xae);
	outb(f, COMMAND, 0xa8);
	assert_int_equal(command(f, 0x20), 0x44);
	outb(f, COMMAND, 0xad);
	outb(f, COMMAND, 0xa7);
	assert_int_equal(command(f, 0x20), 0x74);
	assert_int_equal(f->nr_requests, 0);
}

/* drivers/input/keyboard/atkbd.c: every byte is acknowledged, with one edge of IRQ 1 for each. */
static void keyboard_answers(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	set_config(f, 0x65);
	outb(f, DATA, 0xff);
	assert_true(fake_line(f, BOARD_KBD_GSI));
	expect_reply(f, 0xfa);
	expect_reply(f, 0xaa);
	assert_false(fake_line(f, BOARD_KBD_GSI));
	assert_int_equal(fake_raised(f, BOARD_KBD_GSI), 2);
	outb(f, DATA, 0xf2);
	expect_reply(f, 0xfa);
	expect_reply(f, 0xab);
	expect_reply(f, 0x41);
	set_config(f, 0x24); /* untranslated, no interrupt */
	outb(f, DATA, 0xf2);
	assert_false(fake_line(f, BOARD_KBD_GSI));
	expect_reply(f, 0xfa);
	expect_reply(f, 0xab);
	expect_reply(f, 0x83);
	outb(f, DATA, 0xed);
	expect_reply(f, 0xfa);
	outb(f, DATA, 0x02);
	expect_reply(f, 0xfa);
	outb(f, DATA, 0xf0);
	expect_reply(f, 0xfa);
	outb(f, DATA, 0x00);
	expect_reply(f, 0xfa);
	expect_reply(f, 0x02);
	outb(f, DATA, 0xee);
	expect_reply(f, 0xee);
	assert_int_equal(inb(f, COMMAND) & 1, 0);
}

static void no_auxiliary_device(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	outb(f, COMMAND, 0xd4);
	outb(f, DATA, 0xf2);
	assert_int_equal(inb(f, COMMAND) & 0x61, 0x61); /* time-out, from AUX */
	assert_int_equal(inb(f, DATA), 0xfe);
	assert_false(fake_line(f, BOARD_KBD_GSI));
}

static void ram_and_output_port(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	outb(f, COMMAND, 0x7f);
	outb(f, DATA, 0x5a);
	assert_int_equal(command(f, 0x3f), 0x5a);
	assert_int_equal(command(f, 0xd0), 0x03);
	outb(f, COMMAND, 0xd1);
	outb(f, DATA, 0xdd);
	assert_int_equal(command(f, 0xd0) & 2, 0);
	outb(f, COMMAND, 0xdf);
	assert_int_equal(command(f, 0xd0) & 2, 2);
	assert_int_equal(f->nr_requests, 0);
	outb(f, COMMAND, 0xd1); /* output port bit 0 low: reset */
	outb(f, DATA, 0xde);
	assert_int_equal(f->nr_requests, 1);
}

static void reset_pulse(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	outb(f, COMMAND, 0xff); /* pulses nothing */
	assert_int_equal(f->nr_requests, 0);
	outb(f, COMMAND, 0xfe);
	assert_int_equal(f->nr_requests, 1);
	assert_int_equal(f->request, MACHINE_RESET);
	x->kbc->ops->reset(x->kbc);
	assert_int_equal(command(f, 0x20), 0x65);
}

static void overflow_is_harmless(void **state)
{
	struct fixture *x = *state;
	struct fake_machine *f = &x->f;

	for (int i = 0; i < 100; i++)
		outb(f, DATA, 0xf2);
	for (int i = 0; i < 16; i++) {
		assert_int_equal(inb(f, COMMAND) & 1, 1);
		inb(f, DATA);
	}
	assert_int_equal(inb(f, COMMAND) & 1, 0);
}

/* Between a command and its data byte, with answers still unread. */
static void save_mid_flight(void **state)
{
	struct fixture *x = *state;
	struct fake_machine g;
	struct device *d;
	struct err e = ERR_INIT;

	fake_init(&g);
	assert_int_equal(i8042_new(&g.m, &d, &e), 0);
	outb(&x->f, COMMAND, 0xd4);
	outb(&x->f, DATA, 0xf2);
	outb(&x->f, DATA, 0xff);
	outb(&x->f, DATA, 0xed);
	outb(&x->f, COMMAND, 0x65);
	dev_migrate(&x->f, x->kbc, &g, d);
	outb(&g, DATA, 0x77); /* the byte for command 0x65 */
	assert_int_equal(inb(&g, COMMAND) & 0x69, 0x61);
	assert_int_equal(inb(&g, DATA), 0xfe);
	assert_true(fake_line(&g, BOARD_KBD_GSI));
	expect_reply(&g, 0xfa);
	expect_reply(&g, 0xaa);
	expect_reply(&g, 0xfa);
	outb(&g, DATA, 0x02); /* the argument of 0xed */
	expect_reply(&g, 0xfa);
	assert_int_equal(command(&g, 0x25), 0x77);
	d->ops->free(d);
	fake_fini(&g);
}

#define UNIT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNIT(linux_probe),         UNIT(keyboard_answers), UNIT(no_auxiliary_device),
		UNIT(ram_and_output_port), UNIT(reset_pulse),      UNIT(overflow_is_harmless),
		UNIT(save_mid_flight),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
