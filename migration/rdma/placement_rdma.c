#include "migration/rdma/placement_rdma.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "migration/rdma/pin_window.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"

/* The source says BARRIER only after its mark has been acknowledged by our adapter. */
#define MARK_NS (5 * NS_PER_S)

/* A hostile source must not make us hold millions of tiny regions. */
#define MAX_REGIONS 65536

struct rdma_placement {
	struct placement base; /* first */
	struct placement_rdma_config
		config; /* conn is NULL once it broke: the source will say what now */
	struct pin_window *window;
	uint32_t marked_round; /* of the last mark */
};

static struct rdma_placement *self(struct placement *p)
{
	return (struct rdma_placement *)p;
}

/* ---- the window ---- */

static void unpin(struct rdma_placement *p, struct pin_region *r)
{
	rdma_conn_unpin(p->config.conn, r->pin);
	pin_window_remove(p->window, r);
}

/* The source keeps to the budget it was told; one that does not is no source of ours. */
static int check_pin(struct rdma_placement *p, const struct batch_run *run, struct err *e)
{
	if (pin_window_exact(p->window, run->gfn, run->nr_pages))
		return err_set(e, ERR_STREAM, EPROTO, "gfn 0x%llx, %u pages: pinned already",
			       (unsigned long long)run->gfn, run->nr_pages);
	if (!pin_window_fits(p->window, run->nr_pages))
		return err_set(e, ERR_STREAM, EPROTO,
			       "the source wants more pinned than the %llu KiB it was offered",
			       (unsigned long long)pin_window_budget(p->window) / 1024);
	return 0;
}

/* Memory that is new is faulted in all at once: the kernel then finds whole huge pages mapped when
 * it pins them (gup_fast), and would otherwise go on page by page behind the first fault. What
 * cannot be had (or a kernel before 5.14) is for the registration to say. */
static void populate(struct rdma_placement *p, uint64_t gpa, size_t bytes)
{
	if (!rdma_conn_device(p->config.conn)->on_demand)
		madvise(guest_mem_at_rw(p->config.mem, gpa, bytes), bytes, MADV_POPULATE_WRITE);
}

/* 0 or the errno that the source is told. */
static int try_pin(struct rdma_placement *p, const struct batch_run *run, struct ibv_mr **mr)
{
	uint64_t gpa = run->gfn * PAGE_BYTES;
	uint64_t bytes = run->nr_pages * PAGE_BYTES;
	struct err injected = ERR_INIT;

	if (!p->config.conn)
		return ENODEV;
	if (fault_point(p->config.fault, "dst.rdma_pin", &injected) < 0)
		return injected.code;
	populate(p, gpa, bytes);
	return -rdma_conn_pin(p->config.conn, guest_mem_at(p->config.mem, gpa, bytes), bytes, gpa,
			      true, mr);
}

static int pin(struct rdma_placement *p, const struct batch_run *run, struct batch_grant *grant,
	       struct err *e)
{
	struct pin_region *r;
	struct ibv_mr *mr = NULL;
	int refused;

	if (check_pin(p, run, e) < 0)
		return -e->code;
	refused = try_pin(p, run, &mr);
	*grant = (struct batch_grant){
		.magic = GRANT_MAGIC, .refused = (uint32_t)refused, .gfn = run->gfn};
	if (refused || !mr)
		return 0;
	if (pin_window_add(p->window, run->gfn, run->nr_pages, &r, e) < 0) {
		rdma_conn_unpin(p->config.conn, mr);
		return -e->code;
	}
	r->pin = mr;
	grant->key = mr->rkey;
	return 0;
}

static int unpin_run(struct rdma_placement *p, const struct batch_run *run, struct err *e)
{
	struct pin_region *r = pin_window_exact(p->window, run->gfn, run->nr_pages);

	if (r)
		unpin(p, r);
	else if (p->config.conn) /* else it is unpinned already, and the source does not know yet */
		return err_set(e, ERR_STREAM, EPROTO, "gfn 0x%llx, %u pages: not pinned",
			       (unsigned long long)run->gfn, run->nr_pages);
	return 0;
}

static int rdma_window(struct placement *base, const struct batch_run *runs, uint32_t nr_runs,
		       struct err *e)
{
	struct rdma_placement *p = self(base);
	struct batch_grant grants[BATCH_MAX_RUNS];
	uint32_t nr = 0;

	for (uint32_t i = 0; i < nr_runs; i++)
		if ((runs[i].kind == RUN_PIN ? pin(p, &runs[i], &grants[nr++], e)
					     : unpin_run(p, &runs[i], e)) < 0)
			return -e->code;
	return nr ? link_send(p->config.link, grants, nr * sizeof(grants[0]), e) : 0;
}

/* ---- events ---- */

static void tear_down(struct rdma_placement *p)
{
	struct pin_region *r;

	if (!p->config.conn)
		return;
	rdma_conn_close(p->config.conn);
	while ((r = pin_window_any(p->window)))
		unpin(p, r);
	rdma_conn_free(p->config.conn);
	p->config.conn = NULL;
}

static int hear_marks(struct rdma_placement *p, struct err *e)
{
	struct rdma_done done;
	int ret;

	while ((ret = rdma_conn_poll(p->config.conn, &done, e)) > 0)
		if (done.is_mark)
			p->marked_round = done.round;
	return ret;
}

static int readable(struct link *link)
{
	struct pollfd fd = {.fd = link_fd(link), .events = POLLIN};

	return poll(&fd, 1, 0) > 0;
}

/* A broken connection is no end yet: the source may go on without RDMA. What was pinned for it is
 * not needed any more either way, and a device that is being removed waits for us to let go. */
static int rdma_wait(struct placement *base, struct err *e)
{
	struct rdma_placement *p = self(base);
	const int fds[2] = {link_fd(p->config.link), -1};
	struct err broken = ERR_INIT;

	while (p->config.conn && !readable(p->config.link)) {
		if (hear_marks(p, &broken) == 0 &&
		    rdma_conn_wait(p->config.conn, fds, 0, p->config.cancel, &broken) == 0)
			continue;
		if (broken.kind == ERR_CANCELLED) {
			*e = broken;
			return -e->code;
		}
		log_info("%s", broken.msg);
		tear_down(p);
	}
	return 0;
}

static int rdma_finish(struct placement *base, uint32_t round, struct err *e)
{
	struct rdma_placement *p = self(base);
	const int fds[2] = {-1, -1};

	if (!p->config.conn)
		return p->marked_round == round
			       ? 0
			       : err_set(e, ERR_PEER, EIO,
					 "RDMA: the connection broke before the end of round %u",
					 round);
	for (;;) {
		if (hear_marks(p, e) < 0)
			return -e->code;
		if (p->marked_round == round)
			return 0;
		if (rdma_conn_wait(p->config.conn, fds, MARK_NS, p->config.cancel, e) < 0)
			return err_prefix(e, "waiting for the end of round %u", round);
	}
}

static void rdma_seal(struct placement *base)
{
	struct rdma_placement *p = self(base);

	if (p->config.conn)
		rdma_conn_close(p->config.conn);
}

static void rdma_free(struct placement *base)
{
	struct rdma_placement *p = self(base);

	tear_down(p);
	pin_window_free(p->window);
	free(p);
}

static const struct placement_ops rdma_ops = {
	.name = "rdma",
	.window = rdma_window,
	.wait = rdma_wait,
	.finish = rdma_finish,
	.seal = rdma_seal,
	.free = rdma_free,
};

int placement_rdma_new(const struct placement_rdma_config *config, struct placement **out,
		       struct err *e)
{
	struct rdma_placement *p = calloc(1, sizeof(*p));

	if (!p) {
		rdma_conn_free(config->conn);
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a channel");
	}
	p->base.ops = &rdma_ops;
	p->config = *config;
	if (pin_window_new(config->pin_bytes, MAX_REGIONS, &p->window, e) < 0) {
		rdma_conn_free(config->conn);
		free(p);
		return -e->code;
	}
	*out = &p->base;
	return 0;
}
