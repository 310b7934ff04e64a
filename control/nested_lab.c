#include "control/nested_lab.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/guest_report.h"
#include "vmm/vcpu.h"

#define LOOK_NS   (20 * NS_PER_MS)
#define L1_BESIDE "nested/l1.elf"

struct lab {
	struct lab_config config;
	struct vm *vm;
	char folder[32]; /* of the serial files */
	char serial[64]; /* "file:PATH" of the present VM */
	uint32_t nr_vms;
	char error[256]; /* what a vCPU died of */
};

/* ---- Serial files ---- */

static const char *serial_path(const struct lab *l)
{
	return l->serial + strlen("file:");
}

static void next_serial(struct lab *l)
{
	snprintf(l->serial, sizeof(l->serial), "file:%s/%u", l->folder, l->nr_vms++);
}

static char *read_text(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t cap = 0;

	if (!f || getdelim(&text, &cap, '\0', f) < 0) {
		free(text);
		text = strdup("");
	}
	if (f)
		fclose(f);
	return text;
}

char *lab_serial(const struct lab *l)
{
	return read_text(serial_path(l));
}

/* What the guest has said here goes to the user's file, and the file goes. */
static void keep_serial(struct lab *l, const char *path)
{
	char *text = NULL;
	FILE *out = l->config.serial_copy ? fopen(l->config.serial_copy, "ae") : NULL;

	if (out) {
		text = read_text(path);
		fputs(text, out);
		fclose(out);
		free(text);
	}
	unlink(path);
}

static bool serial_has(const struct lab *l, const char *word)
{
	char *text = word ? lab_serial(l) : NULL;
	bool has = text && strstr(text, word);

	free(text);
	return has;
}

/* ---- Is it alive? ---- */

static const struct guest_report *report_of(struct vm *vm)
{
	uint64_t gpa = vm_guest_report_gpa(vm);
	const struct guest_report *r = gpa ? guest_mem_at(vm_mem(vm), gpa, sizeof(*r)) : NULL;

	if (!r || r->magic != GUEST_REPORT_MAGIC || r->nr_cpus > GUEST_REPORT_MAX_CPUS)
		return NULL;
	return guest_mem_at(vm_mem(vm), gpa, sizeof(*r) + r->nr_cpus * sizeof(r->cpu[0]));
}

static int ill(struct lab *l, struct err *e)
{
	const struct guest_report *r = report_of(l->vm);
	char *serial;

	if (l->error[0])
		return err_set(e, ERR_STATE, EIO, "the guest died: %s", l->error);
	if (serial_has(l, l->config.bad)) {
		serial = lab_serial(l);
		err_set(e, ERR_STATE, EIO, "the guest said '%.60s': %.200s", l->config.bad,
			strstr(serial, l->config.bad));
		free(serial);
		return -EIO;
	}
	if (!r || l->config.ready)
		return 0;
	if (r->state == GUEST_STATE_FAILED)
		return err_set(e, ERR_STATE, EIO, "the guest failed: see --serial");
	for (uint32_t i = 0; i < r->nr_cpus; i++)
		if (r->cpu[i].nr_errors)
			return err_set(e, ERR_STATE, EIO,
				       "%s %u found %llu errors, the first in page 0x%llx",
				       i ? "L2" : "L1", i ? i - 1 : 0,
				       (unsigned long long)r->cpu[i].nr_errors,
				       (unsigned long long)r->cpu[i].first_bad.gfn);
	return 0;
}

static bool is_ready(struct lab *l)
{
	const struct guest_report *r = report_of(l->vm);

	if (l->config.ready)
		return serial_has(l, l->config.ready);
	return r && __atomic_load_n(&r->state, __ATOMIC_ACQUIRE) == GUEST_STATE_RUNNING;
}

/* What each CPU of the report last was at. */
struct pulse {
	uint64_t tsc[GUEST_REPORT_MAX_CPUS];
	uint64_t gap_seq[GUEST_REPORT_MAX_CPUS];
};

static void take_pulse(struct lab *l, struct pulse *p)
{
	const struct guest_report *r = report_of(l->vm);

	for (uint32_t i = 0; r && i < r->nr_cpus; i++) {
		p->tsc[i] = __atomic_load_n(&r->cpu[i].last_tsc, __ATOMIC_RELAXED);
		p->gap_seq[i] = __atomic_load_n(&r->cpu[i].gap_seq, __ATOMIC_RELAXED);
	}
}

/* The first CPU that has not moved since @p; nr_cpus: all have. */
static bool all_moved(struct lab *l, const struct pulse *p, uint32_t *still)
{
	const struct guest_report *r = report_of(l->vm);

	if (l->config.ready)
		return serial_has(l, l->config.alive);
	for (*still = 0; r && *still < r->nr_cpus; (*still)++)
		if (__atomic_load_n(&r->cpu[*still].last_tsc, __ATOMIC_RELAXED) == p->tsc[*still])
			return false;
	return r != NULL;
}

static int wait_alive(struct lab *l, const struct pulse *p, struct err *e)
{
	uint64_t deadline = clock_now_ns() + l->config.patience_ns;
	uint32_t still = 0;

	for (;;) {
		if (ill(l, e) < 0)
			return -EIO;
		if (all_moved(l, p, &still))
			return 0;
		if (clock_now_ns() > deadline)
			break;
		clock_sleep_until_ns(clock_now_ns() + LOOK_NS / 10);
	}
	if (l->config.ready)
		return err_set(e, ERR_STATE, ETIME, "the guest does not say '%.60s' any more",
			       l->config.alive);
	return err_set(e, ERR_STATE, ETIME, "%s %u hangs", still ? "L2" : "L1",
		       still ? still - 1 : 0);
}

int lab_await(struct lab *l, const char *text, struct err *e)
{
	uint64_t deadline = clock_now_ns() + l->config.patience_ns;

	while (!serial_has(l, text)) {
		if (ill(l, e) < 0)
			return -EIO;
		if (clock_now_ns() > deadline)
			return err_set(e, ERR_STATE, ETIME, "the guest does not say '%.60s'", text);
		clock_sleep_until_ns(clock_now_ns() + LOOK_NS);
	}
	return 0;
}

/* ---- Making and moving ---- */

static void on_event(void *ctx, const struct vm_event *ev)
{
	struct lab *l = ctx;

	if (ev->type == VM_EVENT_ERROR || ev->type == VM_EVENT_RESET)
		snprintf(l->error, sizeof(l->error), "%s", ev->text);
}

static int boot(struct lab *l, struct err *e)
{
	uint64_t deadline = clock_now_ns() + l->config.patience_ns;
	int ret;

	next_serial(l);
	l->config.vm.serial = l->serial;
	ret = vm_new(&l->config.vm, on_event, l, &l->vm, e);
	if (ret == 0)
		ret = vm_boot(l->vm, e);
	if (ret == 0)
		ret = vm_resume(l->vm, e);
	while (ret == 0 && !is_ready(l)) {
		ret = ill(l, e);
		if (ret == 0 && clock_now_ns() > deadline)
			ret = err_set(e, ERR_STATE, ETIME, "the guest does not get ready");
		clock_sleep_until_ns(clock_now_ns() + LOOK_NS);
	}
	return ret;
}

int lab_new(const struct lab_config *config, struct lab **out, struct err *e)
{
	struct lab *l = calloc(1, sizeof(*l));
	int ret = 0;

	if (!l)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory");
	l->config = *config;
	snprintf(l->folder, sizeof(l->folder), "/tmp/godwit-lab.XXXXXX");
	if (!mkdtemp(l->folder))
		ret = err_sys(e, "cannot make %s", l->folder);
	if (ret == 0)
		ret = boot(l, e);
	if (ret < 0) {
		lab_free(l);
		return ret;
	}
	*out = l;
	return 0;
}

void lab_free(struct lab *l)
{
	if (!l)
		return;
	vm_free(l->vm);
	keep_serial(l, serial_path(l));
	rmdir(l->folder);
	free(l);
}

static int build(void *ctx, struct vm_config *config, struct vm **vm, struct err *e)
{
	struct lab *l = ctx;

	next_serial(l);
	config->serial = l->serial;
	config->exit_counter = l->config.vm.exit_counter;
	return vm_new(config, on_event, l, vm, e);
}

static int start_destination(struct lab *l, struct link_listener **listener,
			     struct migration_destination **d, struct uri *uri, struct err *e)
{
	struct migration_destination_config config = {
		.build = build, .build_ctx = l, .accept_timeout_ns = 20 * NS_PER_S};
	int ret = uri_parse("tcp:127.0.0.1:0", uri, e);

	if (ret == 0)
		ret = link_listen(uri, listener, e);
	if (ret == 0)
		ret = uri_parse(link_listener_address(*listener), uri, e);
	if (ret == 0)
		ret = migration_destination_start(*listener, &config, d, e);
	return ret;
}

static int read_view(int vcpu_fd, void *arg, struct err *e)
{
	struct nested_state s;
	int ret = nested_state_save(vcpu_fd, &s, e);

	if (ret == 0)
		nested_view_decode(&s, arg);
	return ret;
}

/* Both ends, to the end. The moved VM, or NULL. */
static int migrate(struct lab *l, const struct migration_params *params, struct lab_move *out,
		   struct vm **moved, struct err *e)
{
	const struct migration_events no_events = {0};
	struct migration_destination *d = NULL;
	struct link_listener *listener = NULL;
	struct migration_source *s = NULL;
	struct uri uri;
	int ret = start_destination(l, &listener, &d, &uri, e);

	if (ret == 0)
		ret = migration_source_start(l->vm, &uri, params, &no_events, NULL, &s, e);
	if (s)
		migration_source_wait(s, &out->report);
	if (d && out->report.status != MIGRATION_COMPLETED)
		migration_destination_cancel(d);
	if (d)
		migration_destination_wait(d, NULL, moved);
	if (ret == 0 && out->report.status != MIGRATION_COMPLETED) {
		*e = out->report.error;
		ret = -e->code;
	}
	migration_source_free(s);
	migration_destination_free(d);
	link_listener_free(listener);
	return ret;
}

static uint64_t longest_gap_ns(const struct guest_report *r, uint32_t cpu, uint64_t from)
{
	uint64_t end = __atomic_load_n(&r->cpu[cpu].gap_seq, __ATOMIC_ACQUIRE);
	uint64_t longest = 0;

	if (end - from > GUEST_REPORT_NR_GAPS)
		from = end - GUEST_REPORT_NR_GAPS;
	for (uint64_t n = from; n < end; n++) {
		uint64_t cycles = r->cpu[cpu].gap[n % GUEST_REPORT_NR_GAPS].tsc_cycles;

		if (cycles > longest)
			longest = cycles;
	}
	return (uint64_t)((double)longest * 1e6 / (double)r->tsc_khz);
}

static void read_gaps(struct lab *l, const struct pulse *before, struct lab_move *out)
{
	const struct guest_report *r = report_of(l->vm);

	if (!r || !r->tsc_khz || r->nr_cpus < 2 || l->config.ready)
		return;
	out->felt = true;
	out->l1_gap_ns = longest_gap_ns(r, 0, before->gap_seq[0]);
	for (uint32_t i = 1; i < r->nr_cpus; i++) {
		uint64_t gap = longest_gap_ns(r, i, before->gap_seq[i]);

		if (gap > out->l2_gap_ns)
			out->l2_gap_ns = gap;
	}
}

int lab_move(struct lab *l, const struct migration_params *params, struct lab_move *out,
	     struct err *e)
{
	struct pulse before = {{0}, {0}}, after;
	struct vm *moved = NULL;
	char old_serial[64];
	int ret;

	memset(out, 0, sizeof(*out));
	take_pulse(l, &before);
	memcpy(old_serial, serial_path(l), sizeof(old_serial) - strlen("file:"));
	ret = migrate(l, params, out, &moved, e);
	if (!moved)
		return ret < 0 ? ret : err_set(e, ERR_STATE, EIO, "the destination has no guest");
	if (l->config.vm.nested != NESTED_OFF)
		ret = vcpu_call(vm_vcpu(l->vm, 0), read_view, &out->stopped, e);
	vm_free(l->vm);
	l->vm = moved;
	keep_serial(l, old_serial);
	if (ret < 0)
		return ret;
	take_pulse(l, &after);
	ret = wait_alive(l, &after, e);
	read_gaps(l, &before, out);
	return ret;
}

struct vm *lab_vm(struct lab *l)
{
	return l->vm;
}

int lab_l1_path(char *path, size_t cap, struct err *e)
{
	char exe[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	if (len < 0)
		return err_sys(e, "/proc/self/exe");
	exe[len] = '\0';
	snprintf(path, cap, "%s/%s", dirname(exe), L1_BESIDE);
	return access(path, R_OK) ? err_sys(e, "no bare-metal L1 at %s: name one by --kernel", path)
				  : 0;
}
