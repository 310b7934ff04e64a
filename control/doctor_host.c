/* doctor's look at the rest of the host. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control/doctor.h"
#include "vmm/base/units.h"
#include "vmm/mem.h"

#define TEXT 32

/* 64 GiB of memory that is never touched: it must cost nothing and be seen as nothing. */
static void probe_memory_file(const struct host *host, struct finding *f)
{
	struct guest_mem *mem;
	struct err e = ERR_INIT;
	uint64_t start;
	uint64_t stop;

	(void)host;
	if (guest_mem_new(64ull << 30, &mem, &e) < 0) {
		finding_set(f, VERDICT_MISSING, "%.190s", e.msg);
		finding_remedy(f, "raise the limits: ulimit -v unlimited, ulimit -f unlimited");
		return;
	}
	if (guest_mem_next_data(mem, NULL, 0, guest_mem_nr_gfns(mem) * PAGE_BYTES, &start, &stop))
		finding_set(f, VERDICT_NOTE, "works, but untouched memory is not told apart");
	else
		finding_set(f, VERDICT_OK, "works, untouched memory is skipped");
	guest_mem_free(mem);
}

static uint64_t meminfo(const char *name)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long value = 0;
	size_t len = strlen(name);
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, len) && line[len] == ':')
			value = strtoull(line + len + 1, NULL, 10);
	if (file)
		fclose(file);
	return value;
}

static void probe_memory(const struct host *host, struct finding *f)
{
	uint64_t available = meminfo("MemAvailable") << 10;
	char total[TEXT];
	char free_text[TEXT];

	(void)host;
	units_format_bytes(total, TEXT, meminfo("MemTotal") << 10);
	units_format_bytes(free_text, TEXT, available);
	if (available >= 512ull << 20) {
		finding_set(f, VERDICT_OK, "%s available of %s", free_text, total);
		return;
	}
	finding_set(f, VERDICT_NOTE, "only %s available of %s", free_text, total);
	finding_remedy(f, "a guest needs its memory: stop something, or give --memory less");
}

static void probe_cpus(const struct host *host, struct finding *f)
{
	cpu_set_t set;
	int nr;

	(void)host;
	nr = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
	if (nr > 1) {
		finding_set(f, VERDICT_OK, "%d usable", nr);
		return;
	}
	finding_set(f, VERDICT_NOTE, "1 usable: a guest and its migration take turns");
	finding_remedy(f, "give this process more CPUs (taskset, cgroup cpuset)");
}

static void probe_hugepages(const struct host *host, struct finding *f)
{
	struct guest_mem *mem;
	struct err e = ERR_INIT;
	bool huge;

	(void)host;
	if (guest_mem_new(2 << 20, &mem, &e) < 0) {
		finding_set(f, VERDICT_ABSENT, "no guest memory at all");
		return;
	}
	huge = guest_mem_is_huge(mem);
	guest_mem_free(mem);
	if (huge) {
		finding_set(f, VERDICT_OK, "guest memory is made of 2 MiB pages");
		return;
	}
	finding_set(f, VERDICT_ABSENT, "guest memory is made of 4 KiB pages: slower to fill");
	finding_remedy(f, "let users make user namespaces (sysctl user.max_user_namespaces), or "
			  "run as root, or as root: cd /sys/kernel/mm/transparent_hugepage && "
			  "echo advise > shmem_enabled");
}

/* migration/page_writer.h: what is written to a new huge page at once need not be cleared first. */
static void probe_pipes(const struct host *host, struct finding *f)
{
	int fds[2];
	int bytes;

	(void)host;
	if (pipe2(fds, O_CLOEXEC) < 0) {
		finding_set(f, VERDICT_MISSING, "cannot create a pipe: %s", strerrordesc_np(errno));
		return;
	}
	bytes = fcntl(fds[0], F_SETPIPE_SZ, 2 << 20);
	close(fds[0]);
	close(fds[1]);
	if (bytes >= 2 << 20) {
		finding_set(f, VERDICT_OK, "may be as large as a huge page");
		return;
	}
	finding_set(f, VERDICT_NOTE,
		    "smaller than 2 MiB: a guest that arrives here has half of "
		    "each new huge page cleared in vain");
	finding_remedy(f, "as root: sysctl -w fs.pipe-max-size=2097152");
}

static void probe_memlock(const struct host *host, struct finding *f)
{
	struct rlimit limit = {.rlim_cur = 0};
	char text[TEXT];

	(void)host;
	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (limit.rlim_cur == RLIM_INFINITY || !geteuid()) {
		finding_set(f, VERDICT_OK, "unlimited");
		return;
	}
	finding_set(f, VERDICT_NOTE, "at most %s can be pinned",
		    units_format_bytes(text, TEXT, limit.rlim_cur));
	finding_remedy(f, "only RDMA pins memory: ulimit -l unlimited (limits.conf: memlock)");
}

static void probe_userfaultfd(const struct host *host, struct finding *f)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	const char *mode = "";

	(void)host;
	if (fd < 0) {
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
		mode = ", user-mode faults only";
	}
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0) {
		finding_set(f, VERDICT_ABSENT, "%s", strerrordesc_np(errno));
		finding_remedy(f, "sysctl vm.unprivileged_userfaultfd=1, or run as root");
	} else {
		finding_set(f, VERDICT_OK, "works%s%s", mode,
			    api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP ? ", write-protect too"
									  : "");
	}
	if (fd >= 0)
		close(fd);
}

const struct check doctor_host_checks[] = {
	{"guest memory", probe_memory_file, false},
	{"free memory", probe_memory, false},
	{"CPUs", probe_cpus, false},
	{"huge pages", probe_hugepages, false},
	{"pipes", probe_pipes, false},
	{"locked memory", probe_memlock, false},
	{"userfaultfd", probe_userfaultfd, false},
	{NULL, NULL, false},
};
