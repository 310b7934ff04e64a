#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/page_writer.h"
#include "tests/unit/cmocka_all.h"

#define FILE_BYTES (12u << 20) /* more than all its pipes hold */
#define PIECE      (64u << 10)

struct fixture {
	struct cancel *abort;
	struct link *out;
	struct link *in; /* with the token, as a receiver's */
	int fd;
	uint8_t *file;
	struct page_writer *writer;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err e = ERR_INIT;
	int fds[2];

	*state = f;
	f->fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (f->fd < 0 || ftruncate(f->fd, FILE_BYTES) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	f->file = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, f->fd, 0);
	return f->file == MAP_FAILED || cancel_new(&f->abort, &e) < 0 ||
	       link_from_fd(fds[0], NULL, &f->out, &e) < 0 ||
	       link_from_fd(fds[1], f->abort, &f->in, &e) < 0 ||
	       page_writer_new(f->fd, f->abort, &f->writer, &e) < 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	page_writer_free(f->writer);
	link_free(f->out);
	link_free(f->in);
	cancel_free(f->abort);
	munmap(f->file, FILE_BYTES);
	close(f->fd);
	free(f);
	return 0;
}

static uint8_t byte_of(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 24);
}

static void *send_all(void *arg)
{
	struct fixture *f = arg;
	struct err e = ERR_INIT;
	uint8_t *data = malloc(FILE_BYTES);

	for (size_t i = 0; i < FILE_BYTES; i++)
		data[i] = byte_of(i);
	if (link_send(f->out, data, FILE_BYTES, &e) < 0)
		abort();
	free(data);
	return NULL;
}

/* Pieces go to the file back to front: each load has a place of its own. */
static void test_everything_gets_where_it_belongs(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, send_all, f), 0);
	for (size_t at = 0; at < FILE_BYTES; at += PIECE)
		assert_int_equal(
			page_writer_take(f->writer, f->in, FILE_BYTES - PIECE - at, PIECE, &e), 0);
	assert_int_equal(page_writer_drain(f->writer, &e), 0);
	pthread_join(t, NULL);
	for (size_t at = 0; at < FILE_BYTES; at += PIECE)
		for (size_t i = 0; i < PIECE; i++)
			if (f->file[FILE_BYTES - PIECE - at + i] != byte_of(at + i))
				fail_msg("byte %zu of piece %zu", i, at / PIECE);
}

/* What settle() was asked about is there when it returns, and later bytes win over earlier ones. */
static void test_settled_pages_are_written(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	uint8_t piece[PIECE];

	for (int version = 1; version < 200; version++) {
		memset(piece, version, PIECE);
		assert_int_equal(link_send(f->out, piece, PIECE, &e), 0);
		assert_int_equal(page_writer_take(f->writer, f->in, PIECE, PIECE, &e), 0);
		assert_int_equal(page_writer_settle(f->writer, 2 * PIECE - 1, 1, &e), 0);
		assert_int_equal(f->file[PIECE], version);
		assert_int_equal(f->file[2 * PIECE - 1], version);
	}
	assert_int_equal(f->file[PIECE - 1], 0);
	assert_int_equal(f->file[2 * PIECE], 0);
}

/* A file that takes no more: the one who waits for bytes hears of it, and why. */
static void test_failure_to_write(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	struct err cause = ERR_INIT;
	uint8_t piece[PIECE] = {1};

	munmap(f->file, FILE_BYTES);
	assert_int_equal(ftruncate(f->fd, 0), 0);
	assert_int_equal(fcntl(f->fd, F_ADD_SEALS, F_SEAL_GROW), 0);
	assert_int_equal(link_send(f->out, piece, PIECE, &e), 0);
	assert_int_equal(page_writer_take(f->writer, f->in, 0, PIECE, &e), 0);
	assert_true(page_writer_take(f->writer, f->in, 0, PIECE, &e) < 0); /* nothing comes */
	assert_true(cancel_requested(f->abort));
	assert_int_equal(page_writer_drain(f->writer, &cause), -EPERM);
	assert_non_null(strstr(cause.msg, "guest memory at 0x0"));
	f->file = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, f->fd, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_everything_gets_where_it_belongs, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_settled_pages_are_written, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failure_to_write, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
