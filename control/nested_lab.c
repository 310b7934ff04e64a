#include "control/nested_lab.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/ending_signals.h"
#include "control/nested_life.h"
#include "vmm/base/buf.h"
#include "vmm/base/clock.h"
#include "vmm/vcpu.h"

#define LOOK_NS   (20 * NS_PER_MS)
#define L1_BESIDE "nested/l1.elf"

struct lab {
	struct lab_config config;
	const struct life_ops *life;
	struct vm *vm;
	struct buf told; /* what the guest has said in earlier VMs */
	char folder[32]; /* of the serial files */
	char serial[64]; /* "file:PATH" of the present VM */
	uint32_t nr_vms;
	char error[256]; /* what a vCPU died of */
};

/* ---- Serial files ---- */

static const char *path_of(const char *serial)
{
	return serial + strlen("file:");
}

static const char *serial_path(const struct lab *l)
{
	return path_of(l->serial);
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

char *lab_told(const struct lab *l)
{
	char *here = lab_serial(l);
	char *all = NULL;

	if (asprintf(&all, "%.*s%s", (int)l->told.len, (const char *)l->told.data, here) < 0)
		all = strdup("");
	free(here);
	return all;
}

/* What the guest has said there is kept, here and in the user's file, and the file goes. */
static void keep_serial(struct lab *l, const char *path)
{
	char *text = read_text(path);
	FILE *out = l->config.serial_copy ? fopen(l->config.serial_copy, "ae") : NULL;
	struct err ignored = ERR_INIT;

	buf_append(&l->told, text, strlen(text), &ignored); /* without memory: less to look at */
	if (out) {
		fputs(text, out);
		fclose(out);
	}
	free(text);
	unlink(path);
}

/* The guest has not moved, so it goes on to say what it says where it did. */
static void return_to_serial(struct lab *l, const char *serial)
{
	if (!strcmp(l->serial, serial))
		return;
	unlink(serial_path(l));
	snprintf(l->serial, sizeof(l->serial), "%s", serial);
}

static bool serial_has(const struct lab *l, const char *word)
{
	char *text = word ? lab_serial(l) : NULL;
	bool has = text && strstr(text, word);

	free(text);
	return has;
}

/* ---- Is it alive? ---- */

static int ill(const struct lab *l, struct err *e)
{
	if (ending_signals_take(l->config.signals))
		return err_set(e, ERR_CANCELLED, EINTR, "interrupted");
	if (l->error[0])
		return err_set(e, ERR_STATE, EIO, "the guest died: %s", l->error);
	return l->life->ill(l, e);
}

static int wait_alive(struct lab *l, const struct life_pulse *p, struct err *e)
{
	uint64_t deadline = clock_now_ns() + l->config.patience_ns;
	char still[96];

	for (;;) {
		if (ill(l, e) < 0)
			return -EIO;
		if (l->life->moved(l, p, still, sizeof(still)))
			return 0;
		if (clock_now_ns() > deadline)
			return err_set(e, ERR_STATE, ETIME, "%s hangs", still);
		clock_sleep_until_ns(clock_now_ns() + l->life->look_ns);
	}
}

/* Where it stands is in the last line it said. */
static int too_late(const struct lab *l, const char *what, struct err *e)
{
	char *text = lab_serial(l);
	char *last;

	for (size_t n = strlen(text); n > 0 && strchr("\r\n", text[n - 1]); n--)
		text[n - 1] = '\0';
	last = strrchr(text, '\n');
	err_set(e, ERR_STATE, ETIME, "the guest does not get to %.60s; its last line: '%.100s'",
		what, last ? last + 1 : text);
	free(text);
	return -ETIME;
}

int lab_await(struct lab *l, const char *text, struct err *e)
{
	uint64_t deadline = clock_now_ns() + l->config.patience_ns;

	while (!serial_has(l, text)) {
		if (ill(l, e) < 0)
			return -EIO;
		if (clock_now_ns() > deadline)
			return too_late(l, text, e);
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
	while (ret == 0 && !l->life->ready(l)) {
		ret = ill(l, e);
		if (ret == 0 && clock_now_ns() > deadline)
			ret = too_late(l, "work", e);
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
	l->life = life_of(config);
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
	buf_fini(&l->told);
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

/* Where the next VM listens. */
static void listening_address(const struct lab *l, char *out, size_t cap)
{
	const char *over = l->config.over;

	if (!over)
		snprintf(out, cap, "tcp:127.0.0.1:0");
	else if (!strcmp(over, "unix"))
		snprintf(out, cap, "unix:%s/migration", l->folder);
	else
		snprintf(out, cap, "%s:0", over);
}

static int start_destination(struct lab *l, struct link_listener **listener,
			     struct migration_destination **d, struct uri *uri, struct err *e)
{
	struct migration_destination_config config = {
		.build = build, .build_ctx = l, .accept_timeout_ns = 20 * NS_PER_S};
	char address[96];
	int ret;

	listening_address(l, address, sizeof(address));
	ret = uri_parse(address, uri, e);
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

int lab_move(struct lab *l, const struct migration_params *params, struct lab_move *out,
	     struct err *e)
{
	struct life_pulse before = {.told = 0}, after = {.told = 0};
	struct vm *moved = NULL;
	char old_serial[sizeof(l->serial)];
	int ret;

	memset(out, 0, sizeof(*out));
	l->life->take(l, &before);
	memcpy(old_serial, l->serial, sizeof(old_serial));
	ret = migrate(l, params, out, &moved, e);
	if (!moved) {
		return_to_serial(l, old_serial);
		return ret < 0 ? ret : err_set(e, ERR_STATE, EIO, "the destination has no guest");
	}
	if (l->config.vm.nested != NESTED_OFF)
		ret = vcpu_call(vm_vcpu(l->vm, 0), read_view, &out->stopped, e);
	vm_free(l->vm);
	l->vm = moved;
	keep_serial(l, path_of(old_serial));
	if (ret < 0)
		return ret;
	l->life->take(l, &after);
	ret = wait_alive(l, &after, e);
	if (l->life->gaps)
		l->life->gaps(l, &before, out);
	return ret;
}

struct vm *lab_vm(const struct lab *l)
{
	return l->vm;
}

const struct lab_config *lab_config(const struct lab *l)
{
	return &l->config;
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
