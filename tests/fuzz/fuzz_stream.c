/*
 * A whole destination against a hostile source: the engine listens, this program connects and sends
 * what the fuzzer made up. The destination must end, never run a guest, and say why.
 *
 * Input: byte 0 odd: the rest is sent as it is. Even: the rest is a list of records (type 1 byte,
 * length 2 bytes, body) that are framed with the right magic and sequence, so that inputs get
 * past the header. No machine is built, so the stream ends at DESCRIBE at the latest; channels and
 * state have targets of their own (fuzz_batch, fuzz_device_state).
 */
#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "migration/migration.h"
#include "proto/record.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int refuse(void *ctx, struct vm_config *config, struct vm **vm, struct err *e)
{
	(void)ctx;
	(void)vm;
	if (!config->memory_bytes || !config->nr_cpus || config->nr_cpus > VM_MAX_CPUS)
		abort(); /* vm_config_unpack let nonsense through */
	return err_set(e, ERR_UNSUPPORTED, ENOTSUP, "no machines here");
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

static struct link_listener *listen_here(struct sockaddr_un *address)
{
	struct link_listener *ll;
	struct err e = ERR_INIT;
	struct uri uri;
	char text[64];

	snprintf(text, sizeof(text), "unix:/tmp/godwit-fuzz-stream.%d", getpid());
	if (uri_parse(text, &uri, &e) < 0 || link_listen(&uri, &ll, &e) < 0)
		abort();
	address->sun_family = AF_UNIX;
	strcpy(address->sun_path, uri.path);
	return ll;
}

static void put(int fd, const void *data, size_t size)
{
	/* What does not fit into the socket's buffer nobody would read anyway. */
	if (send(fd, data, size, MSG_DONTWAIT) < 0)
		return;
}

static void put_records(int fd, const uint8_t *data, size_t size)
{
	for (uint32_t sequence = 0; size >= 3; sequence++) {
		uint32_t type = (data[0] & 0x7fu) | (data[0] & 0x80u ? RECORD_OPTIONAL : 0);
		uint32_t length = (uint32_t)data[1] | (uint32_t)data[2] << 8;
		uint32_t words[4] = {htole32(RECORD_MAGIC), htole32(type), 0, htole32(sequence)};

		data += 3;
		size -= 3;
		if (length > size)
			length = (uint32_t)size;
		words[2] = htole32(length);
		put(fd, words, sizeof(words));
		put(fd, data, length);
		data += length;
		size -= length;
	}
}

static void attack(const struct sockaddr_un *address, const uint8_t *data, size_t size)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint8_t answers[256];

	if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
		abort();
	if (data[0] & 1)
		put(fd, data + 1, size - 1);
	else
		put_records(fd, data + 1, size - 1);
	shutdown(fd, SHUT_WR);
	while (read(fd, answers, sizeof(answers)) > 0)
		;
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct migration_destination_config config = {.build = refuse};
	struct sockaddr_un address = {0};
	struct migration_destination *d;
	struct migration_report report;
	struct link_listener *ll;
	struct err e = ERR_INIT;
	struct vm *vm = NULL;

	if (size < 1)
		return 0;
	ll = listen_here(&address);
	if (migration_destination_start(ll, &config, &d, &e) < 0)
		abort();
	attack(&address, data, size);
	migration_destination_wait(d, &report, &vm);
	if (vm || report.status == MIGRATION_COMPLETED || !report.error.msg[0])
		abort();
	migration_destination_free(d);
	link_listener_free(ll);
	return 0;
}
