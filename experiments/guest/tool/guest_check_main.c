/*
 * godwit-guest-check QMP-SOCKET: verify the memory of a workload guest from outside.
 *
 * Stops the guest, maps its memory through /proc/PID/fd/FD (the offset is the gpa), holds every
 * page of the fill against the guest's own version table, and lets the guest go on. Prints one line
 * and exits 0 when every page is what it must be.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "control/qmp_client.h"
#include "experiments/guest/check.h"

#define MAX_SLOTS 16

struct memory {
	uint8_t *map; /* the offset is the gpa */
	uint64_t bytes;
	uint64_t report_gpa;
	uint32_t nr_slots;
	struct {
		uint64_t gpa;
		uint64_t bytes;
	} slots[MAX_SLOTS];
};

static const void *memory_at(void *ctx, uint64_t gpa, uint64_t len)
{
	const struct memory *m = ctx;

	for (uint32_t i = 0; i < m->nr_slots; i++)
		if (gpa >= m->slots[i].gpa && len <= m->slots[i].bytes &&
		    gpa - m->slots[i].gpa <= m->slots[i].bytes - len)
			return m->map + gpa;
	return NULL;
}

static uint64_t number(json_t *object, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(object, name));
}

static int take_slots(json_t *slots, struct memory *m, struct err *e)
{
	size_t i;
	json_t *slot;

	json_array_foreach(slots, i, slot)
	{
		if (m->nr_slots == MAX_SLOTS)
			break;
		m->slots[m->nr_slots].gpa = number(slot, "gpa");
		m->slots[m->nr_slots].bytes = number(slot, "bytes");
		if (number(slot, "gpa") + number(slot, "bytes") > m->bytes)
			m->bytes = number(slot, "gpa") + number(slot, "bytes");
		m->nr_slots++;
	}
	return m->nr_slots ? 0 : err_set(e, ERR_STATE, ENODATA, "the VMM names no guest memory");
}

static int map_memory(struct qmp_client *client, struct memory *m, struct err *e)
{
	char path[64];
	json_t *view;
	int ret;
	int fd;

	if (qmp_client_call(client, "x-godwit-guest-memory", NULL, &view, e) < 0)
		return -e->code;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)number(view, "pid"),
		 (int)number(view, "fd"));
	m->report_gpa = number(view, "report-gpa");
	ret = take_slots(json_object_get(view, "slots"), m, e);
	json_decref(view);
	if (ret < 0)
		return ret;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "%s: cannot open the guest's memory (same user and host?)", path);
	m->map = mmap(NULL, m->bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
	close(fd);
	if (m->map == MAP_FAILED)
		return err_sys(e, "%s: cannot map the guest's memory", path);
	return 0;
}

static int check(struct memory *m)
{
	const struct guest_check_memory view = {.at = memory_at, .ctx = m};
	struct guest_check_result r;
	int ret = guest_check(&view, m->report_gpa, &r);

	if (ret < 0 && ret != -EBADMSG) {
		fprintf(stderr, "godwit-guest-check: %s\n", r.message);
		return 1;
	}
	printf("checked %" PRIu64 " pages: %" PRIu64 " lost, %" PRIu64 " stale, %" PRIu64
	       " torn; the guest itself found %" PRIu64 " errors\n",
	       r.nr_pages, r.nr_lost, r.nr_stale, r.nr_torn, r.nr_guest_errors);
	if (ret < 0)
		fprintf(stderr, "godwit-guest-check: %s\n", r.message);
	return ret < 0 || r.nr_guest_errors || !r.nr_pages;
}

static bool is_running(struct qmp_client *client, struct err *e)
{
	json_t *status;
	bool running;

	if (qmp_client_call(client, "query-status", NULL, &status, e) < 0)
		return false;
	running = json_is_true(json_object_get(status, "running"));
	json_decref(status);
	return running;
}

static int run(struct qmp_client *client, struct err *e)
{
	struct memory m = {.map = MAP_FAILED};
	bool running = is_running(client, e);
	int status = -1;

	if (e->kind == ERR_NONE && running)
		qmp_client_call(client, "stop", NULL, NULL, e);
	if (e->kind == ERR_NONE && map_memory(client, &m, e) == 0)
		status = check(&m);
	if (m.map != MAP_FAILED)
		munmap(m.map, m.bytes);
	if (running) {
		struct err go_on = ERR_INIT;

		if (qmp_client_call(client, "cont", NULL, NULL, &go_on) < 0 && e->kind == ERR_NONE)
			*e = go_on;
	}
	return status;
}

int main(int argc, char **argv)
{
	struct qmp_client *client;
	struct err e = ERR_INIT;
	int status;

	signal(SIGPIPE, SIG_IGN);
	if (argc != 2 || argv[1][0] == '-') {
		fputs("usage: godwit-guest-check QMP-SOCKET\n\n"
		      "Stop a workload guest, verify every page of its memory, let it go on.\n"
		      "Exit status: 0 every page is right, 1 some are not or no result, 2 usage.\n",
		      argc == 2 && !strcmp(argv[1], "--help") ? stdout : stderr);
		return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
	}
	if (qmp_client_open(argv[1], &client, &e) < 0) {
		fprintf(stderr, "godwit-guest-check: error: %s\n", e.msg);
		return 1;
	}
	status = run(client, &e);
	qmp_client_close(client);
	if (e.kind != ERR_NONE)
		fprintf(stderr, "godwit-guest-check: error: %s\n", e.msg);
	return e.kind != ERR_NONE ? 1 : status;
}
