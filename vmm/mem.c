#include "vmm/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/mem_file.h"

#define MEM_ALIGN (2ull << 20)

struct guest_mem {
	/* immutable after new */
	uint64_t bytes;
	uint64_t end; /* one past the highest address: the length of file and mapping */
	int fd;
	bool huge;
	uint8_t *base;
	uint32_t nr_slots;
	struct mem_slot slots[MEM_MAX_SLOTS];
	/* atomic. `summary` has one bit for each word of `marks`, so that taking the marks of a
	 * 64 GiB guest in the middle of a switch-over reads 32 KiB and not 2 MiB. */
	struct bitmap marks;
	struct bitmap summary;
	/* atomic: chunks of MEM_ALIGN in which anything was ever discarded */
	struct bitmap discarded;

	pthread_mutex_t discard_lock; /* guards the rest; held while discarding */
	uint32_t nr_holds;
};

static void lay_out(struct guest_mem *m)
{
	uint64_t low = m->bytes < MEM_HOLE_START ? m->bytes : MEM_HOLE_START;

	m->slots[0] = (struct mem_slot){.index = 0, .gpa = 0, .bytes = low};
	m->nr_slots = 1;
	m->end = low;
	if (m->bytes == low)
		return;
	m->slots[1] = (struct mem_slot){.index = 1, .gpa = MEM_HOLE_END, .bytes = m->bytes - low};
	m->nr_slots = 2;
	m->end = MEM_HOLE_END + m->slots[1].bytes;
}

/* Address space for all of it, aligned so that huge pages can be mapped as such; 2 MiB more than
 * needed are cut off again. */
static int reserve(struct guest_mem *m, struct err *e)
{
	uint64_t want = m->end + MEM_ALIGN;
	uint8_t *raw =
		mmap(NULL, want, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t head;

	if (raw == MAP_FAILED)
		return err_sys(e,
			       "cannot map %" PRIu64
			       " MiB of guest memory (raise `ulimit -v` or give less --memory)",
			       m->end >> 20);
	head = (MEM_ALIGN - (uintptr_t)raw % MEM_ALIGN) % MEM_ALIGN;
	m->base = raw + head;
	if (head)
		munmap(raw, head);
	munmap(m->base + m->end, MEM_ALIGN - head);
	return 0;
}

static int map(struct guest_mem *m, struct err *e)
{
	m->fd = mem_file_new(m->end, &m->huge, e);
	if (m->fd < 0 || reserve(m, e) < 0)
		return -e->code;
	if (mmap(m->base, m->end, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
		 m->fd, 0) == MAP_FAILED)
		return err_sys(e, "cannot map %" PRIu64 " MiB of guest memory", m->end >> 20);
	/* A stray pointer into the PCI hole must fault, not quietly allocate pages nobody sends. */
	if (m->nr_slots > 1 &&
	    mprotect(m->base + MEM_HOLE_START, MEM_HOLE_END - MEM_HOLE_START, PROT_NONE) < 0)
		return err_sys(e, "cannot protect the hole in guest memory");
	/* These only help: a forked child must not inherit a guest, a core dump not contain one,
	 * and a memfd gets huge pages where the administrator chose shmem_enabled=advise. */
	madvise(m->base, m->end, MADV_DONTFORK);
	madvise(m->base, m->end, MADV_DONTDUMP);
	madvise(m->base, m->end, MADV_HUGEPAGE);
	return 0;
}

static int build(struct guest_mem *m, struct err *e)
{
	int ret;

	lay_out(m);
	ret = map(m, e);
	if (ret < 0)
		return ret;
	ret = bitmap_init(&m->marks, m->end >> PAGE_SHIFT, e);
	if (ret < 0)
		return ret;
	ret = bitmap_init(&m->summary, bitmap_nr_words(&m->marks), e);
	if (ret < 0)
		return ret;
	return bitmap_init(&m->discarded, m->end / MEM_ALIGN, e);
}

int guest_mem_new(uint64_t bytes, struct guest_mem **out, struct err *e)
{
	struct guest_mem *m;
	int ret;

	if (bytes < MEM_ALIGN || bytes > MEM_MAX_BYTES || bytes % MEM_ALIGN)
		return err_set(e, ERR_USAGE, EINVAL,
			       "guest memory of %" PRIu64
			       " bytes: must be a multiple of 2 MiB, at least 2 MiB and at most "
			       "4 TiB",
			       bytes);
	m = calloc(1, sizeof(*m));
	if (!m)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory");
	m->bytes = bytes;
	m->fd = -1;
	pthread_mutex_init(&m->discard_lock, NULL);
	ret = build(m, e);
	if (ret < 0) {
		guest_mem_free(m);
		return ret;
	}
	*out = m;
	return 0;
}

void guest_mem_free(struct guest_mem *m)
{
	if (!m)
		return;
	pthread_mutex_destroy(&m->discard_lock);
	bitmap_fini(&m->discarded);
	bitmap_fini(&m->summary);
	bitmap_fini(&m->marks);
	if (m->base)
		munmap(m->base, m->end);
	if (m->fd >= 0)
		close(m->fd);
	free(m);
}

bool guest_mem_is_huge(const struct guest_mem *m)
{
	return m->huge;
}

uint64_t guest_mem_bytes(const struct guest_mem *m)
{
	return m->bytes;
}

uint64_t guest_mem_nr_gfns(const struct guest_mem *m)
{
	return m->end >> PAGE_SHIFT;
}

int guest_mem_fd(const struct guest_mem *m)
{
	return m->fd;
}

uint32_t guest_mem_nr_slots(const struct guest_mem *m)
{
	return m->nr_slots;
}

const struct mem_slot *guest_mem_slot(const struct guest_mem *m, uint32_t i)
{
	return i < m->nr_slots ? &m->slots[i] : NULL;
}

bool guest_mem_contains(const struct guest_mem *m, uint64_t gpa, uint64_t len)
{
	/* The slots do not touch each other, so a range that is all RAM lies in one of them. */
	for (uint32_t i = 0; i < m->nr_slots; i++) {
		const struct mem_slot *s = &m->slots[i];

		if (gpa >= s->gpa && gpa - s->gpa <= s->bytes && len <= s->bytes - (gpa - s->gpa))
			return true;
	}
	return false;
}

const void *guest_mem_at(const struct guest_mem *m, uint64_t gpa, uint64_t len)
{
	return guest_mem_contains(m, gpa, len) ? m->base + gpa : NULL;
}

void *guest_mem_at_rw(struct guest_mem *m, uint64_t gpa, uint64_t len)
{
	return guest_mem_contains(m, gpa, len) ? m->base + gpa : NULL;
}

static int not_ram(uint64_t gpa, uint64_t len, struct err *e)
{
	return err_set(e, ERR_STREAM, EFAULT,
		       "%" PRIu64 " bytes at guest address 0x%" PRIx64 " are not all RAM", len,
		       gpa);
}

int guest_mem_read(const struct guest_mem *m, uint64_t gpa, void *data, uint64_t len, struct err *e)
{
	const void *from = guest_mem_at(m, gpa, len);

	if (!from)
		return not_ram(gpa, len, e);
	memcpy(data, from, len);
	return 0;
}

int guest_mem_write(struct guest_mem *m, uint64_t gpa, const void *data, uint64_t len,
		    struct err *e)
{
	void *to = guest_mem_at_rw(m, gpa, len);

	if (!to)
		return not_ram(gpa, len, e);
	memcpy(to, data, len);
	guest_mem_mark(m, gpa, len);
	return 0;
}

void guest_mem_mark(struct guest_mem *m, uint64_t gpa, uint64_t len)
{
	if (len == 0 || !guest_mem_contains(m, gpa, len))
		return;
	for (uint64_t gfn = gpa >> PAGE_SHIFT; gfn <= (gpa + len - 1) >> PAGE_SHIFT; gfn++) {
		/* Mark, then summary: the other way round a taker could clear the summary bit,
		 * find no mark yet, and never come back for it. */
		bitmap_set_atomic(&m->marks, gfn);
		bitmap_set_atomic(&m->summary, gfn / 64);
	}
}

void guest_mem_take_marks(struct guest_mem *m, struct bitmap *set)
{
	for (uint64_t s = 0; s < bitmap_nr_words(&m->summary); s++) {
		uint64_t left = bitmap_take_word(&m->summary, s);

		while (left) {
			uint64_t word = s * 64 + (uint64_t)__builtin_ctzll(left);

			set->words[word] |= bitmap_take_word(&m->marks, word);
			left &= left - 1;
		}
	}
}

void guest_mem_drop_marks(struct guest_mem *m)
{
	for (uint64_t s = 0; s < bitmap_nr_words(&m->summary); s++) {
		uint64_t left = bitmap_take_word(&m->summary, s);

		for (; left; left &= left - 1)
			bitmap_take_word(&m->marks, s * 64 + (uint64_t)__builtin_ctzll(left));
	}
}

/* ---- Discarding ---- */

static bool punch(struct guest_mem *m, uint64_t gpa, uint64_t len)
{
	bool done;

	pthread_mutex_lock(&m->discard_lock);
	done = !m->nr_holds && fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					 (off_t)gpa, (off_t)len) == 0;
	pthread_mutex_unlock(&m->discard_lock);
	return done;
}

bool guest_mem_discard(struct guest_mem *m, uint64_t gpa, uint64_t len)
{
	if (len == 0 || (gpa | len) % PAGE_BYTES || !guest_mem_contains(m, gpa, len))
		return false;
	/* First the note that there may be holes: who reads it too early looks once too often. */
	for (uint64_t c = gpa / MEM_ALIGN; c <= (gpa + len - 1) / MEM_ALIGN; c++)
		bitmap_set_atomic(&m->discarded, c);
	if (!punch(m, gpa, len))
		return false;
	guest_mem_mark(m, gpa, len);
	return true;
}

bool guest_mem_is_discarded(const struct guest_mem *m, uint64_t gfn)
{
	off_t at = (off_t)(gfn << PAGE_SHIFT);
	uint64_t chunk = (uint64_t)at / MEM_ALIGN;
	uint64_t word = __atomic_load_n(&m->discarded.words[chunk / 64], __ATOMIC_ACQUIRE);
	off_t data;

	if (!(word >> (chunk % 64) & 1))
		return false;
	data = lseek(m->fd, at, SEEK_DATA);
	return data < 0 ? errno == ENXIO : data >= at + (off_t)PAGE_BYTES;
}

void guest_mem_hold(struct guest_mem *m)
{
	pthread_mutex_lock(&m->discard_lock);
	m->nr_holds++;
	pthread_mutex_unlock(&m->discard_lock);
}

void guest_mem_release(struct guest_mem *m)
{
	pthread_mutex_lock(&m->discard_lock);
	m->nr_holds--;
	pthread_mutex_unlock(&m->discard_lock);
}

/* ---- Finding what was touched ---- */

static bool find_data(const struct guest_mem *m, uint64_t from, struct mem_extent *found)
{
	off_t data = lseek(m->fd, (off_t)from, SEEK_DATA);
	off_t hole;

	if (data < 0 && errno == ENXIO)
		return false; /* nothing but hole up to the end of the file */
	/* A file system that cannot tell holes: everything may hold data. */
	found->start = data < 0 ? from : (uint64_t)data;
	hole = data < 0 ? -1 : lseek(m->fd, data, SEEK_HOLE);
	found->stop = hole < 0 ? m->end : (uint64_t)hole;
	return true;
}

bool guest_mem_next_data(const struct guest_mem *m, struct mem_extent *seen, uint64_t from,
			 uint64_t end, uint64_t *start, uint64_t *stop)
{
	struct mem_extent unused = {0};
	struct mem_extent *data = seen ? seen : &unused;

	if (end > m->end)
		end = m->end;
	if (from >= end)
		return false;
	if ((from < data->start || from >= data->stop) && !find_data(m, from, data))
		return false;
	*start = data->start > from ? data->start : from;
	*stop = data->stop < end ? data->stop : end;
	return *start < end;
}
