#include "migration/rdma/pipeline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/rdma/pipeline_internal.h"

#define MARK_TAG NR_FLIGHTS
/* Flights posted in one call. A device in software does its work in that call, and a processor that
 * it does it on is nobody else's meanwhile. */
#define NR_TOGETHER 4u

static bool is_full(const struct pipeline *p)
{
	return p->end - p->first == p->nr_ahead;
}

static void retire(struct pipeline *p)
{
	while (p->first != p->end && job_is_done(job_at(p, p->first)))
		p->first++;
}

/* ---- writes ---- */

static struct flight *free_flight(struct pipeline *p)
{
	for (uint32_t i = 0; i < NR_FLIGHTS; i++)
		if (!p->flights[i].job)
			return &p->flights[i];
	return NULL;
}

/* What is about to be posted in one call. */
struct posting {
	struct rdma_piece pieces[RDMA_MAX_PIECES];
	uint32_t nr;
	uint32_t nr_flights;
};

static int post(struct pipeline *p, struct posting *w, struct err *e)
{
	uint32_t nr = w->nr;

	w->nr = w->nr_flights = 0;
	if (!nr)
		return 0;
	if (fault_point(p->config.fault, "src.rdma_write", e) < 0)
		return -e->code;
	return rdma_conn_write(p->config.conn, w->pieces, nr, e);
}

/* The job's next pieces, as many as there is room for. */
static void launch(struct pipeline *p, struct job *j, struct flight *f, struct posting *w)
{
	uint32_t room = RDMA_MAX_PIECES - w->nr;
	uint32_t nr = job_gather(j, &w->pieces[w->nr], p->nr_places < room ? p->nr_places : room,
				 &j->next);

	w->nr += nr;
	w->nr_flights++;
	w->pieces[w->nr - 1].last = true;
	w->pieces[w->nr - 1].tag = (uint32_t)(f - p->flights);
	*f = (struct flight){.job = j, .nr_places = nr};
	p->nr_places -= nr;
	j->nr_flights++;
}

/* As much of the job as the send queue takes. */
static int launch_job(struct pipeline *p, struct job *j, struct posting *w, struct err *e)
{
	struct flight *f;

	while (!job_is_posted(j) && p->nr_places && (f = free_flight(p))) {
		launch(p, j, f, w);
		if ((w->nr == RDMA_MAX_PIECES || w->nr_flights == NR_TOGETHER) && post(p, w, e) < 0)
			return -e->code;
	}
	return 0;
}

static int post_all(struct pipeline *p, struct err *e)
{
	struct posting w = {.nr = 0};

	for (uint32_t i = p->first; i != p->end; i++) {
		struct job *j = job_at(p, i);

		if (j->region && !j->region->awaits && launch_job(p, j, &w, e) < 0)
			return -e->code;
	}
	return post(p, &w, e);
}

static int land(struct pipeline *p, const struct rdma_done *done, struct err *e)
{
	struct flight *f = &p->flights[done->tag % NR_FLIGHTS];
	struct job *j = f->job;

	if (!done->is_mark && done->tag == MARK_TAG) {
		p->marked = true;
		return 0;
	}
	if (done->is_mark || done->tag >= NR_FLIGHTS || !j)
		return err_set(e, ERR_STREAM, EPROTO, "RDMA: a completion of nothing we asked for");
	p->nr_places += f->nr_places;
	f->job = NULL;
	j->nr_flights--;
	if (job_is_done(j)) {
		pin_window_unuse(j->region);
		j->region = NULL;
	}
	return 0;
}

static int hear_completions(struct pipeline *p, struct err *e)
{
	struct rdma_done done;
	int ret;

	while ((ret = rdma_conn_poll(p->config.conn, &done, e)) > 0)
		if (land(p, &done, e) < 0)
			return -e->code;
	return ret;
}

/* ---- the whole ---- */

/* Everything that can be done without waiting. */
static int turn(struct pipeline *p, struct err *e)
{
	p->nr_new = 0;
	if (hear_completions(p, e) < 0 || pipeline_hear_answers(p, e) < 0)
		return -e->code;
	retire(p);
	return pipeline_acquire(p, e) < 0 ? -e->code : post_all(p, e);
}

/* Whoever reads that nothing moves wants to know for whom we waited. */
static int stalled(const struct pipeline *p, struct err *e)
{
	uint32_t nr_grants = p->owed_end - p->owed_first;
	uint32_t nr_places = RDMA_SEND_DEPTH - p->nr_places;

	if (e->code != ETIMEDOUT)
		return -e->code;
	return err_prefix(e, "%u writes under way, %u regions to be pinned at the destination",
			  nr_places, nr_grants);
}

static int wait_turn(struct pipeline *p, struct err *e)
{
	const int fds[2] = {link_fd(p->config.out->link), registrar_fd(p->registrar)};

	if (rdma_conn_wait(p->config.conn, fds, p->config.stall_ns, p->config.cancel, e) < 0)
		return stalled(p, e);
	return turn(p, e);
}

/* A whole group's: one place at a time would make a group of each job. */
static int make_places(struct pipeline *p, struct err *e)
{
	while (p->end - p->first > p->nr_ahead - p->nr_group)
		if (wait_turn(p, e) < 0)
			return -e->code;
	return 0;
}

/* A turn for each group, and before anybody waits for places: jobs that nobody has asked a region
 * for would be waited for for ever. */
static int add_job(struct pipeline *p, const struct page_batch *b, uint32_t *run, struct err *e)
{
	struct job *j;

	if (is_full(p) && make_places(p, e) < 0)
		return -e->code;
	j = job_at(p, p->end);
	*run = job_init(j, b, *run);
	if (job_is_posted(j))
		return 0;
	p->end++;
	p->nr_new++;
	return p->nr_new == p->nr_group || is_full(p) ? turn(p, e) : 0;
}

int pipeline_add(struct pipeline *p, const struct page_batch *b, bool at_once, struct err *e)
{
	for (uint32_t run = 0; run < b->nr_runs;)
		if (add_job(p, b, &run, e) < 0)
			return -e->code;
	return at_once && p->nr_new ? turn(p, e) : 0;
}

int pipeline_finish(struct pipeline *p, uint32_t round, struct err *e)
{
	if (turn(p, e) < 0)
		return -e->code;
	while (p->first != p->end)
		if (wait_turn(p, e) < 0)
			return -e->code;
	p->marked = false;
	if (rdma_conn_mark(p->config.conn, round, MARK_TAG, e) < 0)
		return -e->code;
	while (!p->marked)
		if (wait_turn(p, e) < 0)
			return -e->code;
	return 0;
}

void pipeline_stop(struct pipeline *p)
{
	struct pin_region *r;

	if (!p->config.conn)
		return;
	rdma_conn_close(p->config.conn);
	registrar_free(p->registrar);
	p->registrar = NULL;
	while (p->window && (r = pin_window_any(p->window))) {
		struct rdma_pin *pin = r->awaits & AWAITS_HERE ? NULL : r->pin;

		if (pin && pin->mr)
			rdma_conn_unpin(p->config.conn, pin->mr);
		free(pin);
		pin_window_remove(p->window, r);
	}
	rdma_conn_free(p->config.conn);
	p->config.conn = NULL;
}

bool pipeline_unfinished(const struct pipeline *p, uint32_t nth, uint32_t round,
			 struct page_batch *out)
{
	const struct job *j = &p->jobs[(p->first + nth) % NR_JOBS];

	if (p->end - p->first <= nth)
		return false;
	out->round = round;
	job_to_batch(j, out);
	return true;
}

void pipeline_free(struct pipeline *p)
{
	if (!p)
		return;
	pipeline_stop(p);
	pin_window_free(p->window);
	free(p);
}

/* Two at least: one is pinned while the other is written, if only a part of a chunk. */
static void look_ahead(struct pipeline *p, uint64_t pin_bytes)
{
	uint64_t nr = pin_bytes / (CHUNK_PAGES * PAGE_BYTES);

	p->nr_ahead = nr < 2 ? 2 : nr < NR_JOBS ? (uint32_t)nr : NR_JOBS;
	p->nr_group = p->nr_ahead / 2;
}

int pipeline_new(const struct pipeline_config *config, struct pipeline **out, struct err *e)
{
	const struct rdma_device *device = rdma_conn_device(config->conn);
	struct pipeline *p = calloc(1, sizeof(*p));

	if (!p) {
		rdma_conn_free(config->conn);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a channel");
	}
	p->config = *config;
	p->nr_places = RDMA_SEND_DEPTH;
	look_ahead(p, config->pin_bytes);
	/* The budget holds with on-demand paging, too: the destination may have to pin. */
	if (pin_window_new(config->pin_bytes, device->max_regions, &p->window, e) < 0 ||
	    registrar_new(config->conn, config->fault, &p->registrar, e) < 0) {
		pipeline_free(p);
		return -e->code;
	}
	*out = p;
	return 0;
}
