#include "tests/rig/rig.h"

#include <dirent.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "experiments/guest/check.h"
#include "vmm/base/clock.h"
#include "vmm/guest_report.h"
#include "vmm/kvm.h"

#define PATIENCE (120 * NS_PER_S) /* emulated hosts are slow */

void rig_need_kvm(void)
{
	struct err e = ERR_INIT;
	int fd;

	if (kvm_open(&fd, &e) < 0) {
		print_message("SKIPPED: %s\n", e.msg);
		skip();
	}
	close(fd);
}

static void on_event(void *ctx, const struct vm_event *ev)
{
	(void)ctx;
	if (ev->type == VM_EVENT_ERROR)
		print_error("vCPU error: %s\n", ev->text);
}

static const struct guest_report *report_of(struct vm *vm)
{
	uint64_t gpa = vm_guest_report_gpa(vm);
	const struct guest_report *r =
		gpa ? guest_mem_at(vm_mem(vm), gpa, sizeof(*r) + sizeof(r->cpu[0])) : NULL;

	return r && r->magic == GUEST_REPORT_MAGIC ? r : NULL;
}

static bool workload_runs(struct vm *vm)
{
	const struct guest_report *r = report_of(vm);
	uint32_t state = r ? __atomic_load_n(&r->state, __ATOMIC_ACQUIRE) : 0;

	if (state == GUEST_STATE_FAILED)
		fail_msg("the workload guest failed; run it by hand to see its serial output");
	return state == GUEST_STATE_RUNNING;
}

const char *rig_workload_path(void)
{
	return WORKLOAD_ELF;
}

void rig_await_workload(struct vm *vm)
{
	uint64_t deadline = clock_now_ns() + PATIENCE;

	while (!workload_runs(vm)) {
		if (clock_now_ns() > deadline)
			fail_msg("the workload guest did not start within %llu s",
				 PATIENCE / NS_PER_S);
		clock_sleep_until_ns(clock_now_ns() + 2 * NS_PER_MS);
	}
}

static void add_device(struct vm_config *config, const char *type, const char *text)
{
	struct virtio_spec *spec = &config->virtio[config->nr_virtio++];

	snprintf(spec->type, sizeof(spec->type), "%s", type);
	snprintf(spec->spec, sizeof(spec->spec), "%s", text);
}

static void add_devices(struct vm_config *config, const char *const *disks, const char *net)
{
	for (uint32_t i = 0; i < RIG_MAX_DISKS && disks[i]; i++)
		add_device(config, "virtio-blk", disks[i]);
	if (net)
		add_device(config, "virtio-net", net);
}

struct vm *rig_boot(const struct rig_guest *guest)
{
	static const struct rig_guest small = {.memory_bytes = 64 << 20, .nr_cpus = 1};
	const struct rig_guest *g = guest ? guest : &small;
	struct vm_config config = {.memory_bytes = g->memory_bytes,
				   .nr_cpus = g->nr_cpus,
				   .cpu = g->cpu,
				   .serial = getenv("RIG_SERIAL"),
				   .kernel = g->kernel ? g->kernel : WORKLOAD_ELF,
				   .initrd = g->initrd,
				   .nested = g->nested ? NESTED_REQUIRE : NESTED_OFF,
				   .append = g->append ? g->append
						       : "fill=24M ws=8M rate=20000 quiet=1"};
	struct err e = ERR_INIT;
	struct vm *vm;

	add_devices(&config, g->disks, g->net);
	if (vm_new(&config, on_event, NULL, &vm, &e) < 0 || vm_boot(vm, &e) < 0 ||
	    vm_resume(vm, &e) < 0)
		fail_msg("booting the workload guest: %s", e.msg);
	rig_await_workload(vm);
	return vm;
}

void rig_migration_init(struct rig_migration *m)
{
	memset(m, 0, sizeof(*m));
	migration_params_init(&m->params);
	m->params.downtime_limit_ns = 20 * NS_PER_MS;
	m->params.stall_timeout_ns = PATIENCE;
}

static int build_as_described(void *ctx, struct vm_config *config, struct vm **vm, struct err *e)
{
	struct rig_migration *m = ctx;
	struct vm_config here = {.nr_virtio = 0};

	add_devices(&here, m->disks, m->net);
	if (vm_config_take_back_ends(config, &here, e) < 0)
		return -e->code;
	config->serial = getenv("RIG_SERIAL");
	return vm_new(config, on_event, NULL, vm, e);
}

static struct migration_destination *start_destination(struct link_listener *listener,
						       struct rig_migration *m)
{
	struct migration_destination_config config = {.build = m->build ? m->build
									: build_as_described,
						      .build_ctx = m->build ? m->ctx : m,
						      .fault = m->destination_fault,
						      .announce = m->params.announce,
						      .rdma_pin_bytes = m->params.rdma_pin_bytes,
						      .rdma_fallback = m->params.rdma_fallback,
						      .verbs = m->params.verbs,
						      .accept_timeout_ns = PATIENCE};
	struct migration_destination *d;
	struct err e = ERR_INIT;

	if (migration_destination_start(listener, &config, &d, &e) < 0)
		fail_msg("destination: %s", e.msg);
	return d;
}

/* The destination's side until its end. */
struct arrival {
	struct migration_destination *d;
	struct link_listener *listener;
	struct migration_report *report;
	struct vm *moved;
	pthread_t thread;
};

/* A program that ends takes its listener with it: a source that has connected and was not accepted
 * hears of it then, and need not wait for an answer. */
static void *see_it_end(void *arg)
{
	struct arrival *a = arg;

	migration_destination_wait(a->d, a->report, &a->moved);
	link_listener_free(a->listener);
	return NULL;
}

struct vm *rig_migrate(struct vm *vm, struct rig_migration *m)
{
	struct migration_events no_events = {0};
	struct arrival a = {.report = &m->destination};
	struct migration_source *s;
	struct err e = ERR_INIT;
	struct uri uri;

	if (uri_parse(m->listen ? m->listen : "tcp:127.0.0.1:0", &uri, &e) < 0 ||
	    link_listen(&uri, &a.listener, &e) < 0 ||
	    uri_parse(link_listener_address(a.listener), &uri, &e) < 0)
		fail_msg("listening: %s", e.msg);
	a.d = start_destination(a.listener, m);
	assert_int_equal(pthread_create(&a.thread, NULL, see_it_end, &a), 0);
	if (migration_source_start(vm, &uri, &m->params, &no_events, m->source_fault, &s, &e) < 0)
		fail_msg("source: %s", e.msg);
	if (m->meanwhile)
		m->meanwhile(s, a.d, m->ctx);
	migration_source_wait(s, &m->source);
	/* A destination may still wait for a source that never came. But where the source does not
	 * know, COMMIT may be on its way: cancelling would take the guest from the side that has
	 * it. */
	if (m->source.status == MIGRATION_FAILED || m->source.status == MIGRATION_CANCELLED)
		migration_destination_cancel(a.d);
	pthread_join(a.thread, NULL);
	migration_source_free(s);
	migration_destination_free(a.d);
	return a.moved;
}

struct vm *rig_move(struct vm *vm, struct rig_migration *m)
{
	struct vm *moved = rig_migrate(vm, m);

	if (m->source.status != MIGRATION_COMPLETED || !moved)
		fail_msg("the migration did not complete: source: %s; destination: %s",
			 m->source.error.msg, m->destination.error.msg);
	assert_int_equal(vm_status(vm), VM_POSTMIGRATE);
	vm_free(vm);
	rig_check(moved);
	return moved;
}

static uint64_t last_tsc(struct vm *vm)
{
	const struct guest_report *r = report_of(vm);

	return r ? __atomic_load_n(&r->cpu[0].last_tsc, __ATOMIC_RELAXED) : 0;
}

uint64_t rig_pages_written(struct vm *vm)
{
	const struct guest_report *r = report_of(vm);

	return r ? __atomic_load_n(&r->cpu[0].pages_written, __ATOMIC_RELAXED) : 0;
}

bool rig_alive(struct vm *vm, uint64_t timeout_ns)
{
	uint64_t deadline = clock_now_ns() + timeout_ns;
	uint64_t before = last_tsc(vm);

	do {
		clock_sleep_until_ns(clock_now_ns() + NS_PER_MS);
		if (last_tsc(vm) != before)
			return true;
	} while (clock_now_ns() < deadline);
	return false;
}

static const void *memory_at(void *ctx, uint64_t gpa, uint64_t len)
{
	return guest_mem_at(ctx, gpa, len);
}

void rig_check(struct vm *vm)
{
	struct guest_check_memory mem = {.at = memory_at, .ctx = vm_mem(vm)};
	struct guest_check_result result;
	bool ran = vm_status(vm) == VM_RUNNING;
	struct err e = ERR_INIT;
	int ret;

	if (ran && !rig_alive(vm, PATIENCE))
		fail_msg("the guest is said to run, but its vCPU 0 does not");
	if (vm_pause(vm, &e) < 0)
		fail_msg("pausing: %s", e.msg);
	ret = guest_check(&mem, vm_guest_report_gpa(vm), &result);
	if (ret < 0 || result.nr_guest_errors)
		fail_msg("guest memory is damaged (%d): %s; the guest itself found %llu errors",
			 ret, result.message, (unsigned long long)result.nr_guest_errors);
	if (ran && vm_resume(vm, &e) < 0)
		fail_msg("resuming: %s", e.msg);
}

static uint32_t count_entries(const char *path)
{
	DIR *dir = opendir(path);
	uint32_t nr = 0;

	assert_non_null(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

/* PF_... of the kernel's include/linux/sched.h, the 9th field of proc_pid_stat(5). A thread that
 * has been joined is listed until the kernel has cleared it away, but it is exiting by then: the
 * join ends in exit_mm(), after exit_signals(). The kernel's workers (io_uring's, KVM's recovery of
 * huge pages) come and go when they please. */
#define TASK_EXITING     0x00000004u
#define TASK_IO_WORKER   0x00000010u
#define TASK_USER_WORKER 0x00004000u

static bool is_our_thread(const char *tid)
{
	char path[300];
	char stat[512] = "";
	unsigned int flags = TASK_EXITING; /* gone between the listing and here */
	char *after_name;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%s/stat", tid);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(stat, sizeof(stat), f))
		stat[0] = '\0';
	fclose(f);
	after_name = strrchr(stat, ')');
	if (after_name)
		assert_int_equal(sscanf(after_name, ") %*c %*d %*d %*d %*d %*d %u", &flags), 1);
	return !(flags & (TASK_EXITING | TASK_IO_WORKER | TASK_USER_WORKER));
}

static uint32_t count_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	uint32_t nr = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		nr += entry->d_name[0] != '.' && is_our_thread(entry->d_name);
	closedir(dir);
	return nr;
}

struct rig_census rig_take_census(void)
{
	struct rig_census c = {.nr_fds = count_entries("/proc/self/fd"),
			       .nr_threads = count_threads()};
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long pages[3] = {0};

	assert_non_null(f);
	/* resident minus shared: guest memory is shared, what leaks is not */
	if (fscanf(f, "%lu %lu %lu", &pages[0], &pages[1], &pages[2]) == 3)
		c.rss_kib = (pages[1] - pages[2]) * 4;
	fclose(f);
	return c;
}
