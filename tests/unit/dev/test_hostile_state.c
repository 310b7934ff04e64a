/* State that nobody vouches for: whatever is refused has a message and changes nothing; whatever is
 * taken saves to something that loads again. */
#include <stdlib.h>

#include "tests/unit/dev/fake_machine.h"
#include "vmm/guest_report.h"

#define NR_DEVICES 8

struct fixture {
	struct fake_machine f;
	struct device *dev[NR_DEVICES];
};

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	struct serial_backend *b;
	struct err e = ERR_INIT;

	fake_init(&x->f);
	assert_int_equal(serial_backend_new(NULL, &b, &e), 0);
	assert_int_equal(uart16550_new(&x->f.m, b, &x->dev[0], &e), 0);
	assert_int_equal(rtc_new(&x->f.m, &x->dev[1], &e), 0);
	assert_int_equal(i8042_new(&x->f.m, &x->dev[2], &e), 0);
	assert_int_equal(acpi_pm_new(&x->f.m, &x->dev[3], &e), 0);
	assert_int_equal(guest_report_dev_new(&x->f.m, &x->dev[4], &e), 0);
	assert_int_equal(fw_cfg_new(&x->f.m, 2, &x->dev[5], &e), 0);
	assert_int_equal(shutdown_port_new(&x->f.m, &x->dev[6], &e), 0);
	assert_int_equal(hpet_new(&x->f.m, &x->dev[7], &e), 0);
	/* Non-zero fields, so that there is something to corrupt. */
	outb(&x->f, BOARD_SERIAL_PORT + 2, 0x81);
	outb(&x->f, BOARD_SERIAL_PORT + 4, 0x1b);
	for (uint8_t i = 0; i < 9; i++)
		outb(&x->f, BOARD_SERIAL_PORT, i);
	outb(&x->f, 0x60, 0xf2);
	io_out(&x->f, GUEST_REPORT_PORT, 0x321, 4);
	io_out(&x->f, BOARD_FW_CFG_PORT, 0x3, 2);
	outb(&x->f, BOARD_SHUTDOWN_PORT, 'S');
	bus_write(x->f.m.bus, BUS_MMIO, BOARD_HPET + 0x100, &(uint32_t){0x2a0e}, 4);
	for (int i = 0; i < NR_DEVICES; i++)
		if (x->dev[i]->ops->quiesce)
			assert_int_equal(x->dev[i]->ops->quiesce(x->dev[i], &e), 0);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	for (int i = 0; i < NR_DEVICES; i++)
		x->dev[i]->ops->free(x->dev[i]);
	fake_fini(&x->f);
	free(x);
	return 0;
}

static bool same(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && !memcmp(a->data, b->data, a->len);
}

/* Load @len bytes; @original is what the device holds and holds again afterwards. Returns whether
 * they were refused. */
static bool offer(struct device *d, const struct buf *original, const uint8_t *data, size_t len)
{
	struct buf now = BUF_INIT;
	struct buf again = BUF_INIT;
	struct err e = ERR_INIT;
	int ret = d->ops->load(d, 1, data, len, &e);

	dev_save(d, &now);
	if (ret) {
		assert_int_equal(ret, -e.code);
		assert_int_equal(e.kind, ERR_STREAM);
		assert_true(e.msg[0] && !strchr(e.msg, '\n'));
		assert_true(same(&now, original));
	} else {
		assert_int_equal(dev_load(d, &now, &e), 0);
		dev_save(d, &again);
		assert_true(same(&now, &again));
		assert_int_equal(dev_load(d, original, &e), 0);
	}
	buf_fini(&now);
	buf_fini(&again);
	return ret != 0;
}

static void each_device(void **state, void (*test)(struct device *, const struct buf *))
{
	struct fixture *x = *state;

	for (int i = 0; i < NR_DEVICES; i++) {
		struct buf original = BUF_INIT;

		dev_save(x->dev[i], &original);
		test(x->dev[i], &original);
		buf_fini(&original);
	}
}

static void truncate_one(struct device *d, const struct buf *original)
{
	for (size_t len = 0; len < original->len; len++)
		assert_true(offer(d, original, original->data, len));
}

static void truncated(void **state)
{
	each_device(state, truncate_one);
}

static void flip_one(struct device *d, const struct buf *original)
{
	uint8_t data[512];
	size_t nr_refused = 0;

	assert_true(original->len <= sizeof(data));
	for (size_t bit = 0; bit < original->len * 8; bit++) {
		memcpy(data, original->data, original->len);
		data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		nr_refused += offer(d, original, data, original->len);
	}
	assert_true(nr_refused > 0);
}

static void bit_flips(void **state)
{
	each_device(state, flip_one);
}

static void append_one(struct device *d, const struct buf *original)
{
	static const uint8_t unknown[] = {0xf8, 0x01, 0x01};                /* field 31, varint 1 */
	static const uint8_t huge[] = {0x08, 0xff, 0xff, 0xff, 0xff, 0x0f}; /* field 1: 2^32 - 1 */
	uint8_t data[512];

	memcpy(data, original->data, original->len);
	memcpy(data + original->len, unknown, sizeof(unknown));
	assert_true(offer(d, original, data, original->len + sizeof(unknown)));
	memcpy(data + original->len, huge, sizeof(huge));
	assert_true(offer(d, original, data, original->len + sizeof(huge)));
}

static void unknown_and_oversized(void **state)
{
	each_device(state, append_one);
}

static void long_one(struct device *d, const struct buf *original)
{
	uint8_t *data = calloc(1, 1u << 20);

	assert_true(offer(d, original, data, 1u << 20));
	free(data);
}

static void too_long(void **state)
{
	each_device(state, long_one);
}

static void noise_one(struct device *d, const struct buf *original)
{
	uint8_t data[256];
	uint32_t seed = 12345;

	for (int i = 0; i < 2000; i++) {
		for (size_t k = 0; k < sizeof(data); k++) {
			seed = seed * 1664525u + 1013904223u;
			data[k] = (uint8_t)(seed >> 24);
		}
		offer(d, original, data, seed % sizeof(data));
	}
}

static void noise(void **state)
{
	each_device(state, noise_one);
}

/* Combinations that no UART can be in, though each field is in range by itself. */
static void impossible_uart(void **state)
{
	struct fixture *x = *state;
	struct buf original = BUF_INIT;
	/* ier lcr mcr msr=0xb0 scr fcr divisor overrun thre_pending rx="ab": two bytes, no FIFO */
	static const uint8_t two[] = {0x08, 0, 0x10, 0, 0x18, 0, 0x20, 0xb0, 0x01, 0x28, 0, 0x30, 0,
				      0x38, 0, 0x40, 0, 0x48, 0, 0x52, 0x02, 'a',  'b'};
	/* msr says CTS is off, mcr that there is no loopback */
	static const uint8_t lines[] = {0x08, 0, 0x10, 0, 0x18, 0, 0x20, 0xa0, 0x01, 0x28, 0,
					0x30, 0, 0x38, 0, 0x40, 0, 0x48, 0,    0x52, 0x00};

	dev_save(x->dev[0], &original);
	assert_true(offer(x->dev[0], &original, two, sizeof(two)));
	assert_true(offer(x->dev[0], &original, lines, sizeof(lines)));
	buf_fini(&original);
}

#define UNIT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNIT(truncated), UNIT(bit_flips), UNIT(unknown_and_oversized),
		UNIT(too_long),  UNIT(noise),     UNIT(impossible_uart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
