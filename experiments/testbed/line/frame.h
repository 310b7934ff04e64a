/* What travels between a command's caller and the agent in a testbed machine: frames.
 *
 *   line (the caller) -- unix socket -- operator -- virtio-serial port -- agent -- the command
 *
 * All ends are this project's, built together, on one machine: host byte order, no versions. A port
 * carries one command at a time, from its START to its EXIT. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FRAME_PAYLOAD_MAX 16384

enum frame_type {
	FRAME_START = 1, /* to the agent: the command's words, each with its NUL */
	FRAME_STDIN,     /* to the agent; empty: end of input */
	FRAME_KILL, /* to the agent: the caller is gone; EXIT follows if it has not been sent yet */
	FRAME_STDOUT,
	FRAME_STDERR,
	FRAME_EXIT, /* from the agent: int32_t exit status, as a shell has it */
};

/* One frame, being received or sent: @done of @bytes have passed. */
struct frame {
	size_t done;
	struct {
		uint32_t type, bytes;
		uint8_t payload[FRAME_PAYLOAD_MAX];
	} wire;
};

#define FRAME_HEAD offsetof(__typeof__(((struct frame *)0)->wire), payload)

/* How many bytes the frame has, as far as is known yet. */
static inline size_t frame_bytes(const struct frame *f)
{
	return f->done < FRAME_HEAD ? FRAME_HEAD : FRAME_HEAD + f->wire.bytes;
}

static inline bool frame_whole(const struct frame *f)
{
	return f->done >= FRAME_HEAD && f->done == FRAME_HEAD + f->wire.bytes;
}

/* False: no such frame exists, the sender is no friend of ours. */
static inline bool frame_sound(const struct frame *f)
{
	return f->done < FRAME_HEAD || f->wire.bytes <= FRAME_PAYLOAD_MAX;
}

/* Heads a frame whose payload is in place (or NULL and of no bytes), ready to be sent. */
static inline void frame_compose(struct frame *f, enum frame_type type, size_t payload_bytes)
{
	f->wire.type = type;
	f->wire.bytes = (uint32_t)payload_bytes;
	f->done = 0;
}
