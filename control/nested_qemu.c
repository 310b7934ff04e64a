#include "control/nested_qemu.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/ending_signals.h"
#include "nested/l1/l1_exits.h"
#include "vmm/base/buf.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/mem_file.h"

#define KVM_DEBUGFS "/sys/kernel/debug/kvm"
#define LOOK_MS     100

extern char **environ;

struct qemu {
	const struct nested_qemu *config;
	pid_t pid;
	int memory_fd;
	uint8_t *memory;
	char folder[32];
	char serial[48]; /* a FIFO: an enquiry wakes us, and we wake nobody meanwhile */
	int serial_fd;
	bool counts;
	char exits_path[PATH_MAX]; /* known from the first enquiry on: by then the VM is there */
	struct buf said;
};

/* ---- What L0 counts ---- */

static bool is_counted(void)
{
	if (access(KVM_DEBUGFS "/exits", R_OK) == 0)
		return true;
	log_warning("QEMU's exits stay unknown: %s/exits: %s; mount -t debugfs none "
		    "/sys/kernel/debug, as root",
		    KVM_DEBUGFS, strerrordesc_np(errno));
	return false;
}

/* KVM names the folder of a VM "PID-FD". */
static int find_exits(struct qemu *q, struct err *e)
{
	DIR *all = opendir(KVM_DEBUGFS);
	const struct dirent *d;
	char prefix[16];

	if (!all)
		return err_sys(e, KVM_DEBUGFS);
	snprintf(prefix, sizeof(prefix), "%d-", q->pid);
	while (!q->exits_path[0] && (d = readdir(all)) != NULL)
		if (!strncmp(d->d_name, prefix, strlen(prefix)))
			snprintf(q->exits_path, sizeof(q->exits_path), KVM_DEBUGFS "/%s/exits",
				 d->d_name);
	closedir(all);
	return q->exits_path[0] ? 0
				: err_set(e, ERR_STATE, ENOENT, "no VM of process %d in %s", q->pid,
					  KVM_DEBUGFS);
}

/* Opened each time: such a file is read once and cannot be rewound. */
static int read_exits(struct qemu *q, uint64_t *exits, struct err *e)
{
	char text[24] = "";
	ssize_t n;
	int fd;

	if (!q->exits_path[0] && find_exits(q, e) < 0)
		return -e->code;
	fd = open(q->exits_path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		err_sys(e, "%s", q->exits_path);
	if (fd >= 0)
		close(fd);
	*exits = strtoull(text, NULL, 10);
	return n > 0 ? 0 : -e->code;
}

/* Where the answer goes: L1 has said so before it asks. */
static struct l1_exits *answer_at(const struct qemu *q)
{
	static const char key[] = "bench exits_gpa=";
	const char *said = q->said.len ? strstr((const char *)q->said.data, key) : NULL;
	uint64_t gpa = said ? strtoull(said + strlen(key), NULL, 0) : UINT64_MAX;

	if (gpa % _Alignof(struct l1_exits) ||
	    gpa > q->config->memory_bytes - sizeof(struct l1_exits))
		return NULL;
	return (struct l1_exits *)(void *)(q->memory + gpa);
}

static int answer(struct qemu *q, struct err *e)
{
	struct l1_exits *to = answer_at(q);
	int ret;

	if (!to)
		return err_set(e, ERR_STATE, EBADMSG, "L1 in %s asks and does not say where",
			       q->config->program);
	ret = read_exits(q, &to->exits, e);
	if (ret == 0)
		__atomic_store_n(&to->nr_answers, to->nr_answers + 1, __ATOMIC_RELEASE);
	return ret;
}

/* ---- The process ---- */

/* Of huge pages, as QEMU's memory is where it is no file: what a first touch takes is to be
 * compared with ours. QEMU opens it by its number. */
static int make_memory(struct qemu *q, struct err *e)
{
	uint64_t bytes = q->config->memory_bytes;
	bool huge;

	q->memory_fd = mem_file_new(bytes, &huge, e);
	if (q->memory_fd < 0)
		return q->memory_fd;
	if (fcntl(q->memory_fd, F_SETFD, 0) < 0)
		return err_sys(e, "memory for %s", q->config->program);
	q->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, q->memory_fd, 0);
	if (q->memory != MAP_FAILED)
		return 0;
	q->memory = NULL;
	return err_sys(e, "memory for %s", q->config->program);
}

static int make_serial(struct qemu *q, struct err *e)
{
	snprintf(q->folder, sizeof(q->folder), "/tmp/godwit-qemu.XXXXXX");
	if (!mkdtemp(q->folder)) {
		int code = errno;

		q->folder[0] = '\0';
		return err_set(e, ERR_SYS, code, "cannot make a folder in /tmp: %s",
			       strerrordesc_np(code));
	}
	snprintf(q->serial, sizeof(q->serial), "%s/serial", q->folder);
	if (mkfifo(q->serial, 0600) < 0)
		return err_sys(e, "%s", q->serial);
	/* For both, so that neither end waits for the other, and it stays open. */
	q->serial_fd = open(q->serial, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	return q->serial_fd < 0 ? err_sys(e, "%s", q->serial) : 0;
}

static int start(struct qemu *q, struct err *e)
{
	char ram[112], size[24], chardev[64], append[256];
	const char *const argv[] = {
		q->config->program,
		"-M",
		"microvm,x-option-roms=off,isa-serial=on,acpi=off,memory-backend=ram",
		"-object",
		ram,
		"-m",
		size,
		"-accel",
		"kvm",
		"-cpu",
		"host",
		"-nodefaults",
		"-no-user-config",
		"-display",
		"none",
		"-serial",
		chardev,
		"-kernel",
		q->config->kernel,
		"-append",
		append,
		NULL};
	posix_spawnattr_t attr;
	sigset_t none;
	int code;

	snprintf(ram, sizeof(ram),
		 "memory-backend-file,id=ram,share=on,align=2M,size=%lluB,"
		 "mem-path=/proc/self/fd/%d",
		 (unsigned long long)q->config->memory_bytes, q->memory_fd);
	snprintf(size, sizeof(size), "%lluB", (unsigned long long)q->config->memory_bytes);
	snprintf(chardev, sizeof(chardev), "file:%s", q->serial);
	snprintf(append, sizeof(append), "%s%s", q->config->append, q->counts ? " l1.exits=1" : "");
	/* What is blocked here is what ends it. */
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	code = posix_spawnp(&q->pid, q->config->program, NULL, &attr, (char **)(uintptr_t)argv,
			    environ);
	posix_spawnattr_destroy(&attr);
	if (code == 0)
		return 0;
	q->pid = -1;
	return err_set(e, ERR_SYS, code, "cannot start %s: %s", q->config->program,
		       strerrordesc_np(code));
}

/* ---- Listening ---- */

static int take_byte(struct qemu *q, char byte, struct err *e)
{
	if (byte == L1_EXITS_ENQUIRY)
		return answer(q, e);
	/* Always a string. */
	q->said.len -= q->said.len > 0;
	return buf_append(&q->said, (char[]){byte, '\0'}, 2, e);
}

/* All that is there by now, or soon. */
static int listen_once(struct qemu *q, struct err *e)
{
	struct pollfd p = {.fd = q->serial_fd, .events = POLLIN};
	char bytes[256];
	ssize_t n;
	int ret = 0;

	poll(&p, 1, LOOK_MS);
	while (ret == 0 && (n = read(q->serial_fd, bytes, sizeof(bytes))) > 0)
		for (ssize_t i = 0; ret == 0 && i < n; i++)
			ret = take_byte(q, bytes[i], e);
	return ret;
}

static bool has_ended(const struct qemu *q)
{
	return q->said.len && strstr((const char *)q->said.data, q->config->end);
}

static int ended_early(struct qemu *q, struct err *e)
{
	int ret;

	q->pid = -1;
	ret = listen_once(q, e); /* its last words */
	if (ret == 0 && !has_ended(q))
		ret = err_set(e, ERR_STATE, EIO, "%s ended early", q->config->program);
	return ret;
}

static int listen_to_end(struct qemu *q, struct err *e)
{
	uint64_t deadline = clock_now_ns() + q->config->patience_ns;
	int ret;

	while ((ret = listen_once(q, e)) == 0 && !has_ended(q)) {
		if (ending_signals_take(q->config->signals))
			return err_set(e, ERR_CANCELLED, EINTR, "interrupted");
		if (waitpid(q->pid, NULL, WNOHANG) == q->pid)
			return ended_early(q, e);
		if (clock_now_ns() > deadline)
			return err_set(e, ERR_STATE, ETIME, "L1 in %s does not finish",
				       q->config->program);
	}
	return ret;
}

/* ---- All of it ---- */

static void end(struct qemu *q)
{
	if (q->pid > 0) {
		kill(q->pid, SIGKILL);
		waitpid(q->pid, NULL, 0);
	}
	if (q->memory)
		munmap(q->memory, q->config->memory_bytes);
	if (q->memory_fd >= 0)
		close(q->memory_fd);
	if (q->serial_fd >= 0)
		close(q->serial_fd);
	if (q->serial[0])
		unlink(q->serial);
	if (q->folder[0])
		rmdir(q->folder);
}

int nested_qemu_run(const struct nested_qemu *config, char **serial, struct err *e)
{
	struct qemu q = {.config = config,
			 .pid = -1,
			 .memory_fd = -1,
			 .serial_fd = -1,
			 .counts = is_counted()};
	int ret = make_memory(&q, e);

	if (ret == 0)
		ret = make_serial(&q, e);
	if (ret == 0)
		ret = start(&q, e);
	if (ret == 0)
		ret = listen_to_end(&q, e);
	end(&q);
	if (ret == 0)
		*serial = strdup((const char *)q.said.data);
	buf_fini(&q.said);
	return ret;
}
