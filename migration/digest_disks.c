/* The disks' part of a digest (migration/digest.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "migration/digest.h"
#include "migration/zero_page.h"
#include "vmm/block/disk.h"
#include "vmm/mem.h"

#define PIECE_BYTES (256u << 10)

/* One piece of a disk; the last block may be short, and is then filled up with zeroes. */
static void add_piece(const uint8_t *data, size_t len, uint64_t seed, struct digest *out)
{
	for (size_t at = 0; at < len; at += PAGE_BYTES) {
		XXH128_hash_t h;

		if (page_is_zero(data + at))
			continue;
		h = XXH3_128bits_withSeed(data + at, PAGE_BYTES, seed + at / PAGE_BYTES);
		out->disk_low += h.low64;
		out->disk_high += h.high64;
	}
}

static int read_piece(struct disk *d, uint64_t from, uint8_t *data, size_t len, struct err *e)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(disk_fd(d), data + done, len - done, (off_t)(from + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(e, "cannot read disk image %s to verify it", disk_path(d));
		done += (size_t)n;
	}
	return 0;
}

static int add_disk(struct disk *d, uint8_t *data, uint64_t seed, struct digest *out, struct err *e)
{
	uint64_t end = disk_bytes(d);
	uint64_t from = 0;
	uint64_t stop;

	for (;;) {
		size_t len;
		size_t whole;

		disk_next_data(d, from, end, &from, &stop);
		if (from >= end)
			return 0;
		from = from / PAGE_BYTES * PAGE_BYTES;
		len = end - from < PIECE_BYTES ? (size_t)(end - from) : PIECE_BYTES;
		whole = (len + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
		if (read_piece(d, from, data, len, e) < 0)
			return -e->code;
		memset(data + len, 0, whole - len);
		add_piece(data, whole, seed + from / PAGE_BYTES, out);
		from += whole;
	}
}

int digest_disks(struct vm *vm, struct digest *out, struct err *e)
{
	uint8_t *data = aligned_alloc(PAGE_BYTES, PIECE_BYTES);
	int ret = 0;

	if (!data)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for the disks' digest");
	out->nr_disks = vm_nr_disks(vm);
	for (uint32_t i = 0; i < out->nr_disks && ret == 0; i++)
		ret = add_disk(vm_disk(vm, i), data, (uint64_t)i << 48, out, e);
	free(data);
	return ret;
}
