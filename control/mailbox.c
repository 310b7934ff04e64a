#include "control/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/base/log.h"

struct letter {
	struct letter *next;
	struct mail mail;
};

struct mailbox {
	/* Immutable after new. */
	mail_fn on_mail;
	void *ctx;
	/* Not an uv_async_t: its loop spins until the poster is out of uv_async_send(). A poster
	 * that lost its processor to that very loop waits for as long as the scheduler lets it
	 * spin: 2 to 9 ms of a guest's blackout, on a host with one processor. */
	uv_poll_t wake;
	int wake_fd;

	pthread_mutex_t lock;
	/* Guarded by lock. */
	struct letter *first;
	struct letter **tail;
	size_t nr;
};

static void on_wake(uv_poll_t *wake, int status, int events)
{
	struct mailbox *m = wake->data;
	eventfd_t ignored;

	(void)status;
	(void)events;
	/* Before draining: who posts from here on wakes us again. */
	eventfd_read(m->wake_fd, &ignored);
	mailbox_drain(m);
}

static int watch(uv_loop_t *loop, struct mailbox *m)
{
	int ret;

	m->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->wake_fd < 0)
		return uv_translate_sys_error(errno);
	ret = uv_poll_init(loop, &m->wake, m->wake_fd);
	if (ret < 0) {
		close(m->wake_fd);
		return ret;
	}
	m->wake.data = m;
	(void)uv_poll_start(&m->wake, UV_READABLE, on_wake); /* fails for a closing handle only */
	return 0;
}

int mailbox_new(uv_loop_t *loop, mail_fn on_mail, void *ctx, struct mailbox **out, struct err *e)
{
	struct mailbox *m = calloc(1, sizeof(*m));
	int ret;

	if (!m)
		return err_set(e, ERR_SYS, ENOMEM, "no memory for the event queue");
	m->on_mail = on_mail;
	m->ctx = ctx;
	m->tail = &m->first;
	ret = watch(loop, m);
	if (ret < 0) {
		free(m);
		return err_set(e, ERR_SYS, -ret, "cannot make an event descriptor: %s",
			       uv_strerror(ret));
	}
	pthread_mutex_init(&m->lock, NULL);
	*out = m;
	return 0;
}

static struct letter *take(struct mailbox *m)
{
	struct letter *letter;

	pthread_mutex_lock(&m->lock);
	letter = m->first;
	if (letter) {
		m->nr--;
		m->first = letter->next;
		if (!m->first)
			m->tail = &m->first;
	}
	pthread_mutex_unlock(&m->lock);
	return letter;
}

static void on_closed(uv_handle_t *handle)
{
	struct mailbox *m = handle->data;
	struct letter *letter;

	while ((letter = take(m)))
		free(letter);
	close(m->wake_fd);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

void mailbox_close(struct mailbox *m)
{
	uv_close((uv_handle_t *)&m->wake, on_closed);
}

void mailbox_post(struct mailbox *m, const struct mail *mail)
{
	struct letter *letter = malloc(sizeof(*letter));

	if (!letter) {
		log_error("no memory to deliver an event");
		return;
	}
	letter->next = NULL;
	letter->mail = *mail;
	pthread_mutex_lock(&m->lock);
	*m->tail = letter;
	m->tail = &letter->next;
	m->nr++;
	pthread_mutex_unlock(&m->lock);
	if (!mail->can_wait)
		eventfd_write(m->wake_fd, 1); /* full: it is readable already */
}

void mailbox_drain(struct mailbox *m)
{
	struct letter *letter;
	size_t nr;

	pthread_mutex_lock(&m->lock);
	nr = m->nr;
	pthread_mutex_unlock(&m->lock);
	while (nr-- && (letter = take(m))) {
		m->on_mail(m->ctx, &letter->mail);
		free(letter);
	}
}
