/* Messages between threads: order, nesting, and nothing left over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "control/mailbox.h"

#define NR_POSTS 2000

struct reader {
	struct mailbox *mailbox;
	uint32_t nr;
	uint32_t last[2]; /* newest round seen of each poster */
	bool nested;
};

static void on_mail(void *ctx, const struct mail *mail)
{
	struct reader *r = ctx;
	uint32_t poster = (uint32_t)mail->status;

	assert_true(poster < 2 && mail->round == r->last[poster] + 1);
	r->last[poster] = mail->round;
	r->nr++;
	if (r->nested)
		mailbox_drain(r->mailbox);
}

struct poster {
	struct mailbox *mailbox;
	enum migration_status id;
};

static void *post(void *arg)
{
	const struct poster *p = arg;

	for (uint32_t i = 1; i <= NR_POSTS; i++)
		mailbox_post(p->mailbox,
			     &(struct mail){.kind = MAIL_ROUND, .status = p->id, .round = i});
	return NULL;
}

static void exchange(bool nested)
{
	struct reader reader = {.nested = nested};
	struct poster posters[2];
	pthread_t threads[2];
	struct err e = ERR_INIT;
	uv_loop_t loop;

	uv_loop_init(&loop);
	assert_int_equal(mailbox_new(&loop, on_mail, &reader, &reader.mailbox, &e), 0);
	for (int i = 0; i < 2; i++) {
		posters[i] = (struct poster){reader.mailbox, (enum migration_status)i};
		pthread_create(&threads[i], NULL, post, &posters[i]);
	}
	while (reader.nr < 2 * NR_POSTS)
		uv_run(&loop, UV_RUN_ONCE);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	mailbox_post(reader.mailbox, &(struct mail){.kind = MAIL_ROUND}); /* never delivered */
	mailbox_close(reader.mailbox);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
}

static void test_order(void **state)
{
	(void)state;
	exchange(false);
}

static void test_nested_drain(void **state)
{
	(void)state;
	exchange(true);
}

static void test_what_can_wait_does(void **state)
{
	struct reader reader = {.nr = 0};
	struct err e = ERR_INIT;
	uv_loop_t loop;

	(void)state;
	uv_loop_init(&loop);
	assert_int_equal(mailbox_new(&loop, on_mail, &reader, &reader.mailbox, &e), 0);
	mailbox_post(reader.mailbox,
		     &(struct mail){.kind = MAIL_ROUND, .round = 1, .can_wait = true});
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(reader.nr, 0);
	mailbox_post(reader.mailbox, &(struct mail){.kind = MAIL_ROUND, .round = 2});
	uv_run(&loop, UV_RUN_ONCE);
	assert_int_equal(reader.nr, 2); /* in their order: on_mail() looks */
	mailbox_close(reader.mailbox);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
}

/* A sender that answers every message with another must not hold the loop for ever. */
static void answer(void *ctx, const struct mail *mail)
{
	struct reader *r = ctx;

	(void)mail;
	r->nr++;
	mailbox_post(r->mailbox, &(struct mail){.kind = MAIL_END});
}

static void test_one_turn_is_bounded(void **state)
{
	struct reader reader = {.nr = 0};
	struct err e = ERR_INIT;
	uv_loop_t loop;

	(void)state;
	uv_loop_init(&loop);
	assert_int_equal(mailbox_new(&loop, answer, &reader, &reader.mailbox, &e), 0);
	mailbox_post(reader.mailbox, &(struct mail){.kind = MAIL_END});
	mailbox_drain(reader.mailbox);
	assert_int_equal(reader.nr, 1);
	uv_run(&loop, UV_RUN_ONCE); /* what came meanwhile is delivered by the loop itself */
	assert_int_equal(reader.nr, 2);
	mailbox_close(reader.mailbox);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_nested_drain),
		cmocka_unit_test(test_what_can_wait_does),
		cmocka_unit_test(test_one_turn_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
