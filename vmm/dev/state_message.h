/*
 * Device state as protobuf-c messages: packing, and unpacking bytes that nobody vouches for.
 *
 * A message that passes state_message_unpack() has every field of its descriptor, none that the
 * descriptor does not know, and no value above its limit. What a field means beyond that is the
 * device's to check.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "vmm/base/buf.h"
#include "vmm/base/err.h"

/* The largest value of an unsigned field, or the longest length of a bytes field. */
struct state_limit {
	const char *field;
	uint64_t max;
};

int state_message_pack(const ProtobufCMessage *msg, struct buf *out, struct err *e);

/* @limits ends with a NULL field. @type names the device in messages. The result, of the
 * descriptor's type, goes to protobuf_c_message_free_unpacked(). */
int state_message_unpack(const char *type, const ProtobufCMessageDescriptor *desc,
			 const struct state_limit *limits, const uint8_t *data, size_t len,
			 ProtobufCMessage **out, struct err *e);
