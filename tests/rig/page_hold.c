#include "tests/rig/page_hold.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 60000 /* an emulated host is slow */

struct page_hold {
	int fd; /* userfaultfd */
	uint8_t *page;
	uint8_t bytes[PAGE_BYTES];
	pthread_t toucher, thread;
	struct sigaction old;
	int error; /* of the thread; 0: the page was touched and is back */
};

static void nothing(int signal)
{
	(void)signal;
}

/* The signal first: when the page is back, whoever waited goes on at once. */
static int serve(struct page_hold *h)
{
	struct pollfd p = {.fd = h->fd, .events = POLLIN};
	struct uffdio_copy copy = {
		.dst = (uintptr_t)h->page, .src = (uintptr_t)h->bytes, .len = PAGE_BYTES};
	struct uffd_msg msg;

	if (poll(&p, 1, PATIENCE_MS) <= 0)
		return ETIMEDOUT;
	if (read(h->fd, &msg, sizeof(msg)) != sizeof(msg) || msg.event != UFFD_EVENT_PAGEFAULT)
		return EIO;
	pthread_kill(h->toucher, SIGUSR1);
	return ioctl(h->fd, UFFDIO_COPY, &copy) < 0 ? errno : 0;
}

static void *run(void *arg)
{
	struct page_hold *h = arg;
	struct uffdio_range range = {.start = (uintptr_t)h->page, .len = PAGE_BYTES};

	h->error = serve(h);
	/* On failure too: nobody may wait for ever. */
	ioctl(h->fd, UFFDIO_UNREGISTER, &range);
	return NULL;
}

static void take_away(struct page_hold *h)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register missing = {.range = {.start = (uintptr_t)h->page, .len = PAGE_BYTES},
					  .mode = UFFDIO_REGISTER_MODE_MISSING};

	memcpy(h->bytes, h->page, PAGE_BYTES);
	assert_return_code(ioctl(h->fd, UFFDIO_API, &api), errno);
	assert_return_code(ioctl(h->fd, UFFDIO_REGISTER, &missing), errno);
	assert_return_code(madvise(h->page, PAGE_BYTES, MADV_REMOVE), errno);
}

struct page_hold *page_hold_begin(struct guest_mem *mem, uint64_t gpa,
				  void (*before_skip)(void *arg), void *arg)
{
	struct sigaction action = {.sa_handler = nothing};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct page_hold *h;

	if (fd < 0 && errno == EPERM) {
		print_message("SKIPPED: userfaultfd is not for this user: "
			      "sysctl vm.unprivileged_userfaultfd=1, or be root\n");
		before_skip(arg);
		skip();
	}
	assert_return_code(fd, errno);
	h = calloc(1, sizeof(*h));
	assert_non_null(h);
	h->fd = fd;
	h->page = guest_mem_at_rw(mem, gpa, PAGE_BYTES);
	assert_non_null(h->page);
	h->toucher = pthread_self();
	assert_return_code(sigaction(SIGUSR1, &action, &h->old), errno);
	take_away(h);
	assert_int_equal(pthread_create(&h->thread, NULL, run, h), 0);
	return h;
}

void page_hold_end(struct page_hold *h)
{
	int error;

	pthread_join(h->thread, NULL);
	sigaction(SIGUSR1, &h->old, NULL);
	close(h->fd);
	error = h->error;
	free(h);
	if (error)
		fail_msg("the page that was held: %s", strerror(error));
}
