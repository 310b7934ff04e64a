/* The window of pinned regions: which jobs have one, who is asked for one, what the answers mean.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "migration/rdma/pipeline_internal.h"
#include "vmm/base/log.h"

#define MAX_ERRNO 4095 /* as the kernel has it, include/linux/err.h */

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
	struct rdma_pin *pin;

	if (fault_point(p->config.fault, "src.rdma_region", e) < 0)
		return -e->code;
	pin = calloc(1, sizeof(*pin));
	if (!pin)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a pinned region");
	if (pin_window_add(p->window, gfn, nr_pages, out, e) < 0) {
		free(pin);
		return -e->code;
	}
	(*out)->awaits = AWAITS_HERE | AWAITS_THERE;
	(*out)->beside_bytes = pin_window_bytes(p->window) - nr_pages * PAGE_BYTES;
	(*out)->beside_regions = pin_window_regions(p->window) - 1;
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
static int acquire_in_order(struct pipeline *p, struct err *e)
{
	for (uint32_t i = p->first; i != p->end; i++) {
		struct job *j = job_at(p, i);

		if (!j->region && !job_is_done(j) && acquire(p, j, e) < 0)
			return -e->code;
		if (!j->region && !job_is_done(j))
			break;
	}
	return 0;
}

/* What was asked for before one could not be is asked for all the same: its grants are owed, and a
 * channel that falls back waits for them. */
int pipeline_acquire(struct pipeline *p, struct err *e)
{
	struct err second = ERR_INIT;
	int ret = acquire_in_order(p, e);

	registrar_go(p->registrar);
	if (ret == 0)
		return send_window(p, e);
	(void)send_window(p, &second);
	return ret;
}

static void forget(struct pipeline *p, struct pin_region *r)
{
	for (uint32_t i = p->first; i != p->end; i++)
		if (job_at(p, i)->region == r)
			job_at(p, i)->region = NULL;
	pin_window_remove(p->window, r);
}

/* What can be pinned, now that @r could not be beside what there was: less than it was thought, but
 * any one region as long as none has been refused by itself. */
static uint64_t what_is_possible(const struct pipeline *p, const struct pin_region *r)
{
	uint64_t chunk = CHUNK_PAGES * PAGE_BYTES;
	uint64_t bytes = r->nr_pages * PAGE_BYTES;

	if (bytes < r->beside_bytes)
		bytes = r->beside_bytes;
	return bytes < chunk && chunk < pin_window_budget(p->window) ? chunk : bytes;
}

/* A limit of the system was met: make do with what there was already, if that was anything. It is
 * what was there when @r was asked for that counts: by now it may be gone. */
static bool make_do(struct pipeline *p, const struct pin_region *r, int code, const char *where)
{
	bool memory = code == ENOMEM;

	if (!r->beside_bytes || (!memory && code != EAGAIN))
		return false;
	if (memory)
		pin_window_shrink(p->window, what_is_possible(p, r));
	else
		pin_window_shrink_regions(p->window, r->beside_regions);
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
	bool going_on = make_do(p, r, code, where);

	if (!r->refused_there && tell(p, r, RUN_UNPIN, e) < 0)
		return -e->code;
	if (r->refused_here)
		free(r->pin);
	else
		registrar_unpin(p->registrar, r->pin);
	forget(p, r);
	if (going_on)
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

/* How many whole grants have come, of those that are owed; at least one, to be waited for. */
static uint32_t nr_grants_here(const struct pipeline *p)
{
	uint32_t owed = p->owed_end - p->owed_first;
	int bytes = 0;
	uint32_t nr;

	if (ioctl(link_fd(p->config.out->link), FIONREAD, &bytes) < 0)
		bytes = 0;
	nr = (uint32_t)bytes / (uint32_t)sizeof(struct batch_grant);
	if (nr > owed)
		nr = owed;
	return nr ? nr : 1;
}

/* All that are here at once: a system call each would be a good part of what a region costs. They
 * are owed no more then, whatever becomes of the first of them. */
static int receive_grants(struct pipeline *p, struct batch_grant *g, uint32_t *nr, struct err *e)
{
	*nr = nr_grants_here(p);
	if (link_recv(p->config.out->link, g, *nr * sizeof(*g), e) < 0)
		return -e->code;
	for (uint32_t i = 0; i < *nr; i++)
		if (g[i].magic != GRANT_MAGIC || p->owed_first == p->owed_end)
			return err_set(e, ERR_STREAM, EPROTO,
				       "the destination said 0x%08x, 0x%08x unasked", g[i].magic,
				       g[i].refused);
	p->owed_first += *nr;
	return 0;
}

static int take_grant(struct pipeline *p, struct pin_region *r, const struct batch_grant *g,
		      struct err *e)
{
	if (!g->refused && g->gfn != r->gfn)
		return err_set(e, ERR_STREAM, EPROTO,
			       "the destination granted gfn 0x%llx, 0x%llx was due",
			       (unsigned long long)g->gfn, (unsigned long long)r->gfn);
	if (g->refused > MAX_ERRNO)
		return err_set(e, ERR_STREAM, EPROTO,
			       "the destination refused for a reason that is none: 0x%x",
			       g->refused);
	r->remote_key = g->key;
	r->refused_there = (int)g->refused;
	return answered(p, r, AWAITS_THERE, e);
}

static int hear_destination(struct pipeline *p, struct err *e)
{
	struct pollfd fd = {.fd = link_fd(p->config.out->link), .events = POLLIN};
	struct batch_grant grants[NR_JOBS];
	uint32_t nr;

	while (poll(&fd, 1, 0) > 0) {
		uint32_t first = p->owed_first;

		if (receive_grants(p, grants, &nr, e) < 0)
			return -e->code;
		for (uint32_t i = 0; i < nr; i++)
			if (take_grant(p, p->owed[(first + i) % NR_JOBS], &grants[i], e) < 0)
				return -e->code;
	}
	return 0;
}

int pipeline_hear_answers(struct pipeline *p, struct err *e)
{
	return hear_registrar(p, e) < 0 ? -e->code : hear_destination(p, e);
}

int pipeline_skip_grants(struct pipeline *p, struct err *e)
{
	struct batch_grant grants[NR_JOBS];
	uint32_t nr;

	while (p->owed_first != p->owed_end)
		if (receive_grants(p, grants, &nr, e) < 0)
			return -e->code;
	return 0;
}
