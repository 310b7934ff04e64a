#include "vmm/mem_prealloc.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/base/host_memory.h"

#define PIECE_BYTES \
	(64ull << 20) /* divides MEM_HOLE_START: no piece is on both sides of the hole */
#define MAX_THREADS 16

struct prealloc {
	struct guest_mem *mem;
	uint64_t nr_pieces;
	_Atomic uint64_t next;
	_Atomic int failed; /* an errno */
};

/* The nth piece of RAM: where it is, and how long (the last may be shorter). */
static uint64_t piece_at(const struct prealloc *p, uint64_t n, uint64_t *bytes)
{
	uint64_t from = n * PIECE_BYTES;
	uint64_t left = guest_mem_bytes(p->mem) - from;

	*bytes = left < PIECE_BYTES ? left : PIECE_BYTES;
	return from < MEM_HOLE_START ? from : from - MEM_HOLE_START + MEM_HOLE_END;
}

/* 0 or an errno. */
static int allocate(struct guest_mem *m, uint64_t gpa, uint64_t bytes)
{
	if (madvise(guest_mem_at_rw(m, gpa, bytes), bytes, MADV_POPULATE_WRITE) == 0)
		return 0;
	if (errno != EINVAL)
		return errno;
	return fallocate(guest_mem_fd(m), 0, (off_t)gpa, (off_t)bytes) < 0 ? errno : 0;
}

static void *work(void *arg)
{
	struct prealloc *p = arg;
	uint64_t n;

	while (!atomic_load(&p->failed) && (n = atomic_fetch_add(&p->next, 1)) < p->nr_pieces) {
		uint64_t bytes;
		uint64_t gpa = piece_at(p, n, &bytes);
		int code = allocate(p->mem, gpa, bytes);

		if (code)
			atomic_store(&p->failed, code);
	}
	return NULL;
}

/* Threads beside this one; fewer, if they cannot be had, only take longer. */
static uint32_t start_threads(struct prealloc *p, pthread_t *threads)
{
	long nr_cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t nr = 0;

	while (nr + 1 < MAX_THREADS && nr + 1 < nr_cpus && nr + 1 < p->nr_pieces &&
	       pthread_create(&threads[nr], NULL, work, p) == 0)
		nr++;
	return nr;
}

/* Better to say no now than to be killed half way. */
static int check_host(uint64_t bytes, struct err *e)
{
	struct host_memory host;

	host_memory_read("", &host);
	if (bytes <= host.available_bytes)
		return 0;
	return err_set(e, ERR_SYS, ENOMEM,
		       "all of the guest's %llu MiB are to be allocated and this host has %llu MiB "
		       "left: free memory%s, or leave out --prealloc",
		       (unsigned long long)(bytes >> 20),
		       (unsigned long long)(host.available_bytes >> 20),
		       host.limited ? ", raise its control group's limit" : "");
}

int mem_prealloc(struct guest_mem *m, struct err *e)
{
	struct prealloc p = {.mem = m,
			     .nr_pieces = (guest_mem_bytes(m) + PIECE_BYTES - 1) / PIECE_BYTES};
	pthread_t threads[MAX_THREADS];
	uint32_t nr;
	int code;

	if (check_host(guest_mem_bytes(m), e) < 0)
		return -e->code;
	nr = start_threads(&p, threads);
	work(&p);
	for (uint32_t i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
	code = atomic_load(&p.failed);
	if (!code)
		return 0;
	return err_set(
		e, ERR_SYS, code,
		"not all of the guest's %llu MiB can be allocated: %s; free memory, or leave "
		"out --prealloc",
		(unsigned long long)(guest_mem_bytes(m) >> 20), strerrordesc_np(code));
}
