#include "experiments/guest/workload/console.h"

#include "experiments/guest/workload/machine.h"

#define UART_DATA      CONSOLE_PORT
#define UART_IER       0x3f9
#define UART_FCR       0x3fa
#define UART_LCR       0x3fb
#define UART_MCR       0x3fc
#define UART_LSR       0x3fd
#define LSR_DATA_READY 0x01
#define LSR_THR_EMPTY  0x20
#define FIFO_BYTES     16u
#define FLUSH_TRIES    1000000u

void console_init(struct console *c)
{
	c->head = c->tail = c->burst = 0;
	out8(UART_IER, 0);
	out8(UART_LCR, 0x03); /* 8N1; the speed stays what it is, no VMM looks at it */
	out8(UART_FCR, 0x07); /* FIFOs on and empty */
	out8(UART_MCR, 0x03);
}

static void queue_char(struct console *c, char ch)
{
	if (c->head - c->tail < CONSOLE_QUEUE)
		c->queue[c->head++ % CONSOLE_QUEUE] = ch;
}

void console_text(struct console *c, const char *s)
{
	while (*s != '\0')
		queue_char(c, *s++);
}

static void queue_digits(struct console *c, uint64_t value, uint64_t base)
{
	char digits[20];
	unsigned int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value != 0);
	while (n > 0)
		queue_char(c, digits[--n]);
}

void console_u64(struct console *c, uint64_t value)
{
	queue_digits(c, value, 10);
}

void console_hex(struct console *c, uint64_t value)
{
	console_text(c, "0x");
	queue_digits(c, value, 16);
}

void console_key(struct console *c, const char *key, uint64_t value)
{
	queue_char(c, ' ');
	console_text(c, key);
	queue_char(c, '=');
	console_u64(c, value);
}

void console_key_hex(struct console *c, const char *key, uint64_t value)
{
	queue_char(c, ' ');
	console_text(c, key);
	queue_char(c, '=');
	console_hex(c, value);
}

void console_pump(struct console *c)
{
	if (c->head == c->tail)
		return;
	if (c->burst == 0) {
		if ((in8(UART_LSR) & LSR_THR_EMPTY) == 0)
			return;
		c->burst = FIFO_BYTES;
	}
	c->burst--;
	out8(UART_DATA, (uint8_t)c->queue[c->tail++ % CONSOLE_QUEUE]);
}

/* Gives up in the end: a stuck or absent UART must not keep the guest from working. */
void console_flush(struct console *c)
{
	for (uint32_t tries = 0; c->head != c->tail && tries < FLUSH_TRIES; tries++)
		console_pump(c);
	c->tail = c->head;
}

int console_input(void)
{
	uint8_t status = in8(UART_LSR);

	if (status == 0xff || (status & LSR_DATA_READY) == 0)
		return -1;
	return in8(UART_DATA);
}
