/*
 * disk DEVICE MIB: keeps the first MIB of a disk busy, four requests at a time, and knows what must
 * be on it: a write that is lost, doubled or misplaced is found by the guest itself. The disk is
 * all zeroes when it starts.
 *
 * One line a second on stdout:
 *   disk vda t=12 reads=400 writes=600 zeroes=30 flushes=16 bad=0 errors=0
 * On SIGUSR1 every block is read, and one more line follows:
 *   disk vda check blocks=4096 bad=0
 *
 * A block belongs to one thread, which alone knows its version; threads share counters.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	BLOCK_BYTES = 4096,
	BLOCK_WORDS = BLOCK_BYTES / 8,
	NR_THREADS = 4,
	PAUSE_US = 20000, /* so that others have a share of a slow processor */
	FLUSH_EVERY = 16,
};

struct disk {
	int fd;
	uint64_t nr_blocks;
	atomic_uint checks_wanted;
	atomic_uint checks_done; /* one a thread and check */
	_Atomic uint64_t nr_reads, nr_writes, nr_zeroes, nr_flushes, nr_bad, nr_errors;
};

struct worker {
	struct disk *disk;
	uint64_t *words;    /* one block, aligned as O_DIRECT wants */
	uint32_t *versions; /* of blocks index, index + NR_THREADS, ...; 0: zeroes */
	uint32_t index;
	uint32_t nr_checks;
	uint64_t random;
	pthread_t thread;
};

static uint64_t mix(uint64_t x) /* splitmix64's finaliser */
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t word(uint64_t block, uint32_t version, uint32_t i)
{
	return version ? mix(block << 32 | version) + i : 0;
}

static void count_error(struct disk *d, const char *what, uint64_t block)
{
	if (atomic_fetch_add(&d->nr_errors, 1) < 4)
		printf("disk error: cannot %s block %llu: %s\n", what, (unsigned long long)block,
		       strerror(errno));
}

static void write_block(struct worker *w, uint64_t block, uint32_t *version)
{
	for (uint32_t i = 0; i < BLOCK_WORDS; i++)
		w->words[i] = word(block, *version + 1, i);
	if (pwrite(w->disk->fd, w->words, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) !=
	    BLOCK_BYTES) {
		count_error(w->disk, "write", block);
		return;
	}
	++*version;
	atomic_fetch_add(&w->disk->nr_writes, 1);
}

static void zero_block(struct worker *w, uint64_t block, uint32_t *version)
{
	uint64_t range[2] = {block * BLOCK_BYTES, BLOCK_BYTES};

	if (ioctl(w->disk->fd, BLKZEROOUT, range) < 0) {
		count_error(w->disk, "zero", block);
		return;
	}
	*version = 0;
	atomic_fetch_add(&w->disk->nr_zeroes, 1);
}

static void check_block(struct worker *w, uint64_t block, uint32_t version)
{
	uint32_t nr_wrong = 0;

	if (pread(w->disk->fd, w->words, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) !=
	    BLOCK_BYTES) {
		count_error(w->disk, "read", block);
		return;
	}
	for (uint32_t i = 0; i < BLOCK_WORDS; i++)
		nr_wrong += w->words[i] != word(block, version, i);
	if (nr_wrong && atomic_fetch_add(&w->disk->nr_bad, 1) < 4)
		printf("disk error: block %llu has %u wrong words\n", (unsigned long long)block,
		       nr_wrong);
	atomic_fetch_add(&w->disk->nr_reads, 1);
}

static uint64_t nr_own(const struct worker *w)
{
	return w->disk->nr_blocks / NR_THREADS;
}

static void check_all(struct worker *w)
{
	for (uint64_t i = 0; i < nr_own(w); i++)
		check_block(w, i * NR_THREADS + w->index, w->versions[i]);
	w->nr_checks++;
	atomic_fetch_add(&w->disk->checks_done, 1);
}

static void work_once(struct worker *w)
{
	uint64_t random = mix(w->random++);
	uint64_t i = random % nr_own(w);
	uint64_t block = i * NR_THREADS + w->index;
	uint32_t dice = random >> 32 & 31;

	if (dice == 0)
		zero_block(w, block, &w->versions[i]);
	else if (dice < 12)
		check_block(w, block, w->versions[i]);
	else
		write_block(w, block, &w->versions[i]);
	if (w->random % FLUSH_EVERY)
		return;
	if (fdatasync(w->disk->fd) < 0)
		count_error(w->disk, "flush", block);
	atomic_fetch_add(&w->disk->nr_flushes, 1);
}

static void *run(void *arg)
{
	struct worker *w = arg;

	for (;;) {
		if (atomic_load(&w->disk->checks_wanted) > w->nr_checks)
			check_all(w);
		work_once(w);
		usleep(PAUSE_US);
	}
	return NULL;
}

static bool start(struct worker *w, struct disk *d, uint32_t index)
{
	*w = (struct worker){.disk = d, .index = index, .random = (uint64_t)index << 32};
	w->words = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	w->versions = calloc(nr_own(w), sizeof(*w->versions));
	return w->words && w->versions && !pthread_create(&w->thread, NULL, run, w);
}

static void report(const struct disk *d, const char *name, unsigned t)
{
	printf("disk %s t=%u reads=%llu writes=%llu zeroes=%llu flushes=%llu bad=%llu "
	       "errors=%llu\n",
	       name, t, (unsigned long long)d->nr_reads, (unsigned long long)d->nr_writes,
	       (unsigned long long)d->nr_zeroes, (unsigned long long)d->nr_flushes,
	       (unsigned long long)d->nr_bad, (unsigned long long)d->nr_errors);
}

int main(int argc, char **argv)
{
	struct disk d = {.fd = argc == 3 ? open(argv[1], O_RDWR | O_DIRECT) : -1};
	const char *name = argc == 3 ? strrchr(argv[1], '/') + 1 : "";
	struct worker workers[NR_THREADS];
	const struct timespec second = {.tv_sec = 1};
	unsigned said = 0;
	sigset_t usr1;

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	if (d.fd < 0) {
		printf("disk error: %s\n", argc == 3 ? strerror(errno) : "disk DEVICE MIB");
		return 1;
	}
	d.nr_blocks = strtoull(argv[2], NULL, 10) * (1 << 20) / BLOCK_BYTES;
	for (uint32_t i = 0; i < NR_THREADS; i++)
		if (!start(&workers[i], &d, i))
			return 1;
	for (unsigned t = 1;; t++) {
		if (sigtimedwait(&usr1, NULL, &second) == SIGUSR1)
			atomic_fetch_add(&d.checks_wanted, 1);
		report(&d, name, t);
		if (atomic_load(&d.checks_done) < (said + 1) * NR_THREADS)
			continue;
		printf("disk %s check blocks=%llu bad=%llu\n", name,
		       (unsigned long long)d.nr_blocks, (unsigned long long)d.nr_bad);
		said++;
	}
}
