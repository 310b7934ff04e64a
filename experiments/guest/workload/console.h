/*
 * The serial line of the workload guest (8250 at 0x3f8), owned by the boot vCPU. Text is queued and
 * sent a byte per call of console_pump, so that printing never makes a gap worth measuring.
 */
#ifndef GODWIT_EXPERIMENTS_GUEST_WORKLOAD_CONSOLE_H
#define GODWIT_EXPERIMENTS_GUEST_WORKLOAD_CONSOLE_H

#include <stdbool.h>
#include <stdint.h>

#define CONSOLE_QUEUE 16384u
#define CONSOLE_PORT  0x3f8 /* of its data */

struct console {
	uint32_t head, tail; /* free-running; queued bytes are tail..head */
	uint32_t burst;      /* bytes the UART's FIFO takes before its status must be read again */
	char queue[CONSOLE_QUEUE];
};

void console_init(struct console *c);

/* Queue text; what does not fit is dropped. */
void console_text(struct console *c, const char *s);
void console_u64(struct console *c, uint64_t value);
void console_hex(struct console *c, uint64_t value);
/* " key=value" */
void console_key(struct console *c, const char *key, uint64_t value);
void console_key_hex(struct console *c, const char *key, uint64_t value);

/* Send at most one queued byte. */
void console_pump(struct console *c);
/* Send everything queued, now. */
void console_flush(struct console *c);
/* One byte of input, or -1. Costs an exit. */
int console_input(void);

#endif
