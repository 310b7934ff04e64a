#include "proto/first_record.h"

#include <errno.h>
#include <string.h>

#include "proto/record.h"
#include "proto/stream.pb-c.h"

static int take_id(bool has_id, const ProtobufCBinaryData *id, struct first_record *out,
		   struct err *e)
{
	if (!has_id || id->len != sizeof(out->id))
		return err_set(e, ERR_STREAM, EPROTO,
			       "a connection's first record has no migration id");
	memcpy(out->id, id->data, sizeof(out->id));
	return 0;
}

static int parse_body(const uint8_t *body, size_t len, struct first_record *out, struct err *e)
{
	/* only read through */
	struct record r = {.body = {.data = (uint8_t *)(uintptr_t)body, .len = len}};
	ProtobufCMessage *m = record_unpack(
		&r, out->begins ? &godwit__hello__descriptor : &godwit__channel__descriptor, e);
	const Godwit__Hello *hello = (const Godwit__Hello *)m;
	const Godwit__Channel *channel = (const Godwit__Channel *)m;
	int ret;

	if (!m)
		return -e->code;
	ret = out->begins ? take_id(hello->has_migration_id, &hello->migration_id, out, e)
			  : take_id(channel->has_migration_id, &channel->migration_id, out, e);
	protobuf_c_message_free_unpacked(m, NULL);
	return ret;
}

int first_record_parse(const void *data, size_t len, struct first_record *out, size_t *need,
		       struct err *e)
{
	const uint8_t *bytes = data;
	uint32_t length;
	uint32_t type;

	*need = RECORD_HEADER_BYTES;
	if (len < *need)
		return 0;
	if (record_parse_header(bytes, 0, &type, &length, e) < 0)
		return -e->code;
	if (type != RECORD_HELLO && type != RECORD_CHANNEL)
		return err_set(e, ERR_STREAM, EPROTO, "a connection began with record type 0x%x",
			       type);
	*need += length;
	if (len < *need)
		return 0;
	out->begins = type == RECORD_HELLO;
	return parse_body(bytes + RECORD_HEADER_BYTES, length, out, e);
}
