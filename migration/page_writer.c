#include "migration/page_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/base/priority.h"

/* Enough that the receiver seldom waits for the writer to finish one. */
#define NR_PIPES 4

/* A huge page's worth: tmpfs clears what the first write to a huge page leaves of it. The
 * unprivileged may have half of that by default (/proc/sys/fs/pipe-max-size); smaller is only
 * slower. */
#define HUGE_PAGE_BYTES (2u << 20)

/* A pipe, and where in the file its bytes belong. */
struct load {
	int pipe_fds[2];
	uint64_t offset;
	size_t bytes;
};

struct page_writer {
	/* immutable after new */
	int fd;
	struct cancel *abort;
	pthread_t thread;

	/* The receiver's thread fills loads[next_take], the writer's empties loads[next_write];
	 * between the two are those that wait. */
	struct load loads[NR_PIPES];
	uint32_t next_take;
	uint32_t next_write;

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t changed;
	uint32_t nr_waiting; /* with the one being written */
	bool ending;
	struct err failure;
};

/* ---- The writer's thread ---- */

/* A short write of a full pipe is no error: tmpfs stops at signals and at huge page bounds. */
static int write_load(const struct page_writer *w, const struct load *load, struct err *e)
{
	loff_t at = (loff_t)load->offset;
	size_t left = load->bytes;

	while (left) {
		ssize_t done = splice(load->pipe_fds[0], NULL, w->fd, &at, left, SPLICE_F_MOVE);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return err_sys(
				e,
				"cannot write guest memory at 0x%llx (is the host out of memory?)",
				(unsigned long long)at);
		left -= (size_t)done;
	}
	return 0;
}

/* The next load, or NULL at the end. */
static struct load *next_load(struct page_writer *w)
{
	struct load *load = NULL;

	pthread_mutex_lock(&w->lock);
	while (!w->nr_waiting && !w->ending)
		pthread_cond_wait(&w->changed, &w->lock);
	if (!w->ending)
		load = &w->loads[w->next_write];
	pthread_mutex_unlock(&w->lock);
	return load;
}

static void load_is_written(struct page_writer *w)
{
	pthread_mutex_lock(&w->lock);
	w->next_write = (w->next_write + 1) % NR_PIPES;
	w->nr_waiting--;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static void fail(struct page_writer *w, const struct err *e)
{
	pthread_mutex_lock(&w->lock);
	w->failure = *e;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
	cancel_request(w->abort);
}

static void *writer_main(void *arg)
{
	struct page_writer *w = arg;
	struct err e = ERR_INIT;
	struct load *load;

	while ((load = next_load(w))) {
		if (write_load(w, load, &e) < 0) {
			fail(w, &e);
			break;
		}
		load_is_written(w);
	}
	thread_step_back(); /* ending takes its time, too */
	return NULL;
}

/* ---- The receiver's thread ---- */

static bool overlaps(const struct load *load, uint64_t offset, size_t len)
{
	return load->offset < offset + len && offset < load->offset + load->bytes;
}

static bool is_unwritten(const struct page_writer *w, uint64_t offset, size_t len)
{
	for (uint32_t i = 0; i < w->nr_waiting; i++)
		if (overlaps(&w->loads[(w->next_write + i) % NR_PIPES], offset, len))
			return true;
	return false;
}

int page_writer_settle(struct page_writer *w, uint64_t offset, size_t len, struct err *e)
{
	pthread_mutex_lock(&w->lock);
	while (is_unwritten(w, offset, len) && w->failure.kind == ERR_NONE)
		pthread_cond_wait(&w->changed, &w->lock);
	if (w->failure.kind != ERR_NONE)
		*e = w->failure;
	pthread_mutex_unlock(&w->lock);
	return -e->code;
}

int page_writer_drain(struct page_writer *w, struct err *e)
{
	return page_writer_settle(w, 0, SIZE_MAX, e);
}

static struct load *free_load(struct page_writer *w, struct err *e)
{
	pthread_mutex_lock(&w->lock);
	while (w->nr_waiting == NR_PIPES && w->failure.kind == ERR_NONE)
		pthread_cond_wait(&w->changed, &w->lock);
	if (w->failure.kind != ERR_NONE)
		*e = w->failure;
	pthread_mutex_unlock(&w->lock);
	return e->code ? NULL : &w->loads[w->next_take];
}

/* As much as the pipe has room for: it pays to wait for the rest of a huge page. */
static int fill(struct load *load, struct link *link, size_t len, struct err *e)
{
	struct pollfd room = {.fd = load->pipe_fds[1], .events = POLLOUT};

	load->bytes = 0;
	while (load->bytes < len && poll(&room, 1, 0) == 1) {
		ssize_t done = link_recvpipe(link, load->pipe_fds[1], len - load->bytes, e);

		if (done < 0)
			return (int)done;
		load->bytes += (size_t)done;
	}
	return 0;
}

/* Whole huge pages at once, if they are the file's: a load ends where one ends. */
static size_t to_huge_page_end(uint64_t offset, size_t len)
{
	size_t left = HUGE_PAGE_BYTES - offset % HUGE_PAGE_BYTES;

	return len < left ? len : left;
}

static void hand_over(struct page_writer *w)
{
	w->next_take = (w->next_take + 1) % NR_PIPES;
	pthread_mutex_lock(&w->lock);
	w->nr_waiting++;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

int page_writer_take(struct page_writer *w, struct link *link, uint64_t offset, size_t len,
		     struct err *e)
{
	while (len) {
		struct load *load = free_load(w, e);

		if (!load || fill(load, link, to_huge_page_end(offset, len), e) < 0)
			return -e->code;
		load->offset = offset;
		offset += load->bytes;
		len -= load->bytes;
		hand_over(w);
	}
	return 0;
}

/* ---- Life ---- */

static void close_pipes(struct page_writer *w)
{
	for (int i = 0; i < NR_PIPES; i++) {
		if (w->loads[i].pipe_fds[0] < 0)
			break;
		close(w->loads[i].pipe_fds[0]);
		close(w->loads[i].pipe_fds[1]);
	}
}

static void release(struct page_writer *w)
{
	close_pipes(w);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

static int open_pipes(struct page_writer *w, struct err *e)
{
	for (int i = 0; i < NR_PIPES; i++)
		w->loads[i].pipe_fds[0] = -1;
	for (int i = 0; i < NR_PIPES; i++) {
		if (pipe2(w->loads[i].pipe_fds, O_CLOEXEC) < 0) {
			err_sys(e, "cannot create a pipe");
			w->loads[i].pipe_fds[0] = -1;
			return -e->code;
		}
		if (fcntl(w->loads[i].pipe_fds[0], F_SETPIPE_SZ, HUGE_PAGE_BYTES) < 0)
			fcntl(w->loads[i].pipe_fds[0], F_SETPIPE_SZ, HUGE_PAGE_BYTES / 2);
	}
	return 0;
}

int page_writer_new(int fd, struct cancel *abort, struct page_writer **out, struct err *e)
{
	struct page_writer *w = calloc(1, sizeof(*w));
	int ret;

	if (!w)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a channel");
	w->fd = fd;
	w->abort = abort;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	if (open_pipes(w, e) == 0) {
		ret = pthread_create(&w->thread, NULL, writer_main, w);
		if (ret == 0) {
			*out = w;
			return 0;
		}
		err_set(e, ERR_SYS, ret, "cannot create a writer thread");
	}
	release(w);
	return -e->code;
}

void page_writer_free(struct page_writer *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->ending = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	release(w);
}
