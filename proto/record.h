/*
 * Records: the framing of the control connection (proto/STREAM.md, section 1).
 *
 * A record_stream wraps a link that it does not own. Sending and receiving are each for one thread
 * at a time. Bodies are bounded by the type's limit before anything is allocated.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/buf.h"
#include "vmm/base/link.h"

#define RECORD_MAGIC        0x54574447u
#define RECORD_OPTIONAL     0x80000000u
#define RECORD_HEADER_BYTES 16
#define STREAM_VERSION_MIN  1
#define STREAM_VERSION_MAX  1
/* Unknown optional records in a row: a peer cannot hold us for ever. */
#define RECORD_MAX_SKIPPED 64
/* More than a peer has said and we have not read. */
#define RECORD_MAX_LAST_WORDS 64

enum record_type {
	RECORD_HELLO = 1,
	RECORD_HELLO_ACK = 2,
	RECORD_DESCRIBE = 3,
	RECORD_DESCRIBE_ACK = 4,
	RECORD_CHANNEL = 5,
	RECORD_CHANNEL_ACK = 6,
	RECORD_ROUND = 7,
	RECORD_STATE = 8,
	RECORD_DIGEST = 9,
	RECORD_READY = 10,
	RECORD_COMMIT = 11,
	RECORD_RUNNING = 12,
	RECORD_ABORT = 13,
	RECORD_BLACKOUT = 14 | (int)RECORD_OPTIONAL,
	RECORD_IMAGE = 15,
};

struct record_stream {
	struct link *link;
	const char *peer; /* "destination" or "source", for messages */
	uint32_t next_sent;
	uint32_t next_received;
	enum err_kind abort_kind; /* of the peer's failure, once ABORT has come */
};

struct record {
	uint32_t type;
	struct buf body;
};

void record_stream_init(struct record_stream *s, struct link *link, const char *peer);

/* What a record header says, checked. Pure; for the parser and its fuzz target. */
int record_parse_header(const uint8_t header[RECORD_HEADER_BYTES], uint32_t want_sequence,
			uint32_t *type, uint32_t *length, struct err *e);

const char *record_type_name(uint32_t type);

/* @message may be NULL: an empty body. */
int record_send(struct record_stream *s, enum record_type type, const ProtobufCMessage *message,
		struct err *e);
int record_send_bytes(struct record_stream *s, enum record_type type, const void *data, size_t len,
		      struct err *e);

/* The next record into @r (body reused; buf_fini it in the end). Unknown optional records are
 * skipped, RECORD_MAX_SKIPPED in a row. ABORT becomes an ERR_PEER with the peer's reason. */
int record_recv(struct record_stream *s, struct record *r, struct err *e);

/* As record_recv, and it must be of @type. */
int record_expect(struct record_stream *s, enum record_type type, struct record *r, struct err *e);

/* Unpack a body; NULL and ERR_STREAM when it is malformed. Free with
 * protobuf_c_message_free_unpacked(). */
ProtobufCMessage *record_unpack(const struct record *r, const ProtobufCMessageDescriptor *d,
				struct err *e);

/* ABORT has come: does it say more about our own @failure than we know? Not when the peer only
 * suffers from what we suffer from, unless all we know is that it has left. */
bool record_abort_says_more(const struct record_stream *s, const struct err *failure);

/* The connection broke, by @failure: if the peer has said why before, in an ABORT that says more,
 * that is @failure from now on. Waits half a second for what is still to come, and hears out
 * RECORD_MAX_LAST_WORDS records at most. */
void record_hear_last_words(struct record_stream *s, struct err *failure);

/* Best effort: tell the peer why we leave. Never blocks for long, never fails. */
void record_send_abort(struct record_stream *s, const struct err *why);
