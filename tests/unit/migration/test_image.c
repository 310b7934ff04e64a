/* migration/image.c: a boot image over a connection, from sources good and bad. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "migration/image.h"

#define KERNEL_BYTES 3000000u /* many records, and more than a socket holds */
#define INITRD_BYTES 1234567u

struct pair {
	struct cancel *cancel; /* of the destination */
	struct link *links[2];
	struct record_stream source;
	struct record_stream destination;
	struct rate_limit *limit;
	struct boot_image *sent;
	struct boot_image *arriving;
	struct record record;
	struct err source_error;
};

static struct boot_image *make_image(void)
{
	struct boot_image_spec spec = {.kernel_name = "vmlinuz",
				       .kernel_bytes = KERNEL_BYTES,
				       .initrd_bytes = INITRD_BYTES,
				       .append = "quiet"};
	static uint32_t words[(KERNEL_BYTES + INITRD_BYTES) / 4 + 1];
	struct boot_image *image = NULL;
	struct err e = ERR_INIT;

	for (uint32_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		words[i] = i * 2654435761u;
	if (boot_image_new(&spec, &image, &e) < 0 ||
	    boot_image_add(image, words, KERNEL_BYTES + INITRD_BYTES, &e) < 0 ||
	    boot_image_seal(image, &e) < 0)
		fail_msg("%s", e.msg);
	return image;
}

static int setup(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));
	Godwit__Image described;
	struct err e = ERR_INIT;
	int fds[2];

	*state = p;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0 ||
	    cancel_new(&p->cancel, &e) < 0 || link_from_fd(fds[0], NULL, &p->links[0], &e) < 0 ||
	    link_from_fd(fds[1], p->cancel, &p->links[1], &e) < 0 ||
	    rate_limit_new(0, NULL, &p->limit, &e) < 0)
		return -1;
	record_stream_init(&p->source, p->links[0], "destination");
	record_stream_init(&p->destination, p->links[1], "source");
	p->sent = make_image();
	image_describe(p->sent, &described);
	return image_expect(&described, &p->arriving, &e);
}

static int teardown(void **state)
{
	struct pair *p = *state;

	buf_fini(&p->record.body);
	boot_image_free(p->sent);
	boot_image_free(p->arriving);
	rate_limit_free(p->limit);
	link_free(p->links[0]);
	link_free(p->links[1]);
	cancel_free(p->cancel);
	free(p);
	return 0;
}

static int receive(struct pair *p, struct fault *fault, struct err *e)
{
	return image_receive(&p->destination, &p->record, p->arriving, p->cancel, fault, e);
}

static void *send_it(void *arg)
{
	struct pair *p = arg;

	(void)image_send(&p->source, p->sent, p->limit, p->cancel, NULL, &p->source_error);
	return NULL;
}

static void it_arrives(void **state)
{
	struct pair *p = *state;
	struct boot_image_spec spec;
	struct err e = ERR_INIT;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, send_it, p), 0);
	if (receive(p, NULL, &e) < 0)
		fail_msg("%s", e.msg);
	pthread_join(thread, NULL);
	assert_int_equal(p->source_error.kind, ERR_NONE);
	spec = boot_image_spec(p->arriving);
	assert_string_equal(spec.kernel_name, "vmlinuz");
	assert_string_equal(spec.append, "quiet");
	assert_int_equal(spec.kernel_bytes, KERNEL_BYTES);
	assert_int_equal(spec.initrd_bytes, INITRD_BYTES);
	assert_memory_equal(boot_image_data(p->arriving), boot_image_data(p->sent),
			    KERNEL_BYTES + INITRD_BYTES);
}

static void receive_fails(struct pair *p, enum err_kind kind, const char *text)
{
	struct err e = ERR_INIT;

	assert_true(receive(p, NULL, &e) < 0);
	assert_int_equal(e.kind, kind);
	if (!strstr(e.msg, text))
		fail_msg("expected \"%s\" in \"%s\"", text, e.msg);
}

static void an_empty_record_is_refused(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;

	assert_int_equal(record_send_bytes(&p->source, RECORD_IMAGE, NULL, 0, &e), 0);
	receive_fails(p, ERR_STREAM, "without bytes");
}

static void another_record_is_refused(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;

	assert_int_equal(record_send_bytes(&p->source, RECORD_ROUND, NULL, 0, &e), 0);
	receive_fails(p, ERR_STREAM, "sent ROUND where IMAGE was due");
}

static void more_than_announced_is_refused(void **state)
{
	static const uint8_t bytes[100];
	Godwit__Image small = GODWIT__IMAGE__INIT;
	char name[] = "k";
	struct pair *p = *state;
	struct err e = ERR_INIT;

	small.has_kernel_bytes = 1;
	small.kernel_bytes = sizeof(bytes) - 1;
	small.kernel_name = name;
	boot_image_free(p->arriving);
	assert_int_equal(image_expect(&small, &p->arriving, &e), 0);
	assert_int_equal(record_send_bytes(&p->source, RECORD_IMAGE, bytes, sizeof(bytes), &e), 0);
	receive_fails(p, ERR_STREAM, "100 bytes of boot image where 99 are missing");
}

static void a_source_may_leave(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;

	assert_int_equal(record_send_bytes(&p->source, RECORD_IMAGE, "abc", 3, &e), 0);
	link_shutdown(p->links[0]);
	receive_fails(p, ERR_PEER, "closed the connection");
}

static void cancelled(void **state)
{
	struct pair *p = *state;
	struct err e = ERR_INIT;

	cancel_request(p->cancel);
	receive_fails(p, ERR_CANCELLED, "");
	assert_true(image_send(&p->source, p->sent, p->limit, p->cancel, NULL, &e) < 0);
	assert_int_equal(e.kind, ERR_CANCELLED);
}

static void impossible_images_are_refused(void **state)
{
	Godwit__Image d = GODWIT__IMAGE__INIT;
	struct boot_image *image;
	struct err e = ERR_INIT;
	char name[] = "k";

	(void)state;
	assert_true(image_expect(&d, &image, &e) < 0);
	d.kernel_name = name;
	assert_true(image_expect(&d, &image, &e) < 0);
	d.kernel_bytes = BOOT_KERNEL_MAX_BYTES + 1;
	assert_true(image_expect(&d, &image, &e) < 0);
	d.kernel_bytes = 1;
	d.initrd_bytes = UINT64_MAX;
	assert_true(image_expect(&d, &image, &e) < 0);
	assert_non_null(strstr(e.msg, "at most 1024 MiB are taken"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(it_arrives),
		TEST(an_empty_record_is_refused),
		TEST(another_record_is_refused),
		TEST(more_than_announced_is_refused),
		TEST(a_source_may_leave),
		TEST(cancelled),
		cmocka_unit_test(impossible_images_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
