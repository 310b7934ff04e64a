#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "proto/first_record.h"
#include "proto/record.h"
#include "proto/stream.pb-c.h"
#include "tests/unit/cmocka_all.h"

static uint8_t an_id[MIGRATION_ID_BYTES] = "fifteen letters";

struct bytes {
	size_t len;
	uint8_t at[256];
};

static void frame(struct bytes *b, uint32_t type, const ProtobufCMessage *body)
{
	uint32_t words[4] = {htole32(RECORD_MAGIC), htole32(type)};

	words[2] = htole32((uint32_t)protobuf_c_message_pack(body, b->at + sizeof(words)));
	b->len = sizeof(words) + le32toh(words[2]);
	memcpy(b->at, words, sizeof(words));
}

static void hello(struct bytes *b, size_t id_len)
{
	Godwit__Hello m = GODWIT__HELLO__INIT;

	m.has_migration_id = 1;
	m.migration_id = (ProtobufCBinaryData){id_len, an_id};
	frame(b, RECORD_HELLO, &m.base);
}

static void channel(struct bytes *b)
{
	Godwit__Channel m = GODWIT__CHANNEL__INIT;

	m.has_migration_id = 1;
	m.migration_id = (ProtobufCBinaryData){sizeof(an_id), an_id};
	frame(b, RECORD_CHANNEL, &m.base);
}

static void expect_known(const struct bytes *b, bool begins)
{
	struct first_record first;
	struct err e = ERR_INIT;
	size_t need;

	/* However the bytes trickle in: it asks for more until all are there. */
	for (size_t len = 0; len < b->len; len++) {
		assert_int_equal(first_record_parse(b->at, len, &first, &need, &e), 0);
		assert_true(need > len && need <= b->len);
	}
	assert_int_equal(first_record_parse(b->at, b->len, &first, &need, &e), 0);
	assert_int_equal(need, b->len);
	assert_int_equal(first.begins, begins);
	assert_memory_equal(first.id, an_id, sizeof(an_id));
	/* What follows it on the connection is none of its business. */
	assert_int_equal(first_record_parse(b->at, b->len + 10, &first, &need, &e), 0);
	assert_int_equal(need, b->len);
}

static void expect_refused(const void *data, size_t len)
{
	struct first_record first;
	struct err e = ERR_INIT;
	size_t need;

	assert_true(first_record_parse(data, len, &first, &need, &e) < 0);
	assert_int_equal(e.kind, ERR_STREAM);
}

static void test_it_tells_whose_a_connection_is(void **state)
{
	struct bytes b = {0};

	(void)state;
	hello(&b, sizeof(an_id));
	expect_known(&b, true);
	channel(&b);
	expect_known(&b, false);
}

static void test_anything_else_is_refused(void **state)
{
	Godwit__Channel nobody = GODWIT__CHANNEL__INIT;
	struct bytes b = {0};

	(void)state;
	expect_refused("GET / HTTP/1.1\r\n", 16);
	hello(&b, 15);
	expect_refused(b.at, b.len);
	frame(&b, RECORD_CHANNEL, &nobody.base);
	expect_refused(b.at, b.len);
	channel(&b);
	b.at[4] = RECORD_STATE;
	expect_refused(b.at, b.len);
	hello(&b, sizeof(an_id));
	b.at[10] = 0xff; /* a length beyond the limit */
	expect_refused(b.at, b.len);
	hello(&b, sizeof(an_id));
	b.at[RECORD_HEADER_BYTES + 1] = 200; /* a field longer than the body */
	expect_refused(b.at, b.len);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_it_tells_whose_a_connection_is),
		cmocka_unit_test(test_anything_else_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
