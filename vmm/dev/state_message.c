#include "vmm/dev/state_message.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* No platform device's state is anywhere near this long. */
#define STATE_MAX_BYTES (1 << 17)

int state_message_pack(const ProtobufCMessage *msg, struct buf *out, struct err *e)
{
	size_t len = protobuf_c_message_get_packed_size(msg);
	int ret = buf_reserve(out, len, e);

	if (ret)
		return ret;
	out->len += protobuf_c_message_pack(msg, out->data + out->len);
	return 0;
}

static bool field_present(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *f)
{
	protobuf_c_boolean has;

	memcpy(&has, (const char *)msg + f->quantifier_offset, sizeof(has));
	return has;
}

/* The value of an unsigned field or the length of a bytes field; 0 for any other type. */
static uint64_t field_magnitude(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *f)
{
	const char *at = (const char *)msg + f->offset;
	ProtobufCBinaryData bytes;
	uint32_t u32;
	uint64_t u64;

	switch (f->type) {
	case PROTOBUF_C_TYPE_UINT32:
		memcpy(&u32, at, sizeof(u32));
		return u32;
	case PROTOBUF_C_TYPE_UINT64:
		memcpy(&u64, at, sizeof(u64));
		return u64;
	case PROTOBUF_C_TYPE_BYTES:
		memcpy(&bytes, at, sizeof(bytes));
		return bytes.len;
	default:
		return 0;
	}
}

static uint64_t field_limit(const struct state_limit *limits, const char *name)
{
	for (; limits->field; limits++)
		if (!strcmp(limits->field, name))
			return limits->max;
	return UINT64_MAX;
}

static int check_field(const char *type, const ProtobufCMessage *msg,
		       const ProtobufCFieldDescriptor *f, const struct state_limit *limits,
		       struct err *e)
{
	uint64_t value;
	uint64_t max = field_limit(limits, f->name);

	if (!field_present(msg, f))
		return err_set(e, ERR_STREAM, EPROTO, "%s state lacks field %s", type, f->name);
	value = field_magnitude(msg, f);
	if (value > max)
		return err_set(e, ERR_STREAM, ERANGE, "%s state: %s is 0x%llx, at most 0x%llx",
			       type, f->name, (unsigned long long)value, (unsigned long long)max);
	return 0;
}

static int check_message(const char *type, const ProtobufCMessage *msg,
			 const struct state_limit *limits, struct err *e)
{
	const ProtobufCMessageDescriptor *desc = msg->descriptor;

	if (msg->n_unknown_fields)
		return err_set(e, ERR_STREAM, EPROTO,
			       "%s state has field %u, which this version does not know", type,
			       msg->unknown_fields[0].tag);
	for (unsigned int i = 0; i < desc->n_fields; i++) {
		int ret = check_field(type, msg, &desc->fields[i], limits, e);

		if (ret)
			return ret;
	}
	return 0;
}

int state_message_unpack(const char *type, const ProtobufCMessageDescriptor *desc,
			 const struct state_limit *limits, const uint8_t *data, size_t len,
			 ProtobufCMessage **out, struct err *e)
{
	ProtobufCMessage *msg;
	int ret;

	if (len > STATE_MAX_BYTES)
		return err_set(e, ERR_STREAM, EMSGSIZE, "%s state is %zu bytes, at most %d", type,
			       len, STATE_MAX_BYTES);
	msg = protobuf_c_message_unpack(desc, NULL, len, data);
	if (!msg)
		return err_set(e, ERR_STREAM, EPROTO, "%s state (%zu bytes) is not a %s message",
			       type, len, desc->short_name);
	ret = check_message(type, msg, limits, e);
	if (ret) {
		protobuf_c_message_free_unpacked(msg, NULL);
		return ret;
	}
	*out = msg;
	return 0;
}
