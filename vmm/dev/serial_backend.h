/*
 * Where a UART's bytes go to and come from: null, stdio, file:PATH, pty, unix:PATH.
 *
 * Output is queued (bounded ring; the oldest bytes are kept, overflow is counted and dropped) and
 * written by the back end's own thread, so that a reader who stops reading never stops a vCPU or a
 * migration. Input arrives on that thread through the callback. Owned by the UART.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vmm/base/err.h"

struct serial_backend;

/* Returns how many of the bytes were taken; the rest is offered again after serial_backend_kick. */
typedef size_t (*serial_input_fn)(void *ctx, const uint8_t *data, size_t len);

/* @spec as in vm_config.serial; NULL is null. Opens it (unix: listens, one client at a time,
 * clients may come and go) but starts no thread yet. With stdio and a terminal, the terminal goes
 * raw until free; Ctrl-A x ends the program (raise SIGTERM), Ctrl-A Ctrl-A sends Ctrl-A. */
int serial_backend_new(const char *spec, struct serial_backend **out, struct err *e);
int serial_backend_start(struct serial_backend *b, serial_input_fn input, void *ctx, struct err *e);
void serial_backend_free(struct serial_backend *b);

/* Queue output; never blocks. Any thread. */
void serial_backend_write(struct serial_backend *b, const uint8_t *data, size_t len);
/* The UART has room again. Any thread. */
void serial_backend_kick(struct serial_backend *b);
/* "/dev/pts/3" for pty, else "". */
const char *serial_backend_path(const struct serial_backend *b);
