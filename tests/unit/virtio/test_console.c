/* vmm/virtio/console.c between a driver and a socket. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/virtio/driver.h"
#include "vmm/virtio/kinds.h"

struct fixture {
	struct fake_machine f;
	struct driver g;
	char path[64];
	int client;
};

static int connect_to(const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = 10};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return fd;
}

static void plug(struct fixture *x, const char *name)
{
	char spec[80];
	struct virtio_kind *kind;
	struct err e = ERR_INIT;

	fake_init(&x->f);
	x->g = (struct driver){.f = &x->f};
	snprintf(x->path, sizeof(x->path), "/tmp/godwit-console-%s-%d", name, getpid());
	snprintf(spec, sizeof(spec), "unix:%s", x->path);
	assert_int_equal(virtio_console_new(spec, 0, NULL, &kind, &e), 0);
	assert_int_equal(virtio_mmio_new(&x->f.m, kind, 0, 0, NULL, &x->g.d, &e), 0);
	x->client = connect_to(x->path);
}

static void unplug(struct fixture *x)
{
	close(x->client);
	x->g.d->ops->free(x->g.d);
	unlink(x->path);
	fake_fini(&x->f);
}

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));

	plug(x, "a");
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	unplug(*state);
	free(*state);
	return 0;
}

static void test_output(void **state)
{
	struct fixture *x = *state;
	char got[6] = "";

	driver_start(&x->g, 2);
	driver_put(&x->g, DRIVER_DATA, "hello", 5);
	driver_desc(&x->g, 1, 0, DRIVER_DATA, 5, 0, 0);
	driver_offer(&x->g, 1, 0);
	driver_kick(&x->g, 1);
	driver_take(&x->g, 1);
	assert_int_equal(recv(x->client, got, 5, MSG_WAITALL), 5);
	assert_string_equal(got, "hello");
}

static void offer_buffer(struct driver *g, uint16_t i, uint32_t len)
{
	driver_desc(g, 0, i, DRIVER_DATA + 0x100ull * i, len, VRING_DESC_F_WRITE, 0);
	driver_offer(g, 0, i);
	driver_kick(g, 0);
}

static void test_input_waits_for_buffers(void **state)
{
	struct fixture *x = *state;
	struct driver *g = &x->g;

	driver_start(g, 2);
	assert_int_equal(send(x->client, "abcdef", 6, 0), 6);
	offer_buffer(g, 0, 4);
	assert_int_equal(driver_take(g, 0).len, 4);
	assert_memory_equal(driver_at(g, DRIVER_DATA), "abcd", 4);
	offer_buffer(g, 1, 4);
	assert_int_equal(driver_take(g, 0).len, 2);
	assert_memory_equal(driver_at(g, DRIVER_DATA + 0x100), "ef", 2);
}

/* More than the device keeps: the rest waits in the socket, and nothing is lost or reordered. */
static void test_much_input(void **state)
{
	struct fixture *x = *state;
	struct driver *g = &x->g;
	uint8_t sent[2000];
	uint32_t seen = 0;

	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 7 % 251);
	driver_start(g, 2);
	assert_int_equal(send(x->client, sent, sizeof(sent), 0), sizeof(sent));
	while (seen < sizeof(sent)) {
		struct vring_used_elem elem;

		offer_buffer(g, 0, 100);
		elem = driver_take(g, 0);
		assert_memory_equal(driver_at(g, DRIVER_DATA), sent + seen, elem.len);
		seen += elem.len;
	}
}

/* Input that was taken but not delivered goes along. */
static void test_it_moves(void **state)
{
	struct fixture *x = *state;
	struct fixture y;

	driver_start(&x->g, 2);
	assert_int_equal(send(x->client, "abcdef", 6, 0), 6);
	offer_buffer(&x->g, 0, 2);
	assert_int_equal(driver_take(&x->g, 0).len, 2);
	plug(&y, "b");
	memcpy(guest_mem_at_rw(y.f.m.mem, 0, FAKE_MEMORY_BYTES),
	       guest_mem_at(x->f.m.mem, 0, FAKE_MEMORY_BYTES), FAKE_MEMORY_BYTES);
	memcpy(y.g.avail, x->g.avail, sizeof(y.g.avail));
	memcpy(y.g.used, x->g.used, sizeof(y.g.used));
	dev_migrate(&x->f, x->g.d, &y.f, y.g.d);
	offer_buffer(&y.g, 1, 8);
	assert_int_equal(driver_take(&y.g, 0).len, 4);
	assert_memory_equal(driver_at(&y.g, DRIVER_DATA + 0x100), "cdef", 4);
	unplug(&y);
}

#define WITH_CONSOLE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CONSOLE(test_output),
		WITH_CONSOLE(test_input_waits_for_buffers),
		WITH_CONSOLE(test_much_input),
		WITH_CONSOLE(test_it_moves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
