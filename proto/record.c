#include "proto/record.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "proto/stream.pb-c.h"
#include "vmm/base/clock.h"

#define KIB 1024u
#define MIB (1024u * KIB)

static const struct {
	enum record_type type;
	const char *name;
	uint32_t limit;
} record_types[] = {
	{RECORD_HELLO, "HELLO", 64 * KIB},     {RECORD_HELLO_ACK, "HELLO_ACK", 64 * KIB},
	{RECORD_DESCRIBE, "DESCRIBE", MIB},    {RECORD_DESCRIBE_ACK, "DESCRIBE_ACK", 64 * KIB},
	{RECORD_CHANNEL, "CHANNEL", 64 * KIB}, {RECORD_CHANNEL_ACK, "CHANNEL_ACK", 0},
	{RECORD_ROUND, "ROUND", 64 * KIB},     {RECORD_STATE, "STATE", 64 * MIB},
	{RECORD_DIGEST, "DIGEST", 64 * KIB},   {RECORD_READY, "READY", 64 * KIB},
	{RECORD_COMMIT, "COMMIT", 64 * KIB},   {RECORD_RUNNING, "RUNNING", 64 * KIB},
	{RECORD_ABORT, "ABORT", 64 * KIB},     {RECORD_BLACKOUT, "BLACKOUT", 64 * KIB},
	{RECORD_IMAGE, "IMAGE", MIB},
};

struct wire_header {
	uint32_t magic;
	uint32_t type;
	uint32_t length;
	uint32_t sequence;
};
_Static_assert(sizeof(struct wire_header) == RECORD_HEADER_BYTES, "wire layout");

void record_stream_init(struct record_stream *s, struct link *link, const char *peer)
{
	*s = (struct record_stream){.link = link, .peer = peer};
}

const char *record_type_name(uint32_t type)
{
	for (size_t i = 0; i < sizeof(record_types) / sizeof(record_types[0]); i++)
		if ((uint32_t)record_types[i].type == type)
			return record_types[i].name;
	return NULL;
}

/* The longest body of @type, or -1 for a type that must be understood and is not. */
static int64_t body_limit(uint32_t type)
{
	for (size_t i = 0; i < sizeof(record_types) / sizeof(record_types[0]); i++)
		if ((uint32_t)record_types[i].type == type)
			return record_types[i].limit;
	return type & RECORD_OPTIONAL ? (int64_t)(64 * KIB) : -1;
}

int record_parse_header(const uint8_t header[RECORD_HEADER_BYTES], uint32_t want_sequence,
			uint32_t *type, uint32_t *length, struct err *e)
{
	struct wire_header h;
	int64_t limit;

	memcpy(&h, header, sizeof(h));
	if (le32toh(h.magic) != RECORD_MAGIC)
		return err_set(e, ERR_STREAM, EPROTO,
			       "not a godwit migration stream (record begins with 0x%08x)",
			       le32toh(h.magic));
	*type = le32toh(h.type);
	*length = le32toh(h.length);
	limit = body_limit(*type);
	if (limit < 0)
		return err_set(e, ERR_STREAM, EPROTO,
			       "record type %u is unknown and mandatory; the peer is newer, update "
			       "godwit on this host",
			       *type);
	if (*length > limit)
		return err_set(e, ERR_STREAM, EPROTO,
			       "record type 0x%x claims %u bytes; at most %lld are allowed", *type,
			       *length, (long long)limit);
	if (le32toh(h.sequence) != want_sequence)
		return err_set(e, ERR_STREAM, EPROTO, "record %u came where record %u was due",
			       le32toh(h.sequence), want_sequence);
	return 0;
}

int record_send_bytes(struct record_stream *s, enum record_type type, const void *data, size_t len,
		      struct err *e)
{
	struct wire_header h = {.magic = htole32(RECORD_MAGIC),
				.type = htole32((uint32_t)type),
				.length = htole32((uint32_t)len),
				.sequence = htole32(s->next_sent)};
	struct iovec iov[2] = {{.iov_base = &h, .iov_len = sizeof(h)}, {.iov_len = len}};

	memcpy(&iov[1].iov_base, &data, sizeof(data)); /* sendmsg only reads through it */
	s->next_sent++;
	if (link_sendv(s->link, iov, 2, e) < 0)
		return err_prefix(e, "sending %s to the %s", record_type_name((uint32_t)type),
				  s->peer);
	return 0;
}

int record_send(struct record_stream *s, enum record_type type, const ProtobufCMessage *message,
		struct err *e)
{
	struct buf body = BUF_INIT;
	size_t len = message ? protobuf_c_message_get_packed_size(message) : 0;
	int ret = buf_reserve(&body, len, e);

	if (ret < 0)
		return ret;
	if (message)
		protobuf_c_message_pack(message, body.data);
	ret = record_send_bytes(s, type, body.data, len, e);
	buf_fini(&body);
	return ret;
}

/* The peer's own words, kept apart from ours and bounded. */
static int aborted(struct record_stream *s, const struct record *r, struct err *e)
{
	ProtobufCMessage *m = record_unpack(r, &godwit__abort__descriptor, e);
	const Godwit__Abort *abort = (const Godwit__Abort *)m;
	enum err_kind kind = ERR_PEER;

	if (!m)
		return -e->code;
	if (abort->has_kind && abort->kind == ERR_CANCELLED)
		kind = ERR_CANCELLED;
	s->abort_kind = abort->has_kind ? (enum err_kind)abort->kind : ERR_NONE;
	err_set(e, kind, ECONNABORTED, "the %s gave up: %.400s", s->peer,
		abort->reason ? abort->reason : "no reason given");
	protobuf_c_message_free_unpacked(m, NULL);
	return -e->code;
}

static int recv_one(struct record_stream *s, struct record *r, struct err *e)
{
	uint8_t header[RECORD_HEADER_BYTES];
	uint32_t length = 0;

	if (link_recv(s->link, header, sizeof(header), e) < 0)
		return -e->code;
	if (record_parse_header(header, s->next_received, &r->type, &length, e) < 0)
		return -e->code;
	s->next_received++;
	buf_reset(&r->body);
	if (buf_reserve(&r->body, length, e) < 0 || link_recv(s->link, r->body.data, length, e) < 0)
		return -e->code;
	r->body.len = length;
	return 0;
}

int record_recv(struct record_stream *s, struct record *r, struct err *e)
{
	int skipped = 0;

	do {
		if (skipped++ > RECORD_MAX_SKIPPED)
			return err_set(e, ERR_STREAM, EPROTO,
				       "the %s sent more than %d records of unknown types in a row",
				       s->peer, RECORD_MAX_SKIPPED);
		if (recv_one(s, r, e) < 0)
			return err_prefix(e, "hearing from the %s", s->peer);
	} while (!record_type_name(r->type));
	return r->type == RECORD_ABORT ? aborted(s, r, e) : 0;
}

int record_expect(struct record_stream *s, enum record_type type, struct record *r, struct err *e)
{
	if (record_recv(s, r, e) < 0)
		return -e->code;
	if (r->type != (uint32_t)type)
		return err_set(e, ERR_STREAM, EPROTO, "the %s sent %s where %s was due", s->peer,
			       record_type_name(r->type), record_type_name((uint32_t)type));
	return 0;
}

ProtobufCMessage *record_unpack(const struct record *r, const ProtobufCMessageDescriptor *d,
				struct err *e)
{
	ProtobufCMessage *m = protobuf_c_message_unpack(d, NULL, r->body.len, r->body.data);

	if (!m)
		err_set(e, ERR_STREAM, EPROTO, "malformed %s body (%zu bytes)", d->short_name,
			r->body.len);
	return m;
}

bool record_abort_says_more(const struct record_stream *s, const struct err *failure)
{
	return s->abort_kind != ERR_PEER || failure->code == ECONNRESET || failure->code == EPIPE;
}

void record_hear_last_words(struct record_stream *s, struct err *failure)
{
	struct record r = {.body = BUF_INIT};
	struct err peer = ERR_INIT;

	link_set_stall_timeout(s->link, NS_PER_S / 2);
	for (int i = 0; i < RECORD_MAX_LAST_WORDS; i++)
		if (record_recv(s, &r, &peer) < 0)
			break;
	buf_fini(&r.body);
	if (peer.code == ECONNABORTED && record_abort_says_more(s, failure))
		*failure = peer;
}

void record_send_abort(struct record_stream *s, const struct err *why)
{
	char reason[ERR_MSG_BYTES];
	Godwit__Abort abort = GODWIT__ABORT__INIT;
	struct err ignored = ERR_INIT;

	memcpy(reason, why->msg, sizeof(reason));
	abort.reason = reason;
	abort.has_kind = 1;
	abort.kind = why->kind;
	link_set_stall_timeout(s->link, NS_PER_S / 5);
	(void)record_send(s, RECORD_ABORT, &abort.base, &ignored);
}
