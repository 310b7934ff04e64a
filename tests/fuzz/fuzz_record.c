/*
 * The control connection's parser: any 16 bytes as a record header, any bytes as the body of every
 * message. Whatever is accepted stays within the limits of proto/STREAM.md, section 1.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/device.pb-c.h"
#include "proto/record.h"
#include "proto/state.pb-c.h"
#include "proto/stream.pb-c.h"
#include "vmm/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCMessageDescriptor *const messages[] = {
	&godwit__hello__descriptor,    &godwit__hello_ack__descriptor,
	&godwit__describe__descriptor, &godwit__describe_ack__descriptor,
	&godwit__channel__descriptor,  &godwit__round__descriptor,
	&godwit__digest__descriptor,   &godwit__ready__descriptor,
	&godwit__commit__descriptor,   &godwit__running__descriptor,
	&godwit__abort__descriptor,    &godwit__blackout__descriptor,
};

static void parse_header(const uint8_t *data)
{
	struct err e = ERR_INIT;
	uint32_t sequence;
	uint32_t type;
	uint32_t length;

	memcpy(&sequence, data + 12, sizeof(sequence));
	if (record_parse_header(data, sequence, &type, &length, &e) == 0) {
		if (length > 64u << 20 || (!record_type_name(type) && !(type & RECORD_OPTIONAL)))
			abort();
	} else if (e.kind != ERR_STREAM || !e.msg[0]) {
		abort();
	}
}

static void unpack(const uint8_t *data, size_t size)
{
	struct record r = {.body = BUF_INIT};
	struct vm_config config = {0};
	struct err e = ERR_INIT;

	if (buf_append(&r.body, data, size, &e) < 0)
		abort();
	for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
		ProtobufCMessage *m = record_unpack(&r, messages[i], &e);

		if (m)
			protobuf_c_message_free_unpacked(m, NULL);
	}
	(void)vm_config_unpack(data, size, &config, &e);
	buf_fini(&r.body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size >= RECORD_HEADER_BYTES)
		parse_header(data);
	unpack(data, size);
	return 0;
}
