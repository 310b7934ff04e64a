/*
 * The bytes of a channel connection, as they come: batches go through the real receiver into the
 * memory of a guest. Whatever the bytes, nothing outside RAM is written (ASan; the canary page) and
 * the receiver ends with an error that has a message.
 *
 * Input: byte 0 picks the channel count. The rest is the channel's bytes; batch sequence numbers
 * and magic are put right (so that inputs get past them) when byte 1 is odd.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/receiver.h"
#include "proto/batch.h"

#define MEM_BYTES (4ull << 20)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

/* What follows a header that is allowed: its runs and payload. */
static size_t body_bytes(const struct batch_header *h)
{
	struct err e = ERR_INIT;

	if (batch_check_header(h, h->sequence, &e) < 0)
		return 0;
	return h->nr_runs * sizeof(struct batch_run) + h->payload_bytes;
}

static void put_right(uint8_t *data, size_t size)
{
	uint64_t sequence = 0;
	size_t at = 0;

	while (at + sizeof(struct batch_header) <= size) {
		struct batch_header h;

		memcpy(&h, data + at, sizeof(h));
		h.magic = BATCH_MAGIC;
		h.sequence = sequence++;
		h.codec %= NR_BATCH_CODECS;
		h.kind = h.kind % 2 ? BATCH_PAGES : BATCH_BARRIER;
		h.nr_runs = h.kind == BATCH_PAGES ? (uint16_t)(h.nr_runs % 8 + 1) : 0;
		h.payload_bytes = h.kind == BATCH_PAGES ? h.payload_bytes % 65536 : 0;
		memcpy(data + at, &h, sizeof(h));
		at += sizeof(h) + body_bytes(&h);
	}
}

struct feed {
	int fd;
	const uint8_t *data;
	size_t size;
};

/* Write everything, read barrier answers away, close. */
static void *feed_main(void *arg)
{
	struct feed *f = arg;
	uint8_t answers[64];
	size_t done = 0;

	while (done < f->size) {
		ssize_t n = write(f->fd, f->data + done, f->size - done);

		if (n <= 0)
			break;
		done += (size_t)n;
		while (recv(f->fd, answers, sizeof(answers), MSG_DONTWAIT) > 0)
			;
	}
	shutdown(f->fd, SHUT_WR);
	while (read(f->fd, answers, sizeof(answers)) > 0)
		;
	return NULL;
}

static void receive(struct feed *f, struct link *link, uint32_t nr_channels, struct guest_mem *mem,
		    struct cancel *cancel, struct err *e)
{
	struct receiver_config config = {.nr_channels = nr_channels, .mem = mem, .abort = cancel};
	struct bitmap written;
	struct receiver *r;
	pthread_t t;

	if (bitmap_init(&written, guest_mem_nr_gfns(mem), e) < 0)
		abort();
	config.written = &written;
	if (receiver_new(&config, link, NULL, &r, e) < 0 || pthread_create(&t, NULL, feed_main, f))
		abort();
	while (!cancel_requested(cancel)) {
		struct err ended = ERR_INIT;

		(void)cancel_sleep_until(cancel, ~0ull / 2, &ended);
	}
	receiver_failure(r, e);
	receiver_free(r);
	pthread_join(t, NULL);
	bitmap_fini(&written);
}

static void run(const uint8_t *data, size_t size, uint32_t nr_channels)
{
	struct feed f = {.data = data, .size = size};
	struct err e = ERR_INIT;
	struct guest_mem *mem;
	struct cancel *cancel;
	struct link *link;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0 ||
	    link_from_fd(fds[0], NULL, &link, &e) < 0 || cancel_new(&cancel, &e) < 0 ||
	    guest_mem_new(MEM_BYTES, &mem, &e) < 0)
		abort();
	f.fd = fds[1];
	receive(&f, link, nr_channels, mem, cancel, &e);
	if (e.kind == ERR_NONE || !e.msg[0])
		abort();
	close(fds[1]);
	cancel_free(cancel);
	guest_mem_free(mem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (size < 2)
		return 0;
	copy = malloc(size);
	if (!copy)
		abort();
	memcpy(copy, data, size);
	if (copy[1] & 1)
		put_right(copy + 2, size - 2);
	run(copy + 2, size - 2, copy[0] % 4u + 1);
	free(copy);
	return 0;
}
