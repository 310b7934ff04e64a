#include "migration/rdma/registrar.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct queue {
	struct rdma_pin *first;
	struct rdma_pin **end;
};

struct registrar {
	/* immutable after new */
	struct rdma_conn *conn;
	struct fault *fault;
	pthread_t thread;
	int done_fd;

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t changed;
	struct queue asked;
	struct queue done;
	bool quit;
};

static void queue_init(struct queue *q)
{
	q->first = NULL;
	q->end = &q->first;
}

static void queue_put(struct queue *q, struct rdma_pin *pin)
{
	pin->next = NULL;
	*q->end = pin;
	q->end = &pin->next;
}

static struct rdma_pin *queue_take(struct queue *q)
{
	struct rdma_pin *pin = q->first;

	if (!pin)
		return NULL;
	q->first = pin->next;
	if (!q->first)
		q->end = &q->first;
	return pin;
}

static void unpin(struct registrar *r, struct rdma_pin *pin)
{
	if (pin->mr)
		rdma_conn_unpin(r->conn, pin->mr);
	free(pin);
}

static void carry_out(struct registrar *r, struct rdma_pin *pin)
{
	struct err injected = ERR_INIT;
	uint64_t one = 1;

	if (pin->unpin) {
		unpin(r, pin);
		return;
	}
	if (fault_point(r->fault, "src.rdma_pin", &injected) < 0)
		pin->refused = injected.code;
	else
		pin->refused =
			-rdma_conn_pin(r->conn, pin->at, pin->bytes, pin->gpa, false, &pin->mr);
	pthread_mutex_lock(&r->lock);
	/* What is there already has rung, and nobody has heard it out yet. */
	if (!r->done.first && write(r->done_fd, &one, sizeof(one)) < 0)
		one = 0; /* full: it is readable already */
	queue_put(&r->done, pin);
	pthread_mutex_unlock(&r->lock);
}

static void *registrar_main(void *arg)
{
	struct registrar *r = arg;

	pthread_mutex_lock(&r->lock);
	for (;;) {
		struct rdma_pin *pin = queue_take(&r->asked);

		if (!pin && r->quit)
			break;
		if (!pin) {
			pthread_cond_wait(&r->changed, &r->lock);
			continue;
		}
		if (r->quit && !pin->unpin) { /* nobody wants it any more */
			free(pin);
			continue;
		}
		pthread_mutex_unlock(&r->lock);
		carry_out(r, pin);
		pthread_mutex_lock(&r->lock);
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

static void release(struct registrar *r)
{
	if (r->done_fd >= 0)
		close(r->done_fd);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

int registrar_new(struct rdma_conn *conn, struct fault *fault, struct registrar **out,
		  struct err *e)
{
	struct registrar *r = calloc(1, sizeof(*r));
	int ret;

	if (!r)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a channel");
	r->conn = conn;
	r->fault = fault;
	queue_init(&r->asked);
	queue_init(&r->done);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	r->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = r->done_fd < 0 ? err_sys(e, "eventfd") : 0;
	if (ret == 0) {
		ret = pthread_create(&r->thread, NULL, registrar_main, r);
		if (ret)
			ret = err_set(e, ERR_SYS, ret, "cannot create a registrar thread");
	}
	if (ret < 0) {
		release(r);
		return ret;
	}
	*out = r;
	return 0;
}

void registrar_free(struct registrar *r)
{
	struct rdma_pin *pin;

	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->quit = true;
	pthread_cond_signal(&r->changed);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	while ((pin = queue_take(&r->done)))
		unpin(r, pin);
	release(r);
}

static void ask(struct registrar *r, struct rdma_pin *pin)
{
	pthread_mutex_lock(&r->lock);
	queue_put(&r->asked, pin);
	pthread_mutex_unlock(&r->lock);
}

void registrar_go(struct registrar *r)
{
	bool any;

	pthread_mutex_lock(&r->lock);
	any = r->asked.first;
	pthread_mutex_unlock(&r->lock);
	if (any)
		pthread_cond_signal(&r->changed);
}

void registrar_pin(struct registrar *r, struct rdma_pin *pin)
{
	pin->unpin = false;
	ask(r, pin);
}

void registrar_unpin(struct registrar *r, struct rdma_pin *pin)
{
	pin->unpin = true;
	ask(r, pin);
}

struct rdma_pin *registrar_fetch(struct registrar *r)
{
	struct rdma_pin *pin;
	uint64_t count;

	pthread_mutex_lock(&r->lock);
	pin = queue_take(&r->done);
	/* Quiet once the queue is empty; one that comes later rings again. */
	if (!pin && read(r->done_fd, &count, sizeof(count)) < 0)
		count = 0;
	pthread_mutex_unlock(&r->lock);
	return pin;
}

int registrar_fd(const struct registrar *r)
{
	return r->done_fd;
}
