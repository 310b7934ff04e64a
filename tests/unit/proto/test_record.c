#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "proto/record.h"
#include "proto/stream.pb-c.h"
#include "tests/unit/cmocka_all.h"

struct pair {
	struct link *links[2];
	struct record_stream source;
	struct record_stream destination;
	struct record got;
};

static int setup(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));
	struct err e = ERR_INIT;
	int fds[2];

	*state = p;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0 ||
	    link_from_fd(fds[0], NULL, &p->links[0], &e) < 0 ||
	    link_from_fd(fds[1], NULL, &p->links[1], &e) < 0)
		return -1;
	record_stream_init(&p->source, p->links[0], "destination");
	record_stream_init(&p->destination, p->links[1], "source");
	return 0;
}

static int teardown(void **state)
{
	struct pair *p = *state;

	buf_fini(&p->got.body);
	link_free(p->links[0]);
	link_free(p->links[1]);
	free(p);
	return 0;
}

static void put_header(uint8_t out[RECORD_HEADER_BYTES], uint32_t type, uint32_t length,
		       uint32_t sequence)
{
	const uint32_t words[4] = {htole32(RECORD_MAGIC), htole32(type), htole32(length),
				   htole32(sequence)};

	memcpy(out, words, RECORD_HEADER_BYTES);
}

static void expect_header(uint32_t type, uint32_t length, uint32_t sequence, int ok)
{
	uint8_t header[RECORD_HEADER_BYTES];
	struct err e = ERR_INIT;
	uint32_t got_type;
	uint32_t got_length;

	put_header(header, type, length, sequence);
	assert_int_equal(record_parse_header(header, 5, &got_type, &got_length, &e),
			 ok ? 0 : -EPROTO);
	if (ok) {
		assert_int_equal(got_type, type);
		assert_int_equal(got_length, length);
	} else {
		assert_int_equal(e.kind, ERR_STREAM);
	}
}

static void test_headers(void **state)
{
	(void)state;
	expect_header(RECORD_HELLO, 65536, 5, 1);
	expect_header(RECORD_HELLO, 65537, 5, 0);
	expect_header(RECORD_CHANNEL_ACK, 0, 5, 1);
	expect_header(RECORD_CHANNEL_ACK, 1, 5, 0);
	expect_header(RECORD_STATE, 64u << 20, 5, 1);
	expect_header(RECORD_STATE, (64u << 20) + 1, 5, 0);
	expect_header(RECORD_HELLO, 0, 4, 0);         /* out of sequence */
	expect_header(99, 0, 5, 0);                   /* unknown and mandatory */
	expect_header(99 | RECORD_OPTIONAL, 8, 5, 1); /* unknown and optional */
	expect_header(99 | RECORD_OPTIONAL, 65537, 5, 0);
	expect_header(14, 0, 5, 0); /* BLACKOUT without its optional bit is another type */
}

static void test_wrong_magic_says_what_this_is_not(void **state)
{
	uint8_t header[RECORD_HEADER_BYTES] = "GET / HTTP/1.1\r";
	struct err e = ERR_INIT;
	uint32_t type;
	uint32_t length;

	(void)state;
	assert_true(record_parse_header(header, 0, &type, &length, &e) < 0);
	assert_non_null(strstr(e.msg, "not a godwit migration stream"));
}

static void test_round_trip(void **state)
{
	struct pair *p = *state;
	Godwit__Round round = GODWIT__ROUND__INIT;
	struct err e = ERR_INIT;
	ProtobufCMessage *m;

	round.has_number = 1;
	round.number = 3;
	assert_int_equal(record_send(&p->source, RECORD_ROUND, &round.base, &e), 0);
	assert_int_equal(record_send(&p->source, RECORD_CHANNEL_ACK, NULL, &e), 0);
	assert_int_equal(record_expect(&p->destination, RECORD_ROUND, &p->got, &e), 0);
	m = record_unpack(&p->got, &godwit__round__descriptor, &e);
	assert_non_null(m);
	assert_int_equal(((Godwit__Round *)m)->number, 3);
	assert_false(((Godwit__Round *)m)->has_last);
	protobuf_c_message_free_unpacked(m, NULL);
	assert_int_equal(record_expect(&p->destination, RECORD_CHANNEL_ACK, &p->got, &e), 0);
	assert_int_equal(p->got.body.len, 0);
}

static void test_unknown_optional_records_are_skipped(void **state)
{
	struct pair *p = *state;
	uint8_t header[RECORD_HEADER_BYTES];
	struct err e = ERR_INIT;

	put_header(header, 77 | RECORD_OPTIONAL, 3, 0);
	assert_int_equal(link_send(p->links[0], header, sizeof(header), &e), 0);
	assert_int_equal(link_send(p->links[0], "abc", 3, &e), 0);
	put_header(header, RECORD_CHANNEL_ACK, 0, 1);
	assert_int_equal(link_send(p->links[0], header, sizeof(header), &e), 0);
	assert_int_equal(record_expect(&p->destination, RECORD_CHANNEL_ACK, &p->got, &e), 0);
}

static void test_unknown_records_without_end_are_refused(void **state)
{
	struct pair *p = *state;
	uint8_t header[RECORD_HEADER_BYTES];
	struct err e = ERR_INIT;

	for (uint32_t i = 0; i <= RECORD_MAX_SKIPPED; i++) {
		put_header(header, 77 | RECORD_OPTIONAL, 0, i);
		assert_int_equal(link_send(p->links[0], header, sizeof(header), &e), 0);
	}
	assert_int_equal(record_recv(&p->destination, &p->got, &e), -EPROTO);
	assert_non_null(strstr(e.msg, "unknown types in a row"));
}

static void test_abort_carries_the_reason(void **state)
{
	struct pair *p = *state;
	struct err why = ERR_INIT;
	struct err e = ERR_INIT;

	err_set(&why, ERR_UNSUPPORTED, ENOTSUP, "no such CPU feature");
	record_send_abort(&p->destination, &why);
	assert_int_equal(record_expect(&p->source, RECORD_READY, &p->got, &e), -ECONNABORTED);
	assert_int_equal(e.kind, ERR_PEER);
	assert_string_equal(e.msg, "the destination gave up: no such CPU feature");
	err_set(&why, ERR_CANCELLED, ECANCELED, "cancelled by the user");
	record_send_abort(&p->destination, &why);
	assert_true(record_expect(&p->source, RECORD_READY, &p->got, &e) < 0);
	assert_int_equal(e.kind, ERR_CANCELLED);
}

/* Two sides that suffer from each other: the first cause is kept. */
static void test_whose_words_say_more(void **state)
{
	struct pair *p = *state;
	struct err why = ERR_INIT;
	struct err ours = ERR_INIT;
	struct err gone = ERR_INIT;
	struct err e = ERR_INIT;

	err_set(&ours, ERR_PEER, ENOTCONN, "the link was cut");
	err_set(&gone, ERR_PEER, ECONNRESET, "the peer closed the connection");
	err_set(&why, ERR_PEER, ECONNRESET, "the peer closed the connection");
	record_send_abort(&p->destination, &why);
	assert_true(record_expect(&p->source, RECORD_READY, &p->got, &e) < 0);
	assert_false(record_abort_says_more(&p->source, &ours));
	assert_true(record_abort_says_more(&p->source, &gone));
	err_set(&why, ERR_SYS, ENOMEM, "out of memory");
	record_send_abort(&p->destination, &why);
	assert_true(record_expect(&p->source, RECORD_READY, &p->got, &e) < 0);
	assert_true(record_abort_says_more(&p->source, &ours));
}

static void *talk_on(void *arg)
{
	struct pair *p = arg;
	struct err e = ERR_INIT;

	while (record_send(&p->destination, RECORD_READY, NULL, &e) == 0)
		;
	return NULL;
}

static void test_last_words_are_heard(void **state)
{
	struct pair *p = *state;
	struct err why = {.kind = ERR_UNSUPPORTED, .msg = "no such device here"};
	struct err failure = ERR_INIT;

	assert_int_equal(record_send(&p->destination, RECORD_READY, NULL, &failure), 0);
	record_send_abort(&p->destination, &why);
	err_set(&failure, ERR_PEER, ECONNRESET, "it broke");
	record_hear_last_words(&p->source, &failure);
	assert_non_null(strstr(failure.msg, "no such device here"));
}

/* A peer that goes on talking does not hold us. */
static void test_but_not_for_ever(void **state)
{
	struct pair *p = *state;
	struct err failure = ERR_INIT;
	pthread_t peer;

	err_set(&failure, ERR_PEER, ECONNRESET, "it broke");
	assert_int_equal(pthread_create(&peer, NULL, talk_on, p), 0);
	record_hear_last_words(&p->source, &failure);
	assert_string_equal(failure.msg, "it broke");
	link_shutdown(p->links[0]);
	pthread_join(peer, NULL);
}

static void test_wrong_type_names_both(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;

	assert_int_equal(record_send(&p->source, RECORD_CHANNEL_ACK, NULL, &e), 0);
	assert_int_equal(record_expect(&p->destination, RECORD_HELLO, &p->got, &e), -EPROTO);
	assert_string_equal(e.msg, "the source sent CHANNEL_ACK where HELLO was due");
}

static void test_malformed_body(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;

	assert_int_equal(record_send_bytes(&p->source, RECORD_HELLO, "\xff\xff\xff", 3, &e), 0);
	assert_int_equal(record_expect(&p->destination, RECORD_HELLO, &p->got, &e), 0);
	assert_null(record_unpack(&p->got, &godwit__hello__descriptor, &e));
	assert_int_equal(e.kind, ERR_STREAM);
}

static void test_truncated_record(void **state)
{
	struct pair *p = *state;
	uint8_t header[RECORD_HEADER_BYTES];
	struct err e = ERR_INIT;

	put_header(header, RECORD_HELLO, 100, 0);
	assert_int_equal(link_send(p->links[0], header, sizeof(header), &e), 0);
	assert_int_equal(link_send(p->links[0], "abc", 3, &e), 0);
	link_free(p->links[0]);
	p->links[0] = NULL;
	assert_int_equal(record_recv(&p->destination, &p->got, &e), -ECONNRESET);
	assert_int_equal(e.kind, ERR_PEER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_headers),
		cmocka_unit_test(test_wrong_magic_says_what_this_is_not),
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown_optional_records_are_skipped, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_unknown_records_without_end_are_refused, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_abort_carries_the_reason, setup, teardown),
		cmocka_unit_test_setup_teardown(test_whose_words_say_more, setup, teardown),
		cmocka_unit_test_setup_teardown(test_last_words_are_heard, setup, teardown),
		cmocka_unit_test_setup_teardown(test_but_not_for_ever, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_type_names_both, setup, teardown),
		cmocka_unit_test_setup_teardown(test_malformed_body, setup, teardown),
		cmocka_unit_test_setup_teardown(test_truncated_record, setup, teardown),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
