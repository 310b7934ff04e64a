/* migration/receiver.h: how a channel ends at the destination. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/receiver.h"
#include "proto/batch.h"
#include "tests/unit/vmm/tiny_guest.h"

#define MEM_BYTES (4ull << 20)

struct channel {
	struct receiver_config config;
	struct bitmap written;
	struct receiver *receiver;
	int source; /* the other end of its connection */
	uint64_t sequence;
};

static void channel_open(struct channel *c)
{
	struct link *link;
	int ends[2];

	*c = (struct channel){.config = {.nr_channels = 1, .written = &c->written}};
	must(guest_mem_new(MEM_BYTES, &c->config.mem, e));
	must(bitmap_init(&c->written, guest_mem_nr_gfns(c->config.mem), e));
	must(cancel_new(&c->config.abort, e));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	must(link_from_fd(ends[0], NULL, &link, e));
	c->source = ends[1];
	must(receiver_new(&c->config, link, NULL, &c->receiver, e));
}

static void channel_close(struct channel *c)
{
	receiver_free(c->receiver);
	close(c->source);
	cancel_free(c->config.abort);
	bitmap_fini(&c->written);
	guest_mem_free(c->config.mem);
}

static void send_barrier(struct channel *c, uint32_t round)
{
	struct batch_header h = {.magic = BATCH_MAGIC,
				 .kind = BATCH_BARRIER,
				 .round = round,
				 .sequence = c->sequence++};
	struct batch_back back;

	assert_int_equal(write(c->source, &h, sizeof(h)), sizeof(h));
	assert_int_equal(read(c->source, &back, sizeof(back)), sizeof(back));
	assert_int_equal(back.round, round);
}

/* Page 0, full of ones. Whether anybody reads it is not this side's affair. */
static void send_page(struct channel *c, uint32_t round)
{
	struct {
		struct batch_header h;
		struct batch_run run;
		uint8_t page[PAGE_BYTES];
	} batch = {.h = {.magic = BATCH_MAGIC,
			 .kind = BATCH_PAGES,
			 .nr_runs = 1,
			 .payload_bytes = PAGE_BYTES,
			 .round = round,
			 .sequence = c->sequence++},
		   .run = {.gfn = 0, .nr_pages = 1, .kind = RUN_DATA}};

	memset(batch.page, 0xff, sizeof(batch.page));
	(void)!write(c->source, &batch, sizeof(batch));
}

static uint8_t first_byte(const struct channel *c)
{
	return *(const volatile uint8_t *)guest_mem_at(c->config.mem, 0, 1);
}

/* It shuts by itself, and what comes then is left where it is. */
static void nothing_arrives_behind_the_last_round(void **state)
{
	struct channel c;
	struct err e = ERR_INIT;

	(void)state;
	channel_open(&c);
	send_page(&c, 1);
	send_barrier(&c, 1);
	assert_int_equal(first_byte(&c), 0xff);
	guest_mem_write(c.config.mem, 0, "", 1, &e);
	receiver_expect_last(c.receiver, 2);
	send_barrier(&c, 2);
	send_page(&c, 3);
	receiver_seal(c.receiver);
	assert_int_equal(first_byte(&c), 0);
	receiver_failure(c.receiver, &e);
	assert_int_equal(e.kind, ERR_NONE);
	assert_int_equal(cancel_check(c.config.abort, &e), 0); /* nobody else is told to stop */
	channel_close(&c);
}

/* The record that says which round is the last may come behind that round's barrier. */
static void a_late_word_is_in_time(void **state)
{
	struct channel c;
	struct err e = ERR_INIT;

	(void)state;
	channel_open(&c);
	send_barrier(&c, 1);
	receiver_expect_last(c.receiver, 1);
	receiver_seal(c.receiver);
	send_page(&c, 2);
	assert_int_equal(first_byte(&c), 0);
	receiver_failure(c.receiver, &e);
	assert_int_equal(e.kind, ERR_NONE);
	channel_close(&c);
}

/* A source that leaves in mid-round is a failure, and ends every wait of the migration. */
static void a_source_that_leaves_is_a_failure(void **state)
{
	struct channel c;
	struct err e = ERR_INIT;
	uint64_t deadline = clock_now_ns() + 60 * NS_PER_S;

	(void)state;
	channel_open(&c);
	receiver_expect_last(c.receiver, 2);
	send_barrier(&c, 1);
	shutdown(c.source, SHUT_RDWR);
	while (e.kind == ERR_NONE && clock_now_ns() < deadline) {
		usleep(200);
		receiver_failure(c.receiver, &e);
	}
	assert_int_equal(e.kind, ERR_PEER);
	while (cancel_check(c.config.abort, &e) == 0 && clock_now_ns() < deadline)
		usleep(200);
	assert_true(cancel_check(c.config.abort, &e) < 0);
	channel_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_arrives_behind_the_last_round),
		cmocka_unit_test(a_late_word_is_in_time),
		cmocka_unit_test(a_source_that_leaves_is_a_failure),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
