#include "migration/rdma/pipeline.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "migration/rdma/job.h"
#include "migration/rdma/pin_window.h"
#include "migration/rdma/registrar.h"
#include "vmm/base/log.h"

/* 16 MiB looked ahead, a millisecond of the fastest wire: time enough to pin. More would only cool:
 * what the destination has cleared for us long ago is in no cache any more when it is written. */
#define NR_JOBS 8u
/* Taken in and asked for together, while the other half is being written: one message and one
 * answer for all of them, and each thread is woken once. */
#define NR_GROUP   (NR_JOBS / 2)
#define NR_FLIGHTS 64u
#define MARK_TAG   NR_FLIGHTS

/* pin_region.awaits */
#define AWAITS_HERE  1u
#define AWAITS_THERE 2u

/* Writes under way that share a completion. */
struct flight {
	struct job *job; /* NULL: free */
	uint32_t nr_places;
};

struct pipeline {
	struct pipeline_config config;
	struct registrar *registrar;
	struct pin_window *window;

	/* A ring: jobs [first, end), modulo NR_JOBS, in the order they came. */
	struct job jobs[NR_JOBS];
	uint32_t first;
	uint32_t end;
	uint32_t nr_new; /* that came since the last turn */

	struct flight flights[NR_FLIGHTS];
	uint32_t nr_places; /* of the send queue that are free */
	bool marked;
	bool limited; /* a limit was met, and we have said so */

	/* Regions in the order of their requests; each has a job that waits for it. */
	struct pin_region *owed[NR_JOBS];
	uint32_t owed_first;
	uint32_t owed_end;

	struct batch_run window_runs[BATCH_MAX_RUNS]; /* of the next WINDOW */
	uint32_t nr_window_runs;
};

static struct job *job_at(struct pipeline *p, uint32_t i)
{
	return &p->jobs[i % NR_JOBS];
}

static bool is_full(const struct pipeline *p)
{
	return p->end - p->first == NR_JOBS;
}

static void retire(struct pipeline *p)
{
	while (p->first != p->end && job_is_done(job_at(p, p->first)))
		p->first++;
}

/* ---- the window ---- */

static int send_window(struct pipeline *p, struct err *e)
{
	struct batch_head head = {.kind = BATCH_WINDOW};
	uint32_t nr = p->nr_window_runs;

	p->nr_window_runs = 0;
	return nr ? batch_out_send(p->config.out, &head, p->window_runs, nr, e) : 0;
}

static int tell(struct pipeline *p, const struct pin_region *r, enum run_kind kind, struct err *e)
{
	p->window_runs[p->nr_window_runs++] = (struct batch_run){
		.gfn = r->gfn, .nr_pages = (uint16_t)r->nr_pages, .kind = (uint8_t)kind};
	return p->nr_window_runs == BATCH_MAX_RUNS ? send_window(p, e) : 0;
}

static int evict(struct pipeline *p, struct pin_region *r, struct err *e)
{
	int ret = tell(p, r, RUN_UNPIN, e);

	registrar_unpin(p->registrar, r->pin);
	pin_window_remove(p->window, r);
	return ret;
}

static int make_room(struct pipeline *p, uint32_t nr_pages, struct err *e)
{
	struct pin_region *r;

	while (!pin_window_fits(p->window, nr_pages) && (r = pin_window_oldest_idle(p->window)))
		if (evict(p, r, e) < 0)
			return -e->code;
	return 0;
}

static int ask_for(struct pipeline *p, uint64_t gfn, uint32_t nr_pages, struct pin_region **out,
		   struct err *e)
{
	struct rdma_pin *pin = calloc(1, sizeof(*pin));

	if (!pin)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a pinned region");
	if (pin_window_add(p->window, gfn, nr_pages, out, e) < 0) {
		free(pin);
		return -e->code;
	}
	(*out)->awaits = AWAITS_HERE | AWAITS_THERE;
	pin->gpa = gfn * PAGE_BYTES;
	pin->bytes = nr_pages * PAGE_BYTES;
	pin->at = guest_mem_at(p->config.mem, pin->gpa, pin->bytes);
	pin->owner = *out;
	registrar_pin(p->registrar, pin);
	p->owed[p->owed_end++ % NR_JOBS] = *out;
	return tell(p, *out, RUN_PIN, e);
}

/* A region that is too small is in the way of the one that has everything. */
static int clear_chunk(struct pipeline *p, uint64_t *gfn, uint32_t *nr_pages, struct err *e)
{
	struct pin_region *r;

	while ((r = pin_window_idle_in_chunk(p->window, *gfn))) {
		uint64_t end = *gfn + *nr_pages;

		if (r->gfn + r->nr_pages > end)
			end = r->gfn + r->nr_pages;
		if (r->gfn < *gfn)
			*gfn = r->gfn;
		*nr_pages = (uint32_t)(end - *gfn);
		if (evict(p, r, e) < 0)
			return -e->code;
	}
	return 0;
}

/* Give the job its region, pinned already or asked for now; leaves it without one when there is no
 * room yet. */
static int acquire(struct pipeline *p, struct job *j, struct err *e)
{
	uint64_t gfn;
	uint32_t nr_pages;

	job_hull(j, &gfn, &nr_pages);
	j->region = pin_window_find(p->window, gfn, nr_pages);
	if (!j->region) {
		if (clear_chunk(p, &gfn, &nr_pages, e) < 0 || make_room(p, nr_pages, e) < 0)
			return -e->code;
		if (!pin_window_fits(p->window, nr_pages) && !pin_window_any(p->window))
			return err_set(
				e, ERR_SYS, ENOMEM,
				"RDMA: %u pages cannot be pinned at once within %llu KiB: raise "
				"RLIMIT_MEMLOCK ('ulimit -l') on the side that warned",
				nr_pages, (unsigned long long)pin_window_budget(p->window) / 1024);
		if (!pin_window_fits(p->window, nr_pages))
			return 0;
		if (ask_for(p, gfn, nr_pages, &j->region, e) < 0)
			return -e->code;
	}
	pin_window_use(p->window, j->region);
	return 0;
}

/* In order: a job that waits for room is not overtaken, or it might wait for ever. */
static int acquire_all(struct pipeline *p, struct err *e)
{
	for (uint32_t i = p->first; i != p->end; i++) {
		struct job *j = job_at(p, i);

		if (!j->region && !job_is_done(j) && acquire(p, j, e) < 0)
			return -e->code;
		if (!j->region && !job_is_done(j))
			break;
	}
	return send_window(p, e);
}

static void forget(struct pipeline *p, struct pin_region *r)
{
	for (uint32_t i = p->first; i != p->end; i++)
		if (job_at(p, i)->region == r)
			job_at(p, i)->region = NULL;
	pin_window_remove(p->window, r);
}

/* A limit of the system was met: make do with what there is, if that is anything. */
static bool make_do(struct pipeline *p, int code, const char *where)
{
	uint64_t rest = pin_window_bytes(p->window);
	bool memory = code == ENOMEM;

	if (!rest || (!memory && code != EAGAIN))
		return false;
	if (memory)
		pin_window_shrink(p->window, rest);
	else
		pin_window_shrink_regions(p->window, pin_window_regions(p->window));
	if (!p->limited)
		log_warning("RDMA: not all of the budget can be pinned %s, going on with less: %s "
			    "sets that",
			    where,
			    memory ? "RLIMIT_MEMLOCK ('ulimit -l') or the cgroup"
				   : "the cgroup's rdma.max");
	p->limited = true;
	return true;
}

static int refused(int code, uint64_t kib, const char *where, struct err *e)
{
	if (code == ENOMEM)
		return err_set(
			e, ERR_SYS, ENOMEM,
			"RDMA: not even %llu KiB can be pinned %s: raise RLIMIT_MEMLOCK "
			"('ulimit -l', LimitMEMLOCK= in a systemd unit) or the cgroup's memory "
			"limit, or give CAP_IPC_LOCK",
			(unsigned long long)kib, where);
	if (code == EAGAIN)
		return err_set(e, ERR_SYS, EAGAIN,
			       "RDMA: not even one region can be registered %s: raise hca_object "
			       "in the cgroup's rdma.max",
			       where);
	return err_set(e, ERR_SYS, code,
		       "RDMA: %llu KiB of guest memory cannot be registered %s: %s",
		       (unsigned long long)kib, where,
		       strerrordesc_np(code) ? strerrordesc_np(code) : "?");
}

/* Both sides have answered and one said no. */
static int undo_region(struct pipeline *p, struct pin_region *r, struct err *e)
{
	bool here = r->refused_here;
	const char *where = here ? "here" : "at the destination";
	int code = r->refused_here ? r->refused_here : r->refused_there;
	uint64_t kib = r->nr_pages * PAGE_BYTES / 1024;

	if (!r->refused_there && tell(p, r, RUN_UNPIN, e) < 0)
		return -e->code;
	if (r->refused_here)
		free(r->pin);
	else
		registrar_unpin(p->registrar, r->pin);
	forget(p, r);
	if (make_do(p, code, where))
		return 0;
	if (code == ENODEV && !here)
		return err_set(e, ERR_SYS, code,
			       "RDMA: the destination has lost its connection or its device");
	return refused(code, kib, where, e);
}

static int answered(struct pipeline *p, struct pin_region *r, uint32_t by, struct err *e)
{
	r->awaits &= ~by;
	if (!r->awaits && (r->refused_here || r->refused_there))
		return undo_region(p, r, e);
	return 0;
}

static int hear_registrar(struct pipeline *p, struct err *e)
{
	struct rdma_pin *pin;

	while ((pin = registrar_fetch(p->registrar))) {
		struct pin_region *r = pin->owner;

		r->pin = pin;
		r->refused_here = pin->refused;
		if (pin->mr)
			r->local_key = pin->mr->lkey;
		if (answered(p, r, AWAITS_HERE, e) < 0)
			return -e->code;
	}
	return 0;
}

static int receive_grant(struct pipeline *p, struct batch_grant *g, struct err *e)
{
	if (link_recv(p->config.out->link, g, sizeof(*g), e) < 0)
		return -e->code;
	if (g->magic != GRANT_MAGIC || p->owed_first == p->owed_end)
		return err_set(e, ERR_STREAM, EPROTO, "the destination said 0x%08x, 0x%08x unasked",
			       g->magic, g->refused);
	return 0;
}

static int hear_destination(struct pipeline *p, struct err *e)
{
	struct pollfd fd = {.fd = link_fd(p->config.out->link), .events = POLLIN};

	while (poll(&fd, 1, 0) > 0) {
		struct pin_region *r;
		struct batch_grant g;

		if (receive_grant(p, &g, e) < 0)
			return -e->code;
		r = p->owed[p->owed_first++ % NR_JOBS];
		if (!g.refused && g.gfn != r->gfn)
			return err_set(e, ERR_STREAM, EPROTO,
				       "the destination granted gfn 0x%llx, 0x%llx was due",
				       (unsigned long long)g.gfn, (unsigned long long)r->gfn);
		r->remote_key = g.key;
		r->refused_there = (int)(g.refused & 0xfff);
		if (answered(p, r, AWAITS_THERE, e) < 0)
			return -e->code;
	}
	return 0;
}

/* ---- writes ---- */

static struct flight *free_flight(struct pipeline *p)
{
	for (uint32_t i = 0; i < NR_FLIGHTS; i++)
		if (!p->flights[i].job)
			return &p->flights[i];
	return NULL;
}

/* Post as much of the job as the send queue takes. */
static int post(struct pipeline *p, struct job *j, struct err *e)
{
	struct flight *f;

	while (!job_is_posted(j) && p->nr_places && (f = free_flight(p))) {
		struct rdma_piece pieces[RDMA_MAX_PIECES];
		uint32_t max = p->nr_places < RDMA_MAX_PIECES ? p->nr_places : RDMA_MAX_PIECES;
		uint32_t next;
		uint32_t nr = job_gather(j, pieces, max, &next);

		if (fault_point(p->config.fault, "src.rdma_write", e) < 0 ||
		    rdma_conn_write(p->config.conn, pieces, nr, (uint32_t)(f - p->flights), e) < 0)
			return -e->code;
		*f = (struct flight){.job = j, .nr_places = nr};
		p->nr_places -= nr;
		j->next = next;
		j->nr_flights++;
	}
	return 0;
}

static int post_all(struct pipeline *p, struct err *e)
{
	for (uint32_t i = p->first; i != p->end; i++) {
		struct job *j = job_at(p, i);

		if (j->region && !j->region->awaits && post(p, j, e) < 0)
			return -e->code;
	}
	return 0;
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
	if (hear_completions(p, e) < 0 || hear_registrar(p, e) < 0 || hear_destination(p, e) < 0)
		return -e->code;
	retire(p);
	return acquire_all(p, e) < 0 ? -e->code : post_all(p, e);
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
	while (p->end - p->first > NR_JOBS - NR_GROUP)
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
	return p->nr_new == NR_GROUP || is_full(p) ? turn(p, e) : 0;
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

int pipeline_skip_grants(struct pipeline *p, struct err *e)
{
	struct batch_grant g;

	for (; p->owed_first != p->owed_end; p->owed_first++)
		if (receive_grant(p, &g, e) < 0)
			return -e->code;
	return 0;
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
	/* The budget holds with on-demand paging, too: the destination may have to pin. */
	if (pin_window_new(config->pin_bytes, device->max_regions, &p->window, e) < 0 ||
	    registrar_new(config->conn, config->fault, &p->registrar, e) < 0) {
		pipeline_free(p);
		return -e->code;
	}
	*out = p;
	return 0;
}
