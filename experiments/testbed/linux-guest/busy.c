/*
 * busy: the userspace of the stock Linux guest. It keeps memory, clocks and a timer
 * busy and checks all three, so that a migration that loses a page, steps a clock or
 * drops an interrupt is found by the guest itself.
 *
 * One line a second on stdout (the serial console):
 *   busy t=12 mem_ok=24000 mem_bad=0 mono_back=0 timer=1200 late_us=900 late_max_us=900
 *        real_drift_us=3
 * (there in one piece; late_us is the largest since the line before)
 * Commands, one a line on stdin: check, clock, dmesg, details, poweroff, reboot.
 *
 * The main thread owns the memory and the output; the timer thread owns the timerfd
 * and shares counters through atomics, and so do the clock watchers, one on each CPU:
 * CLOCK_MONOTONIC must not step back from one CPU to another either. Exit status: 0
 * power off, 1 reboot.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum {
	PAGE_BYTES = 4096,
	PAGE_WORDS = PAGE_BYTES / 8,
	TICK_NS = 10 * 1000 * 1000,
	WATCH_NS = 50 * 1000 * 1000,
	MAX_BAD_REPORTS = 8,
	MAX_BUTTONS = 8,
	KLOG_READ_ALL = 3,
	KLOG_SIZE = 10,
	LOG_WARNING = 4,
};
static const int64_t NS_PER_S = 1000 * 1000 * 1000;

struct clocks {
	_Atomic int64_t mono_max_ns; /* the latest CLOCK_MONOTONIC any thread has seen */
	_Atomic uint64_t nr_mono_back;
	int64_t real_minus_mono_ns; /* at the start; immutable after new */
};

struct timer {
	struct clocks *clocks;
	_Atomic uint64_t nr_expired;
	_Atomic int64_t late_ns;      /* largest since the last details */
	_Atomic int64_t late_line_ns; /* largest since the last line */
	_Atomic int64_t late_max_ns;  /* largest of all */
};

struct memory {
	uint64_t *words;
	uint32_t *versions; /* what each page must hold */
	uint64_t nr_pages;
	uint64_t seed;
	uint64_t random;
	uint64_t nr_ok, nr_bad, nr_writes;
};

struct options {
	uint64_t mem_mib;
	uint64_t pages_per_s;
	uint64_t seed;
};

static volatile sig_atomic_t terminated; /* written by the SIGTERM handler only */

static void on_sigterm(int sig)
{
	(void)sig;
	terminated = 1;
}

static int64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

/* CLOCK_MONOTONIC, checked against what every thread has seen before the call. */
static int64_t mono_ns(struct clocks *c)
{
	int64_t before = atomic_load(&c->mono_max_ns);
	int64_t now = clock_ns(CLOCK_MONOTONIC);

	if (now < before) {
		atomic_fetch_add(&c->nr_mono_back, 1);
		return now;
	}
	while (before < now && !atomic_compare_exchange_weak(&c->mono_max_ns, &before, now))
		;
	return now;
}

/*
 * CLOCK_REALTIME minus CLOCK_MONOTONIC, from the tightest of a few readings: a
 * preemption (or a blackout) between two clock reads must not look like drift.
 */
static int64_t real_minus_mono_ns(struct clocks *c)
{
	int64_t best_gap = INT64_MAX, best = 0;

	for (int i = 0; i < 8; i++) {
		int64_t before = mono_ns(c);
		int64_t real = clock_ns(CLOCK_REALTIME);
		int64_t after = mono_ns(c);

		if (after - before >= best_gap)
			continue;
		best_gap = after - before;
		best = real - before - best_gap / 2;
	}
	return best;
}

static void *clock_watch(void *clocks)
{
	for (;;) {
		mono_ns(clocks);
		nanosleep(&(struct timespec){.tv_nsec = WATCH_NS}, NULL);
	}
	return NULL;
}

/* One thread on each CPU. Returns how many CPUs, or -errno. */
static int clock_watchers_start(struct clocks *c)
{
	int nr_cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);

	for (int i = 0; i < nr_cpus; i++) {
		pthread_attr_t attr;
		pthread_t thread;
		cpu_set_t cpus;
		int ret;

		CPU_ZERO(&cpus);
		CPU_SET(i, &cpus);
		pthread_attr_init(&attr);
		pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
		ret = pthread_create(&thread, &attr, clock_watch, c);
		pthread_attr_destroy(&attr);
		if (ret)
			return -ret;
	}
	return nr_cpus;
}

static void atomic_max(_Atomic int64_t *max, int64_t value)
{
	int64_t seen = atomic_load(max);

	while (seen < value && !atomic_compare_exchange_weak(max, &seen, value))
		;
}

/* Runs at real-time priority: lateness is the machine's, not the main thread's. */
static void *timer_run(void *arg)
{
	struct timer *t = arg;
	int64_t due_ns = clock_ns(CLOCK_MONOTONIC) + TICK_NS;
	struct itimerspec spec = {
		.it_value = {due_ns / NS_PER_S, due_ns % NS_PER_S},
		.it_interval = {0, TICK_NS},
	};
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t nr;

	if (fd < 0 || timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, NULL) < 0) {
		printf("busy error: timerfd: %s\n", strerror(errno));
		return NULL;
	}
	while (read(fd, &nr, sizeof(nr)) == sizeof(nr)) {
		/* Lateness of the first expiration of the batch: the longest wait. */
		int64_t late_ns = mono_ns(t->clocks) - due_ns;

		due_ns += (int64_t)nr * TICK_NS;
		atomic_fetch_add(&t->nr_expired, nr);
		atomic_max(&t->late_ns, late_ns);
		atomic_max(&t->late_line_ns, late_ns);
		atomic_max(&t->late_max_ns, late_ns);
	}
	return NULL;
}

static int timer_start(struct timer *t)
{
	struct sched_param param = {.sched_priority = 10};
	pthread_attr_t attr;
	pthread_t thread;
	int ret;

	pthread_attr_init(&attr);
	pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(&attr, SCHED_FIFO);
	pthread_attr_setschedparam(&attr, &param);
	ret = pthread_create(&thread, &attr, timer_run, t);
	if (ret == EPERM) /* not root: outside of a guest */
		ret = pthread_create(&thread, NULL, timer_run, t);
	pthread_attr_destroy(&attr);
	return ret;
}

static uint64_t mix(uint64_t x) /* splitmix64's finaliser */
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t memory_random_page(struct memory *m)
{
	m->random += 0x9e3779b97f4a7c15u;
	return mix(m->random) % m->nr_pages;
}

/* A page's words are a progression from a start that only (seed, page, version) has. */
static uint64_t page_start(const struct memory *m, uint64_t page, uint32_t version)
{
	return mix(m->seed + page * 0x9e3779b97f4a7c15u + ((uint64_t)version << 40));
}

static uint64_t page_step(uint64_t start)
{
	return mix(start) | 1;
}

static void page_write(struct memory *m, uint64_t page)
{
	uint64_t *words = m->words + page * PAGE_WORDS;
	uint64_t value = page_start(m, page, ++m->versions[page]);
	uint64_t step = page_step(value);

	for (int i = 0; i < PAGE_WORDS; i++, value += step)
		words[i] = value;
	m->nr_writes++;
}

/* Says what the page holds instead: an older version means a lost update. */
static void page_report(struct memory *m, uint64_t page, int word)
{
	const uint64_t *words = m->words + page * PAGE_WORDS;
	uint32_t version = m->versions[page];

	for (uint32_t v = version > 1000 ? version - 1000 : 0; v < version; v++) {
		if (words[0] != page_start(m, page, v))
			continue;
		printf("busy bad page=%llu word=%d version=%u want=%u\n", (unsigned long long)page,
		       word, v, version);
		return;
	}
	printf("busy bad page=%llu word=%d value=%016llx want=%u\n", (unsigned long long)page, word,
	       (unsigned long long)words[word], version);
}

static bool page_check(struct memory *m, uint64_t page)
{
	const uint64_t *words = m->words + page * PAGE_WORDS;
	uint64_t value = page_start(m, page, m->versions[page]);
	uint64_t step = page_step(value);

	for (int i = 0; i < PAGE_WORDS; i++, value += step) {
		if (words[i] == value)
			continue;
		if (m->nr_bad++ < MAX_BAD_REPORTS)
			page_report(m, page, i);
		return false;
	}
	m->nr_ok++;
	return true;
}

static int memory_init(struct memory *m, const struct options *o)
{
	*m = (struct memory){.nr_pages = o->mem_mib * 1024 * 1024 / PAGE_BYTES,
			     .seed = o->seed,
			     .random = o->seed};
	m->words = mmap(NULL, m->nr_pages * PAGE_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	m->versions = calloc(m->nr_pages, sizeof(*m->versions));
	if (m->words == MAP_FAILED || !m->versions)
		return -ENOMEM;
	for (uint64_t page = 0; page < m->nr_pages; page++)
		page_write(m, page);
	return 0;
}

/* One page rewritten (checked first) and another one checked. */
static void memory_step(struct memory *m)
{
	uint64_t page = memory_random_page(m);

	page_check(m, page);
	page_write(m, page);
	page_check(m, memory_random_page(m));
}

static void memory_check_all(struct memory *m)
{
	uint64_t bad = 0;

	for (uint64_t page = 0; page < m->nr_pages; page++)
		bad += !page_check(m, page);
	printf("busy check pages=%llu bad=%llu\n", (unsigned long long)m->nr_pages,
	       (unsigned long long)bad);
}

/*
 * The kernel compares its clock source with another one twice a second. When it comes late to
 * that (the guest was away, or its host had no time for it) it says by how much each has gone
 * on, and warns of nothing else: trouble only if they disagree.
 */
static bool clocks_agree(const char *line)
{
	static const long long tolerance_ns = 100 * 1000;
	const char *at = strstr(line, "Long readout interval");
	const char *numbers = at ? strstr(at, "cs_nsec:") : NULL;
	long long cs_ns, wd_ns;

	return numbers && sscanf(numbers, "cs_nsec: %lld wd_nsec: %lld", &cs_ns, &wd_ns) == 2 &&
	       llabs(cs_ns - wd_ns) <= tolerance_ns;
}

static bool dmesg_is_trouble(const char *line)
{
	static const char *const words[] = {"clock", "rcu", "soft lockup", "hung"};

	if (clocks_agree(line))
		return false;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcasestr(line, words[i]))
			return true;
	return false;
}

/* Kernel messages of level warning or worse about clocks, RCU, lockups and hangs. */
static void dmesg_report(void)
{
	int size = klogctl(KLOG_SIZE, NULL, 0), nr = 0;
	char *text = calloc(1, (size_t)(size > 0 ? size : 0) + 1), *rest = text, *line;

	if (text && size > 0)
		klogctl(KLOG_READ_ALL, text, size);
	while (text && (line = strsep(&rest, "\n"))) {
		unsigned int level;

		if (sscanf(line, "<%u>", &level) != 1 || (level & 7) > LOG_WARNING ||
		    !dmesg_is_trouble(line))
			continue;
		printf("busy dmesg: %s\n", line);
		nr++;
	}
	printf("busy dmesg warnings=%d\n", nr);
	free(text);
}

static void status_print(struct memory *m, struct timer *t, int64_t start_ns)
{
	struct clocks *c = t->clocks;
	int64_t drift_ns = real_minus_mono_ns(c) - c->real_minus_mono_ns;

	printf("busy t=%lld mem_ok=%llu mem_bad=%llu mono_back=%llu timer=%llu late_us=%lld "
	       "late_max_us=%lld real_drift_us=%lld\n",
	       (long long)((mono_ns(c) - start_ns) / NS_PER_S), (unsigned long long)m->nr_ok,
	       (unsigned long long)m->nr_bad, (unsigned long long)c->nr_mono_back,
	       (unsigned long long)t->nr_expired,
	       (long long)atomic_exchange(&t->late_line_ns, 0) / 1000,
	       (long long)t->late_max_ns / 1000, (long long)drift_ns / 1000);
}

/* What the line once a second leaves out: each character costs a nested guest 0.5 ms. */
static void details_print(struct memory *m, struct timer *t)
{
	int64_t real_ns = clock_ns(CLOCK_REALTIME);

	printf("busy details late_us=%lld writes=%llu real=%lld.%03lld\n",
	       (long long)atomic_exchange(&t->late_ns, 0) / 1000, (unsigned long long)m->nr_writes,
	       (long long)(real_ns / NS_PER_S), (long long)(real_ns % NS_PER_S / 1000000));
}

/* For somebody outside who knows what time it is. */
static void clock_print(void)
{
	printf("busy clock real_us=%lld\n", (long long)clock_ns(CLOCK_REALTIME) / 1000);
}

/* Carries out the command in LINE. Returns an exit status, or -1 to go on. */
static int command_run(const char *line, struct memory *m, struct timer *t)
{
	if (!strcmp(line, "check"))
		memory_check_all(m);
	else if (!strcmp(line, "clock"))
		clock_print();
	else if (!strcmp(line, "dmesg"))
		dmesg_report();
	else if (!strcmp(line, "details"))
		details_print(m, t);
	else if (!strcmp(line, "poweroff"))
		return 0;
	else if (!strcmp(line, "reboot"))
		return 1;
	else if (*line)
		printf("busy error: unknown command '%s'\n", line);
	return -1;
}

/* Takes what stdin has; runs a command at each end of line. */
static int console_read(struct pollfd *in, struct memory *m, struct timer *t)
{
	static char line[128]; /* main thread only */
	static size_t length;
	char c;

	for (;;) {
		ssize_t n = read(in->fd, &c, 1);
		int status;

		if (n == 0)
			in->fd = -1;
		if (n != 1)
			return -1;
		if (c != '\n' && c != '\r') {
			if (length < sizeof(line) - 1 && isprint((unsigned char)c))
				line[length++] = c;
			continue;
		}
		line[length] = '\0';
		length = 0;
		status = command_run(line, m, t);
		if (status >= 0)
			return status;
	}
}

/* ACPI's power button, if the kernel has one, is an input device. */
static int buttons_open(struct pollfd *fds, int max)
{
	int nr = 0;

	for (int i = 0; i < max; i++) {
		char path[32];
		int fd;

		snprintf(path, sizeof(path), "/dev/input/event%d", i);
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0)
			fds[nr++] = (struct pollfd){.fd = fd, .events = POLLIN};
	}
	return nr;
}

static bool button_pressed(int fd)
{
	struct input_event event;

	while (read(fd, &event, sizeof(event)) == sizeof(event))
		if (event.type == EV_KEY && event.code == KEY_POWER && event.value)
			return true;
	return false;
}

/*
 * Works in slices of a tick: pages_per_s / 100 steps, then waits for the tick's end
 * (not at all if it is unlimited or late), listening to the console.
 */
static int busy_run(struct memory *m, struct timer *t, const struct options *o)
{
	struct pollfd fds[1 + MAX_BUTTONS] = {{.fd = STDIN_FILENO, .events = POLLIN}};
	int nr_fds = 1 + buttons_open(fds + 1, MAX_BUTTONS);
	uint64_t steps = o->pages_per_s ? (o->pages_per_s + 99) / 100 : 100;
	int64_t start_ns = mono_ns(t->clocks), line_ns = start_ns + NS_PER_S, tick_ns = start_ns;

	while (!terminated) {
		int64_t now_ns, wait_ms;

		for (uint64_t i = 0; i < steps; i++)
			memory_step(m);
		now_ns = mono_ns(t->clocks);
		if (now_ns >= line_ns) {
			status_print(m, t, start_ns);
			line_ns += (1 + (now_ns - line_ns) / NS_PER_S) * NS_PER_S;
		}
		tick_ns += TICK_NS;
		if (tick_ns < now_ns)
			tick_ns = now_ns;
		wait_ms = o->pages_per_s ? (tick_ns - now_ns + 999999) / 1000000 : 0;
		if (poll(fds, (nfds_t)nr_fds, (int)wait_ms) <= 0)
			continue;
		if (fds[0].revents) {
			int status = console_read(&fds[0], m, t);

			if (status >= 0)
				return status;
		}
		for (int i = 1; i < nr_fds; i++)
			if (fds[i].revents && button_pressed(fds[i].fd))
				return 0;
	}
	return 0;
}

/* The value of NAME=value on the kernel's command line, else FALLBACK. */
static uint64_t option(const char *cmdline, const char *name, uint64_t fallback)
{
	size_t length = strlen(name);
	const char *at = cmdline;

	while ((at = strstr(at, name))) {
		if ((at == cmdline || at[-1] == ' ') && at[length] == '=')
			return strtoull(at + length + 1, NULL, 0);
		at += length;
	}
	return fallback;
}

static void options_read(struct options *o)
{
	char cmdline[4096] = "";
	FILE *f = fopen("/proc/cmdline", "r");

	if (f && !fgets(cmdline, sizeof(cmdline), f))
		cmdline[0] = '\0';
	if (f)
		fclose(f);
	o->mem_mib = option(cmdline, "busy.mem", 16);
	o->pages_per_s = option(cmdline, "busy.rate", 2000);
	o->seed = option(cmdline, "busy.seed", 1);
	if (!o->mem_mib)
		o->mem_mib = 1;
}

int main(void)
{
	struct clocks clocks = {0};
	struct timer timer = {.clocks = &clocks};
	struct memory memory;
	struct options options;
	int nr_cpus;
	int ret;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGTERM, on_sigterm);
	fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
	options_read(&options);
	ret = memory_init(&memory, &options);
	if (ret < 0) {
		printf("busy error: no memory for busy.mem=%llu\n",
		       (unsigned long long)options.mem_mib);
		return 0;
	}
	clocks.real_minus_mono_ns = real_minus_mono_ns(&clocks);
	nr_cpus = clock_watchers_start(&clocks);
	if (nr_cpus < 0) {
		printf("busy error: clock watchers: %s\n", strerror(-nr_cpus));
		return 0;
	}
	printf("busy start mem_mib=%llu rate=%llu cpus=%d\n", (unsigned long long)options.mem_mib,
	       (unsigned long long)options.pages_per_s, nr_cpus);
	ret = timer_start(&timer);
	if (ret) {
		printf("busy error: timer thread: %s\n", strerror(ret));
		return 0;
	}
	ret = busy_run(&memory, &timer, &options);
	printf("busy end %s\n", ret ? "reboot" : "poweroff");
	tcdrain(STDOUT_FILENO);
	exit(ret); /* not return: the other threads still use this frame */
}
