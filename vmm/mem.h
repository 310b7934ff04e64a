/*
 * Guest memory: one memfd (or a file like it, vmm/mem_file.h) per VM in which the offset IS the
 * guest-physical address.
 *
 * The file is as long as the highest address; the PCI hole (3-4 GiB) is simply never touched and
 * costs nothing. So one number names a page everywhere: its gfn, its bit in every bitmap, its
 * offset in the file and in the mapping. Why a memfd: lseek(SEEK_DATA) finds memory that was never
 * touched without touching it, sendfile() sends pages without copying, and the file can be passed.
 *
 * The VM owns it; immutable after new except for the bytes themselves. Any thread.
 *
 * Invariant (a migrated byte depends on it): every write by the VMM itself goes through
 * guest_mem_write() or is followed by guest_mem_mark(). Dirty = what KVM logged OR what is marked
 * here. The mark comes AFTER the write: marked first, a collector could take the mark, send the old
 * bytes, and lose the write.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/bitmap.h"
#include "vmm/base/err.h"

#define PAGE_SHIFT     12
#define PAGE_BYTES     (1ull << PAGE_SHIFT)
#define MEM_HOLE_START (3ull << 30) /* MMIO below 4 GiB: LAPIC, IOAPIC, virtio windows */
#define MEM_HOLE_END   (4ull << 30)
#define MEM_MAX_BYTES  (4ull << 40)
#define MEM_MAX_SLOTS  2

struct guest_mem;

/* A KVM memory slot: RAM at guest-physical @gpa; @index is KVM's slot number. */
struct mem_slot {
	uint32_t index;
	uint64_t gpa;
	uint64_t bytes;
};

/* @bytes of RAM, a multiple of 2 MiB from 2 MiB to MEM_MAX_BYTES. Allocates nothing of it. */
int guest_mem_new(uint64_t bytes, struct guest_mem **out, struct err *e);
void guest_mem_free(struct guest_mem *m);

uint64_t guest_mem_bytes(const struct guest_mem *m);
/* One past the highest gfn; the length of every bitmap over this memory. */
uint64_t guest_mem_nr_gfns(const struct guest_mem *m);
int guest_mem_fd(const struct guest_mem *m);
/* Is it made of huge pages (vmm/mem_file.h)? Then touching a page touches its 2 MiB. */
bool guest_mem_is_huge(const struct guest_mem *m);
uint32_t guest_mem_nr_slots(const struct guest_mem *m);
const struct mem_slot *guest_mem_slot(const struct guest_mem *m, uint32_t i);

/* Is all of [gpa, gpa + len) RAM? Safe against overflow. */
bool guest_mem_contains(const struct guest_mem *m, uint64_t gpa, uint64_t len);

/* The address of [gpa, gpa + len), or NULL if that is not RAM of one slot. The first is for
 * reading; whoever writes through the second calls guest_mem_mark() after the write. */
const void *guest_mem_at(const struct guest_mem *m, uint64_t gpa, uint64_t len);
void *guest_mem_at_rw(struct guest_mem *m, uint64_t gpa, uint64_t len);

int guest_mem_read(const struct guest_mem *m, uint64_t gpa, void *data, uint64_t len,
		   struct err *e);
int guest_mem_write(struct guest_mem *m, uint64_t gpa, const void *data, uint64_t len,
		    struct err *e);

void guest_mem_mark(struct guest_mem *m, uint64_t gpa, uint64_t len);

/*
 * Give whole pages of RAM back to the host: from here on they read as zeroes and cost nothing until
 * they are written again. They are marked, after that, like any write: whoever has sent the old
 * bytes sends the zeroes too. False: the pages are as they were, because the host cannot or because
 * memory is held. Any thread.
 */
bool guest_mem_discard(struct guest_mem *m, uint64_t gpa, uint64_t len);

/* Was this page discarded, and nothing written to it since? Then reading it through the mapping
 * would allocate it. Costs a system call where anything near it was ever discarded. Any thread. */
bool guest_mem_is_discarded(const struct guest_mem *m, uint64_t gfn);

/* While memory is held (a count), nothing is discarded: for whoever has pages pinned and would go
 * on using the pages that were there before. Any thread. */
void guest_mem_hold(struct guest_mem *m);
void guest_mem_release(struct guest_mem *m);

/* Move all marks into @set (ORed), leaving none. A write racing with this is either in @set or
 * still marked. Any thread. */
void guest_mem_take_marks(struct guest_mem *m, struct bitmap *set);

/* Forget all marks, for whoever is going to look at everything anyway. */
void guest_mem_drop_marks(struct guest_mem *m);

/* What a walk over the data has seen last: bytes [start, stop) hold data. Zero-initialised:
 * nothing. */
struct mem_extent {
	uint64_t start;
	uint64_t stop;
};

/*
 * The next range of [from, end) (byte offsets) that may hold data; false if there is none. Memory
 * outside was never touched and reads as zeroes.
 *
 * @seen, if not NULL, belongs to the walk: the kernel looks for the end of an extent page by page,
 * so asking chunk by chunk would look over the rest of memory for every chunk. Holes are always
 * looked up anew: memory that was touched is never missed. What was data may have been discarded
 * since it was seen; it then reads as zeroes, which is what it holds.
 */
bool guest_mem_next_data(const struct guest_mem *m, struct mem_extent *seen, uint64_t from,
			 uint64_t end, uint64_t *start, uint64_t *stop);
