/*
 * godwit-golden-capture DIR CODEC CHANNELS [nested]: a new golden stream (tests/golden/README.md).
 *
 * Boots a guest of three instructions, migrates it with --verify through a relay, and writes what
 * the source sent on each connection to DIR. Deterministic but for the migration's id, clocks, and
 * what the CPU and KVM below put into the machine's state.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/golden/golden.h"
#include "tests/rig/rig.h"
#include "tests/unit/vmm/tiny_guest.h"

#define MAX_CONNECTIONS 17

/* Both directions of each connection; what came from the source is kept. */
struct relay {
	struct link_listener *listener;
	struct uri to;
	pthread_t thread;
	int nr;
	bool ended[MAX_CONNECTIONS];
	struct link *source[MAX_CONNECTIONS];
	struct link *destination[MAX_CONNECTIONS];
	struct buf sent[MAX_CONNECTIONS];
};

static bool pass(struct link *from, struct link *to, struct buf *keep)
{
	uint8_t bytes[65536];
	ssize_t nr = recv(link_fd(from), bytes, sizeof(bytes), MSG_DONTWAIT);
	struct err broken = ERR_INIT;

	if (nr <= 0)
		return false;
	if (keep) {
		must(buf_reserve(keep, (size_t)nr, e));
		memcpy(keep->data + keep->len, bytes, (size_t)nr);
		keep->len += (size_t)nr;
	}
	return link_send(to, bytes, (size_t)nr, &broken) == 0;
}

static void admit(struct relay *r)
{
	assert_true(r->nr < MAX_CONNECTIONS);
	must(link_accept(r->listener, NULL, NS_PER_S, NULL, &r->source[r->nr], e));
	must(link_connect(&r->to, NS_PER_S, NULL, &r->destination[r->nr], e));
	r->nr++;
}

/* What has come on either side; once one of them is closed, so is the other. */
static void relay(struct relay *r, int i, const struct pollfd *source,
		  const struct pollfd *destination)
{
	bool open = true;

	if (source->revents)
		open = pass(r->source[i], r->destination[i], &r->sent[i]);
	if (destination->revents)
		open = pass(r->destination[i], r->source[i], NULL) && open;
	if (open)
		return;
	r->ended[i] = true;
	link_shutdown(r->source[i]);
	link_shutdown(r->destination[i]);
}

/* Until the control connection ends. */
static void *relay_main(void *arg)
{
	struct relay *r = arg;

	admit(r);
	while (!r->ended[0]) {
		struct pollfd fds[1 + 2 * MAX_CONNECTIONS] = {
			{.fd = link_listener_fd(r->listener), .events = POLLIN}};

		for (int i = 0; i < r->nr; i++) {
			fds[1 + 2 * i] = fds[2 + 2 * i] = (struct pollfd){.fd = -1};
			if (r->ended[i])
				continue;
			fds[1 + 2 * i] =
				(struct pollfd){.fd = link_fd(r->source[i]), .events = POLLIN};
			fds[2 + 2 * i] =
				(struct pollfd){.fd = link_fd(r->destination[i]), .events = POLLIN};
		}
		poll(fds, 1 + 2 * (nfds_t)r->nr, -1);
		for (int i = 0, nr = r->nr; i < nr; i++)
			relay(r, i, &fds[1 + 2 * i], &fds[2 + 2 * i]);
		if (fds[0].revents)
			admit(r);
	}
	for (int i = 0; i < r->nr; i++) {
		link_free(r->source[i]);
		link_free(r->destination[i]);
	}
	return NULL;
}

static void write_hex(FILE *f, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		fprintf(f, "%02x%s", data[i], i % 48 == 47 || i + 1 == len ? "\n" : "");
}

static void write_stream(const char *path, const struct buf *stream)
{
	FILE *f = fopen(path, "we");
	struct batch_header h;
	struct record r;
	size_t at = 0;
	size_t len;

	assert_non_null(f);
	for (uint32_t i = 0; (len = golden_record(stream, at, i, &r)); at += len, i++) {
		fprintf(f, "# %s\n", record_type_name(r.type));
		write_hex(f, stream->data + at, len);
	}
	for (; (len = golden_batch(stream, at, &h)); at += len) {
		fprintf(f, "# batch %u of round %u: %s, codec %u, %u runs, %u bytes\n",
			(unsigned int)h.sequence, h.round,
			h.kind == BATCH_PAGES ? "pages" : "barrier", h.codec, h.nr_runs,
			h.payload_bytes);
		write_hex(f, stream->data + at, len);
	}
	assert_int_equal(at, stream->len);
	assert_int_equal(fclose(f), 0);
}

/* sti; incl [TINY_DATA_GPA]; jmp back: data, and beside it a page that was touched and holds
 * zeroes. With interrupts off a guest that never exits would keep Bochs' one processor for ever. */
static const uint8_t counter[] = {0xfb, 0xff, 0x05, 0x00, 0x00, 0x20, 0x00, 0xeb, 0xf8};

static struct vm *boot_counter(struct tiny *t, enum nested_mode nested)
{
	static const uint8_t zeroes[PAGE_BYTES];
	struct vm_config config = {
		.memory_bytes = 16 << 20, .nr_cpus = 1, .debug_exit = true, .nested = nested};

	memset(t, 0, sizeof(*t));
	tiny_write_image(t, counter, sizeof(counter));
	config.kernel = t->path;
	must(vm_new(&config, tiny_on_event, t, &t->vm, e));
	must(vm_boot(t->vm, e));
	must(guest_mem_write(vm_mem(t->vm), TINY_DATA_GPA + 8 * PAGE_BYTES, zeroes, PAGE_BYTES, e));
	must(vm_resume(t->vm, e));
	tiny_wait_moving(t);
	return t->vm;
}

static void start_relay(struct relay *r, struct link_listener *destination, struct uri *uri)
{
	must(uri_parse("tcp:127.0.0.1:0", uri, e));
	must(link_listen(uri, &r->listener, e));
	must(uri_parse(link_listener_address(destination), &r->to, e));
	must(uri_parse(link_listener_address(r->listener), uri, e));
	assert_int_equal(pthread_create(&r->thread, NULL, relay_main, r), 0);
}

static int build(void *ctx, struct vm_config *config, struct vm **vm, struct err *e)
{
	return vm_new(config, tiny_on_event, ctx, vm, e);
}

static void migrate(struct vm *vm, const struct migration_params *params, struct relay *r)
{
	struct tiny arrived = {.vm = NULL};
	struct migration_destination_config config = {.build = build, .build_ctx = &arrived};
	struct migration_events none = {0};
	struct migration_destination *d;
	struct migration_source *s;
	struct migration_report report;
	struct link_listener *listener;
	struct uri uri;

	must(uri_parse("tcp:127.0.0.1:0", &uri, e));
	must(link_listen(&uri, &listener, e));
	must(migration_destination_start(listener, &config, &d, e));
	start_relay(r, listener, &uri);
	must(migration_source_start(vm, &uri, params, &none, NULL, &s, e));
	migration_source_wait(s, &report);
	if (report.status != MIGRATION_COMPLETED)
		fail_msg("%s", report.error.msg);
	migration_source_free(s);
	pthread_join(r->thread, NULL);
	migration_destination_wait(d, NULL, &arrived.vm);
	migration_destination_free(d);
	tiny_free(&arrived);
	link_listener_free(listener);
	link_listener_free(r->listener);
}

static void capture(const char *dir, const char *codec, uint32_t nr_channels,
		    enum nested_mode nested)
{
	struct migration_params params;
	struct relay r = {.nr = 0};
	struct tiny t;
	char path[4096];

	migration_params_init(&params);
	snprintf(params.codec, sizeof(params.codec), "%s", codec);
	params.nr_channels = nr_channels;
	params.verify = true;
	migrate(boot_counter(&t, nested), &params, &r);
	tiny_free(&t);
	mkdir(dir, 0777);
	for (int i = 0; i < r.nr; i++) {
		golden_path(path, sizeof(path), dir, i);
		write_stream(path, &r.sent[i]);
		buf_fini(&r.sent[i]);
	}
}

static void capture_as_told(void **state)
{
	char **argv = *state;

	capture(argv[1], argv[2], (uint32_t)atoi(argv[3]), argv[4] ? NESTED_REQUIRE : NESTED_OFF);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(capture_as_told, argv)};

	signal(SIGPIPE, SIG_IGN);
	if (argc != 4 && (argc != 5 || strcmp(argv[4], "nested") != 0)) {
		fputs("usage: godwit-golden-capture DIR none|lz4 CHANNELS [nested]\n", stderr);
		return 2;
	}
	/* A stream names the host it comes from: not this one's. */
	if (unshare(CLONE_NEWUSER | CLONE_NEWUTS) < 0 || sethostname("golden", 6) < 0)
		perror("the stream will name this host");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
