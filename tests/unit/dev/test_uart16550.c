#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/dev/fake_machine.h"

#define COM(reg) ((uint16_t)(BOARD_SERIAL_PORT + (reg)))
#define DATA     COM(0)
#define IER      COM(1)
#define IIR      COM(2)
#define FCR      COM(2)
#define LCR      COM(3)
#define MCR      COM(4)
#define LSR      COM(5)
#define MSR      COM(6)
#define SCR      COM(7)

#define LOOP 0x10

struct fixture {
	struct fake_machine f;
	struct device *uart;
	char dir[32];
	char path[64];
};

static struct device *new_uart(struct fake_machine *f, const char *spec)
{
	struct serial_backend *b;
	struct device *d;
	struct err e = ERR_INIT;

	assert_int_equal(serial_backend_new(spec, &b, &e), 0);
	assert_int_equal(uart16550_new(&f->m, b, &d, &e), 0);
	return d;
}

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));

	fake_init(&x->f);
	x->uart = new_uart(&x->f, "null");
	*state = x;
	return 0;
}

/* With a unix socket behind it, for input. */
static int setup_unix(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	char spec[80];

	fake_init(&x->f);
	strcpy(x->dir, "/tmp/godwit-uart-XXXXXX");
	assert_non_null(mkdtemp(x->dir));
	snprintf(x->path, sizeof(x->path), "%s/s", x->dir);
	snprintf(spec, sizeof(spec), "unix:%s", x->path);
	x->uart = new_uart(&x->f, spec);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	x->uart->ops->free(x->uart);
	fake_fini(&x->f);
	if (x->dir[0])
		rmdir(x->dir);
	free(x);
	return 0;
}

static int connect_client(const struct fixture *x)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(a.sun_path, x->path, sizeof(x->path));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static bool wait_lsr(struct fake_machine *f, uint8_t bit)
{
	uint64_t end = clock_now_ns() + 60 * NS_PER_S;

	while (!(inb(f, LSR) & bit) && clock_now_ns() < end)
		clock_sleep_until_ns(clock_now_ns() + NS_PER_MS);
	return inb(f, LSR) & bit;
}

static bool line(struct fake_machine *f)
{
	return fake_line(f, BOARD_SERIAL_GSI);
}

static void power_on_values(void **state)
{
	struct fixture *x = *state;

	assert_int_equal(inb(&x->f, IER), 0x00);
	assert_int_equal(inb(&x->f, IIR), 0x01);
	assert_int_equal(inb(&x->f, LCR), 0x00);
	assert_int_equal(inb(&x->f, MCR), 0x00);
	assert_int_equal(inb(&x->f, LSR), 0x60);
	assert_int_equal(inb(&x->f, MSR), 0xb0);
	assert_false(line(&x->f));
}

static void scratch_divisor_and_masks(void **state)
{
	struct fixture *x = *state;

	outb(&x->f, SCR, 0xa5);
	assert_int_equal(inb(&x->f, SCR), 0xa5);
	outb(&x->f, LCR, 0x83);
	outb(&x->f, DATA, 0x34);
	outb(&x->f, IER, 0x12);
	assert_int_equal(inb(&x->f, DATA), 0x34);
	assert_int_equal(inb(&x->f, IER), 0x12);
	assert_int_equal(io_in(&x->f, DATA, 2), 0x1234);
	outb(&x->f, LCR, 0x03);
	assert_int_equal(inb(&x->f, IER), 0x00);
	outb(&x->f, IER, 0xff);
	assert_int_equal(inb(&x->f, IER), 0x0f); /* Linux tells a 16550A from others by this */
	outb(&x->f, MCR, 0xe3);
	assert_int_equal(inb(&x->f, MCR), 0x03);
}

/* The sequence of Linux' autoconfig(): loopback test, then FIFO probing. */
static void linux_autoconfig(void **state)
{
	struct fixture *x = *state;

	outb(&x->f, MCR, LOOP | 0x0a);
	assert_int_equal(inb(&x->f, MSR) & 0xf0, 0x90);
	outb(&x->f, MCR, 0x00);
	outb(&x->f, FCR, 0x01);
	assert_int_equal(inb(&x->f, IIR) >> 6, 3);
	outb(&x->f, FCR, 0x00);
	assert_int_equal(inb(&x->f, IIR) >> 6, 0);
}

/* Linux' serial8250_do_startup() checks that THRE interrupts can be raised by IER alone. */
static void thre_interrupt(void **state)
{
	struct fixture *x = *state;
	int raised;

	outb(&x->f, IER, 0x02);
	assert_true(line(&x->f));
	assert_int_equal(inb(&x->f, IIR), 0x02);
	assert_false(line(&x->f)); /* reading IIR acknowledges it */
	assert_int_equal(inb(&x->f, IIR), 0x01);
	outb(&x->f, IER, 0x00);
	outb(&x->f, IER, 0x02); /* enabling anew raises it anew */
	assert_int_equal(inb(&x->f, IIR), 0x02);

	raised = fake_raised(&x->f, BOARD_SERIAL_GSI);
	outb(&x->f, DATA, 'a');
	outb(&x->f, DATA, 'b'); /* an edge for each, though the first is unacknowledged */
	assert_int_equal(fake_raised(&x->f, BOARD_SERIAL_GSI), raised + 2);
	outb(&x->f, IER, 0x00);
	assert_false(line(&x->f));
}

static void priorities(void **state)
{
	struct fixture *x = *state;
	static const uint8_t order[] = {0x06, 0x04, 0x02, 0x00, 0x01};

	outb(&x->f, MCR, LOOP);
	inb(&x->f, MSR);
	outb(&x->f, DATA, 'x');
	outb(&x->f, DATA, 'y');        /* overrun: no FIFO */
	outb(&x->f, MCR, LOOP | 0x02); /* CTS changes */
	outb(&x->f, IER, 0x0f);
	assert_int_equal(inb(&x->f, IIR), order[0]);
	assert_int_equal(inb(&x->f, LSR) & 0x1f, 0x03);
	assert_int_equal(inb(&x->f, IIR), order[1]);
	assert_int_equal(inb(&x->f, DATA), 'y'); /* the newcomer replaced the unread one */
	assert_int_equal(inb(&x->f, IIR), order[2]);
	assert_int_equal(inb(&x->f, IIR), order[3]);
	assert_true(line(&x->f));
	assert_int_equal(inb(&x->f, MSR), 0x11);
	assert_int_equal(inb(&x->f, IIR), order[4]);
	assert_false(line(&x->f));
}

static void fifo_triggers(void **state)
{
	struct fixture *x = *state;
	static const uint8_t trigger[] = {1, 4, 8, 14};

	outb(&x->f, MCR, LOOP);
	inb(&x->f, MSR);
	outb(&x->f, IER, 0x01);
	for (uint8_t t = 0; t < 4; t++) {
		outb(&x->f, FCR, (uint8_t)(t << 6 | 0x03));
		assert_int_equal(inb(&x->f, IIR), 0xc1);
		for (uint8_t i = 1; i <= 16; i++) {
			outb(&x->f, DATA, i);
			assert_true(line(&x->f));
			assert_int_equal(inb(&x->f, IIR), i >= trigger[t] ? 0xc4 : 0xcc);
		}
		outb(&x->f, DATA, 99); /* overrun: the FIFO keeps what it has */
		assert_int_equal(inb(&x->f, LSR) & 0x03, 0x03);
		assert_int_equal(inb(&x->f, LSR) & 0x03, 0x01);
		for (uint8_t i = 1; i <= 16; i++)
			assert_int_equal(inb(&x->f, DATA), i);
		assert_false(line(&x->f));
	}
}

static void fifo_clearing(void **state)
{
	struct fixture *x = *state;

	outb(&x->f, MCR, LOOP);
	outb(&x->f, FCR, 0x01);
	outb(&x->f, DATA, 1);
	outb(&x->f, FCR, 0x03);
	assert_int_equal(inb(&x->f, LSR) & 1, 0);
	outb(&x->f, DATA, 1);
	outb(&x->f, FCR, 0x00); /* a change of the enable bit clears, too */
	assert_int_equal(inb(&x->f, LSR) & 1, 0);
	outb(&x->f, DATA, 1);
	outb(&x->f, FCR, 0xc2); /* without bit 0 the others do nothing */
	assert_int_equal(inb(&x->f, LSR) & 1, 1);
}

static void modem_loopback(void **state)
{
	struct fixture *x = *state;

	outb(&x->f, MCR, LOOP | 0x0f);
	inb(&x->f, MSR);
	assert_int_equal(inb(&x->f, MSR), 0xf0);
	outb(&x->f, MCR, LOOP | 0x0b);
	assert_int_equal(inb(&x->f, MSR), 0xb4); /* trailing edge of ring */
	outb(&x->f, MCR, LOOP | 0x0f);
	assert_int_equal(inb(&x->f, MSR), 0xf0); /* not the leading one */
}

static void reset_restores_power_on(void **state)
{
	struct fixture *x = *state;

	outb(&x->f, IER, 0x0f);
	outb(&x->f, SCR, 1);
	assert_true(line(&x->f));
	x->uart->ops->reset(x->uart);
	power_on_values(state);
	assert_int_equal(inb(&x->f, SCR), 0);
}

static void save_mid_flight(void **state)
{
	struct fixture *x = *state;
	struct fake_machine g;
	struct device *d;

	fake_init(&g);
	d = new_uart(&g, NULL);
	outb(&x->f, LCR, 0x80);
	outb(&x->f, DATA, 0x01);
	outb(&x->f, LCR, 0x1b);
	outb(&x->f, FCR, 0xc1);
	outb(&x->f, MCR, LOOP | 0x0b);
	outb(&x->f, SCR, 0x77);
	for (uint8_t i = 0; i < 18; i++) /* wraps, overflows */
		outb(&x->f, DATA, i);
	for (uint8_t i = 0; i < 5; i++)
		inb(&x->f, DATA);
	outb(&x->f, DATA, 0xee);
	outb(&x->f, IER, 0x07);

	dev_migrate(&x->f, x->uart, &g, d);
	assert_true(line(&g));
	assert_int_equal(inb(&g, IER), 0x07);
	assert_int_equal(inb(&g, LCR), 0x1b);
	assert_int_equal(inb(&g, MCR), 0x1b);
	assert_int_equal(inb(&g, SCR), 0x77);
	assert_int_equal(inb(&g, IIR), 0xc6);
	assert_int_equal(inb(&g, LSR) & 0x03, 0x03);
	for (uint8_t i = 5; i < 16; i++)
		assert_int_equal(inb(&g, DATA), i);
	assert_int_equal(inb(&g, DATA), 0xee);
	assert_int_equal(inb(&g, IIR), 0xc2);
	d->ops->free(d);
	fake_fini(&g);
}

static void input_obeys_flow_control(void **state)
{
	struct fixture *x = *state;
	char out[1000];
	char in[1000];
	int fd = connect_client(x);

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (char)(i * 7);
	outb(&x->f, FCR, 0xc1);
	outb(&x->f, IER, 0x01);
	assert_int_equal(write(fd, out, sizeof(out)), sizeof(out));
	for (size_t i = 0; i < sizeof(in); i++) {
		assert_true(wait_lsr(&x->f, 1));
		assert_true(line(&x->f));
		in[i] = (char)inb(&x->f, DATA);
		assert_int_equal(inb(&x->f, LSR) & 2, 0); /* never an overrun */
	}
	assert_memory_equal(out, in, sizeof(in));
	close(fd);
}

static void quiesced_takes_no_input(void **state)
{
	struct fixture *x = *state;
	struct err e = ERR_INIT;
	int fd = connect_client(x);

	assert_int_equal(x->uart->ops->quiesce(x->uart, &e), 0);
	assert_int_equal(write(fd, "abc", 3), 3);
	usleep(50000);
	assert_int_equal(inb(&x->f, LSR) & 1, 0);
	x->uart->ops->unquiesce(x->uart);
	for (const char *c = "abc"; *c; c++) {
		assert_true(wait_lsr(&x->f, 1));
		assert_int_equal(inb(&x->f, DATA), *c);
	}
	close(fd);
}

/* The receiver is off the line in loopback; what waits arrives afterwards. */
static void input_waits_for_loopback(void **state)
{
	struct fixture *x = *state;
	int fd = connect_client(x);

	outb(&x->f, MCR, LOOP);
	assert_int_equal(write(fd, "z", 1), 1);
	usleep(50000);
	assert_int_equal(inb(&x->f, LSR) & 1, 0);
	outb(&x->f, MCR, 0);
	assert_true(wait_lsr(&x->f, 1));
	assert_int_equal(inb(&x->f, DATA), 'z');
	close(fd);
}

static void output_reaches_client(void **state)
{
	struct fixture *x = *state;
	char got[4] = "";
	int fd = connect_client(x);

	outb(&x->f, DATA, 'h');
	outb(&x->f, DATA, 'i');
	assert_int_equal(recv(fd, got, 2, MSG_WAITALL), 2);
	assert_string_equal(got, "hi");
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(power_on_values, setup, teardown),
		cmocka_unit_test_setup_teardown(scratch_divisor_and_masks, setup, teardown),
		cmocka_unit_test_setup_teardown(linux_autoconfig, setup, teardown),
		cmocka_unit_test_setup_teardown(thre_interrupt, setup, teardown),
		cmocka_unit_test_setup_teardown(priorities, setup, teardown),
		cmocka_unit_test_setup_teardown(fifo_triggers, setup, teardown),
		cmocka_unit_test_setup_teardown(fifo_clearing, setup, teardown),
		cmocka_unit_test_setup_teardown(modem_loopback, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_restores_power_on, setup, teardown),
		cmocka_unit_test_setup_teardown(save_mid_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(input_obeys_flow_control, setup_unix, teardown),
		cmocka_unit_test_setup_teardown(quiesced_takes_no_input, setup_unix, teardown),
		cmocka_unit_test_setup_teardown(input_waits_for_loopback, setup_unix, teardown),
		cmocka_unit_test_setup_teardown(output_reaches_client, setup_unix, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
