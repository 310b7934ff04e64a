/*
 * 16550A UART (National Semiconductor PC16550D datasheet; section numbers below are its). The
 * transmitter is never busy: bytes go to the back end's queue at once. The line rate is not
 * modelled. OUT2 does not gate the interrupt (it does on a PC's board, but not in QEMU, and guests
 * are written against QEMU).
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "proto/device.pb-c.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/irq_line.h"
#include "vmm/dev/serial_backend.h"
#include "vmm/dev/state_message.h"

#define FIFO_BYTES 16

enum uart_register {
	REG_DATA = 0, /* RBR, THR; divisor low while DLAB */
	REG_IER = 1,  /* divisor high while DLAB */
	REG_IIR = 2,  /* FCR when written */
	REG_LCR = 3,
	REG_MCR = 4,
	REG_LSR = 5,
	REG_MSR = 6,
	REG_SCR = 7,
	NR_REGISTERS = 8,
};

#define IER_RDA  0x01
#define IER_THRE 0x02
#define IER_RLS  0x04
#define IER_MS   0x08
#define IER_MASK 0x0f

#define IIR_MODEM   0x00
#define IIR_NONE    0x01
#define IIR_THRE    0x02
#define IIR_RDA     0x04
#define IIR_RLS     0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO    0xc0

#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define FCR_STORED   0xc9 /* enable, DMA mode, trigger; the clear bits clear themselves */

#define LCR_DLAB 0x80

#define MCR_DTR  0x01
#define MCR_RTS  0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define MCR_MASK 0x1f

#define LSR_DR   0x01
#define LSR_OE   0x02
#define LSR_THRE 0x20
#define LSR_TEMT 0x40

#define MSR_TERI   0x04
#define MSR_DELTAS 0x0f
#define MSR_CTS    0x10
#define MSR_DSR    0x20
#define MSR_RI     0x40
#define MSR_DCD    0x80
#define MSR_LINES  0xf0

#define DIVISOR_9600 12

struct uart {
	struct device dev;

	/* immutable after new */
	struct serial_backend *backend;

	pthread_mutex_t lock; /* before the back end's own */
	/* guarded by lock */
	uint8_t ier, lcr, mcr, msr, scr, fcr;
	uint16_t divisor;
	bool overrun;
	bool thre_pending;
	uint8_t rx[FIFO_BYTES];
	uint32_t rx_head, rx_len;
	struct irq_line irq;
	bool input_waiting; /* the back end was told "no more for now" */
	bool quiesced;
};

static struct uart *to_uart(struct device *d)
{
	return (struct uart *)d;
}

static uint32_t rx_capacity(const struct uart *u)
{
	return u->fcr & FCR_ENABLE ? FIFO_BYTES : 1;
}

static uint32_t rx_trigger(const struct uart *u)
{
	static const uint8_t level[] = {1, 4, 8, 14};

	return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

/* The highest-priority pending interrupt (8.6, interrupt control functions). */
static uint8_t pending_interrupt(const struct uart *u)
{
	if ((u->ier & IER_RLS) && u->overrun)
		return IIR_RLS;
	if ((u->ier & IER_RDA) && u->rx_len >= rx_trigger(u))
		return IIR_RDA;
	/* Below the trigger level, the character time-out. Bytes from a host come all at once, so
	 * whatever the FIFO holds has been followed by silence. */
	if ((u->ier & IER_RDA) && u->rx_len)
		return IIR_TIMEOUT;
	if ((u->ier & IER_THRE) && u->thre_pending)
		return IIR_THRE;
	if ((u->ier & IER_MS) && (u->msr & MSR_DELTAS))
		return IIR_MODEM;
	return IIR_NONE;
}

static void update_irq(struct uart *u)
{
	irq_line_set(&u->irq, pending_interrupt(u) != IIR_NONE);
}

static void rx_push(struct uart *u, uint8_t byte)
{
	if (u->rx_len == rx_capacity(u)) {
		/* 8.4, LSR bit 1: without FIFOs the newcomer replaces the unread character, with
		 * them it is the one that is lost. */
		u->overrun = true;
		if (!(u->fcr & FCR_ENABLE))
			u->rx[u->rx_head] = byte;
		return;
	}
	u->rx[(u->rx_head + u->rx_len++) % FIFO_BYTES] = byte;
}

/* There is room again: have the back end offer what it kept. */
static void ask_for_input(struct uart *u)
{
	if (!u->input_waiting || u->rx_len || u->quiesced || (u->mcr & MCR_LOOP))
		return;
	u->input_waiting = false;
	serial_backend_kick(u->backend);
}

static void rx_clear(struct uart *u)
{
	u->rx_len = 0;
	ask_for_input(u);
}

static uint8_t rx_pop(struct uart *u)
{
	uint8_t byte = u->rx[u->rx_head];

	if (!u->rx_len)
		return 0;
	u->rx_head = (u->rx_head + 1) % FIFO_BYTES;
	u->rx_len--;
	ask_for_input(u);
	return byte;
}

/* On the back end's thread. */
static size_t uart_input(void *ctx, const uint8_t *data, size_t len)
{
	struct uart *u = ctx;
	size_t taken = 0;

	pthread_mutex_lock(&u->lock);
	/* In loopback the receiver is not connected to the line (8.8, bit 4). */
	while (!u->quiesced && !(u->mcr & MCR_LOOP) && taken < len && u->rx_len < rx_capacity(u))
		rx_push(u, data[taken++]);
	u->input_waiting = taken < len;
	update_irq(u);
	pthread_mutex_unlock(&u->lock);
	return taken;
}

static void transmit(struct uart *u, uint8_t byte)
{
	/* Filling the holding register takes the interrupt back; emptying it, at once, raises it
	 * anew. The line must be seen to go low in between, for GSI 4 is edge triggered. */
	u->thre_pending = false;
	update_irq(u);
	if (u->mcr & MCR_LOOP)
		rx_push(u, byte);
	else
		serial_backend_write(u->backend, &byte, 1);
	u->thre_pending = true;
}

static void write_ier(struct uart *u, uint8_t value)
{
	uint8_t changed = u->ier ^ value;

	/* Enabling the interrupt while the transmitter is empty raises it (Linux' startup code
	 * tests for UARTs that fail to). */
	if (changed & IER_THRE)
		u->thre_pending = value & IER_THRE;
	u->ier = value & IER_MASK;
}

static void write_fcr(struct uart *u, uint8_t value)
{
	bool toggled = (u->fcr ^ value) & FCR_ENABLE;

	/* 8.5: the other bits take effect only with bit 0 set; changing bit 0 clears the FIFOs. */
	u->fcr = value & FCR_ENABLE ? value & FCR_STORED : 0;
	if (toggled || (value & (FCR_ENABLE | FCR_CLEAR_RX)) == (FCR_ENABLE | FCR_CLEAR_RX))
		rx_clear(u);
}

/* The modem inputs: what the outputs feed back in loopback, else a peer that is always ready. */
static uint8_t modem_lines(uint8_t mcr)
{
	if (!(mcr & MCR_LOOP))
		return MSR_DCD | MSR_DSR | MSR_CTS;
	return (uint8_t)((mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) |
			 (mcr & MCR_OUT1 ? MSR_RI : 0) | (mcr & MCR_OUT2 ? MSR_DCD : 0));
}

static void write_mcr(struct uart *u, uint8_t value)
{
	uint8_t old = u->msr & MSR_LINES;
	uint8_t lines;
	uint8_t delta;

	u->mcr = value & MCR_MASK;
	lines = modem_lines(u->mcr);
	delta = (uint8_t)((old ^ lines) >> 4);
	/* 8.9, bit 2: only the trailing edge of ring indicator counts. */
	if (lines & MSR_RI)
		delta &= (uint8_t)~MSR_TERI;
	u->msr = (uint8_t)(lines | (u->msr & MSR_DELTAS) | delta);
	ask_for_input(u);
}

static uint8_t read_iir(struct uart *u)
{
	uint8_t source = pending_interrupt(u);

	/* 8.6: reading IIR is what acknowledges this source, and only this one. */
	if (source == IIR_THRE)
		u->thre_pending = false;
	return (uint8_t)(source | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0));
}

static uint8_t read_lsr(struct uart *u)
{
	uint8_t value = (uint8_t)(LSR_THRE | LSR_TEMT | (u->rx_len ? LSR_DR : 0) |
				  (u->overrun ? LSR_OE : 0));

	u->overrun = false;
	return value;
}

static uint8_t read_msr(struct uart *u)
{
	uint8_t value = u->msr;

	u->msr &= MSR_LINES;
	return value;
}

static uint8_t read_register(struct uart *u, uint64_t reg)
{
	bool dlab = u->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA:
		return dlab ? (uint8_t)u->divisor : rx_pop(u);
	case REG_IER:
		return dlab ? (uint8_t)(u->divisor >> 8) : u->ier;
	case REG_IIR:
		return read_iir(u);
	case REG_LCR:
		return u->lcr;
	case REG_MCR:
		return u->mcr;
	case REG_LSR:
		return read_lsr(u);
	case REG_MSR:
		return read_msr(u);
	case REG_SCR:
		return u->scr;
	default:
		return 0xff;
	}
}

static void write_divisor(struct uart *u, uint64_t reg, uint8_t value)
{
	uint32_t shift = reg == REG_DATA ? 0 : 8;

	u->divisor = (uint16_t)((u->divisor & ~(0xffu << shift)) | (uint32_t)value << shift);
}

static void write_register(struct uart *u, uint64_t reg, uint8_t value)
{
	if ((u->lcr & LCR_DLAB) && reg <= REG_IER) {
		write_divisor(u, reg, value);
		return;
	}
	switch (reg) {
	case REG_DATA:
		transmit(u, value);
		break;
	case REG_IER:
		write_ier(u, value);
		break;
	case REG_IIR:
		write_fcr(u, value);
		break;
	case REG_LCR:
		u->lcr = value;
		break;
	case REG_MCR:
		write_mcr(u, value);
		break;
	case REG_SCR:
		u->scr = value;
		break;
	default: /* LSR and MSR: "should not be written" */
		break;
	}
}

/* An access wider than a byte is that many byte accesses, as on the ISA bus. */
static void uart_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct uart *u = ctx;
	uint8_t *bytes = data;

	pthread_mutex_lock(&u->lock);
	for (uint32_t i = 0; i < len; i++) {
		bytes[i] = read_register(u, offset + i);
		update_irq(u);
	}
	pthread_mutex_unlock(&u->lock);
}

static void uart_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct uart *u = ctx;
	const uint8_t *bytes = data;

	pthread_mutex_lock(&u->lock);
	for (uint32_t i = 0; i < len; i++) {
		write_register(u, offset + i, bytes[i]);
		update_irq(u);
	}
	pthread_mutex_unlock(&u->lock);
}

static void power_on(struct uart *u)
{
	u->ier = 0;
	u->lcr = 0;
	u->mcr = 0;
	u->msr = modem_lines(0);
	u->scr = 0;
	u->fcr = 0;
	u->divisor = DIVISOR_9600;
	u->overrun = false;
	u->thre_pending = false;
	u->rx_head = 0;
	rx_clear(u);
}

static void uart_reset(struct device *d)
{
	struct uart *u = to_uart(d);

	pthread_mutex_lock(&u->lock);
	power_on(u);
	update_irq(u);
	pthread_mutex_unlock(&u->lock);
}

static int uart_quiesce(struct device *d, struct err *e)
{
	struct uart *u = to_uart(d);

	(void)e;
	pthread_mutex_lock(&u->lock);
	u->quiesced = true;
	pthread_mutex_unlock(&u->lock);
	return 0;
}

static void uart_unquiesce(struct device *d)
{
	struct uart *u = to_uart(d);

	pthread_mutex_lock(&u->lock);
	u->quiesced = false;
	ask_for_input(u);
	pthread_mutex_unlock(&u->lock);
}

/* Without the lock: vCPUs are paused and, quiesced, the back end's thread changes nothing here. */
static int uart_save(const struct device *d, struct buf *out, struct err *e)
{
	const struct uart *u = (const struct uart *)d;
	Godwit__UartState s = GODWIT__UART_STATE__INIT;
	uint8_t rx[FIFO_BYTES];

	for (uint32_t i = 0; i < u->rx_len; i++)
		rx[i] = u->rx[(u->rx_head + i) % FIFO_BYTES];
	s.has_ier = s.has_lcr = s.has_mcr = s.has_msr = s.has_scr = s.has_fcr = true;
	s.has_divisor = s.has_overrun = s.has_thre_pending = s.has_rx = true;
	s.ier = u->ier;
	s.lcr = u->lcr;
	s.mcr = u->mcr;
	s.msr = u->msr;
	s.scr = u->scr;
	s.fcr = u->fcr;
	s.divisor = u->divisor;
	s.overrun = u->overrun;
	s.thre_pending = u->thre_pending;
	s.rx = (ProtobufCBinaryData){.len = u->rx_len, .data = rx};
	return state_message_pack(&s.base, out, e);
}

static const struct state_limit uart_limits[] = {
	{"ier", IER_MASK},   {"lcr", 0xff},       {"mcr", MCR_MASK},  {"msr", 0xff}, {"scr", 0xff},
	{"fcr", FCR_STORED}, {"divisor", 0xffff}, {"rx", FIFO_BYTES}, {NULL, 0},
};

static int check_uart(const Godwit__UartState *s, struct err *e)
{
	bool fifo = s->fcr & FCR_ENABLE;

	if ((s->fcr & ~(uint32_t)FCR_STORED) || (!fifo && s->fcr))
		return err_set(e, ERR_STREAM, EINVAL, "uart16550 state: fcr 0x%x is impossible",
			       s->fcr);
	if (!fifo && s->rx.len > 1)
		return err_set(e, ERR_STREAM, EINVAL,
			       "uart16550 state: %zu received bytes without a FIFO", s->rx.len);
	if ((s->msr & MSR_LINES) != modem_lines((uint8_t)s->mcr))
		return err_set(e, ERR_STREAM, EINVAL,
			       "uart16550 state: msr 0x%x does not fit mcr 0x%x", s->msr, s->mcr);
	return 0;
}

static void assign_uart(struct uart *u, const Godwit__UartState *s)
{
	u->ier = (uint8_t)s->ier;
	u->lcr = (uint8_t)s->lcr;
	u->mcr = (uint8_t)s->mcr;
	u->msr = (uint8_t)s->msr;
	u->scr = (uint8_t)s->scr;
	u->fcr = (uint8_t)s->fcr;
	u->divisor = (uint16_t)s->divisor;
	u->overrun = s->overrun;
	u->thre_pending = s->thre_pending;
	if (s->rx.len)
		memcpy(u->rx, s->rx.data, s->rx.len);
	u->rx_head = 0;
	u->rx_len = (uint32_t)s->rx.len;
	/* Until unquiesce, so that what is loaded stays what was saved. */
	u->quiesced = true;
	irq_line_load(&u->irq, pending_interrupt(u) != IIR_NONE);
}

static int uart_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		     struct err *e)
{
	struct uart *u = to_uart(d);
	ProtobufCMessage *msg;
	int ret;

	(void)version;
	ret = state_message_unpack(d->ops->type, &godwit__uart_state__descriptor, uart_limits, data,
				   len, &msg, e);
	if (ret)
		return ret;
	ret = check_uart((const Godwit__UartState *)msg, e);
	if (!ret) {
		pthread_mutex_lock(&u->lock);
		assign_uart(u, (const Godwit__UartState *)msg);
		pthread_mutex_unlock(&u->lock);
	}
	protobuf_c_message_free_unpacked(msg, NULL);
	return ret;
}

static void uart_free(struct device *d)
{
	struct uart *u = to_uart(d);

	serial_backend_free(u->backend); /* joins the thread that calls uart_input */
	pthread_mutex_destroy(&u->lock);
	free(u);
}

static const struct dev_ops uart_ops = {
	.type = "uart16550",
	.state_version = 1,
	.oldest_loadable = 1,
	.reset = uart_reset,
	.quiesce = uart_quiesce,
	.unquiesce = uart_unquiesce,
	.save = uart_save,
	.load = uart_load,
	.free = uart_free,
};

static const struct bus_ops uart_bus_ops = {.read = uart_read, .write = uart_write};

int uart16550_new(const struct machine *m, struct serial_backend *backend, struct device **out,
		  struct err *e)
{
	struct uart *u = calloc(1, sizeof(*u));
	int ret;

	if (!u) {
		serial_backend_free(backend);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for uart16550");
	}
	u->dev.ops = &uart_ops;
	u->irq = (struct irq_line){.m = m, .gsi = BOARD_SERIAL_GSI};
	u->backend = backend;
	pthread_mutex_init(&u->lock, NULL);
	power_on(u);
	ret = serial_backend_start(backend, uart_input, u, e);
	if (!ret)
		ret = bus_add(m->bus, BUS_PIO, BOARD_SERIAL_PORT, NR_REGISTERS, "uart16550",
			      &uart_bus_ops, u, e);
	if (ret) {
		uart_free(&u->dev);
		return ret;
	}
	*out = &u->dev;
	return 0;
}
