#include "vmm/bus.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A board has some twenty ranges; a sorted array beats anything cleverer. */
#define BUS_MAX_RANGES 64

struct bus_range {
	uint64_t base;
	uint64_t len;
	const char *name;
	const struct bus_ops *ops;
	void *ctx;
};

struct bus_map {
	uint32_t nr;
	struct bus_range ranges[BUS_MAX_RANGES]; /* ascending base, no overlap */
};

struct bus {
	/* immutable once vCPUs run */
	struct bus_map maps[2]; /* by enum bus_space */
};

int bus_new(struct bus **out, struct err *e)
{
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for the I/O bus");
	return 0;
}

void bus_free(struct bus *b)
{
	free(b);
}

/* Index of the first range that ends above @addr; map->nr if there is none. */
static uint32_t first_above(const struct bus_map *map, uint64_t addr)
{
	uint32_t low = 0;
	uint32_t high = map->nr;

	while (low < high) {
		uint32_t mid = (low + high) / 2;
		const struct bus_range *r = &map->ranges[mid];

		if (r->base + (r->len - 1) < addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int check_range(const struct bus_map *map, uint64_t base, uint64_t len, const char *name,
		       struct err *e)
{
	uint32_t at = first_above(map, base);

	if (len == 0 || base + (len - 1) < base)
		return err_set(e, ERR_STATE, EINVAL, "%s: an I/O range of length %" PRIu64, name,
			       len);
	if (map->nr == BUS_MAX_RANGES)
		return err_set(e, ERR_STATE, ENOSPC, "%s: more than %d I/O ranges", name,
			       BUS_MAX_RANGES);
	if (at < map->nr && map->ranges[at].base <= base + (len - 1))
		return err_set(e, ERR_STATE, EBUSY, "%s: I/O address 0x%" PRIx64 " belongs to %s",
			       name, base, map->ranges[at].name);
	return 0;
}

int bus_add(struct bus *b, enum bus_space space, uint64_t base, uint64_t len, const char *name,
	    const struct bus_ops *ops, void *ctx, struct err *e)
{
	struct bus_map *map = &b->maps[space];
	int ret = check_range(map, base, len, name, e);
	uint32_t at;

	if (ret < 0)
		return ret;
	at = first_above(map, base);
	memmove(&map->ranges[at + 1], &map->ranges[at], (map->nr - at) * sizeof(map->ranges[0]));
	map->ranges[at] =
		(struct bus_range){.base = base, .len = len, .name = name, .ops = ops, .ctx = ctx};
	map->nr++;
	return 0;
}

/* The range that holds all of [addr, addr + len): an access across an edge is nobody's. */
static const struct bus_range *find(const struct bus *b, enum bus_space space, uint64_t addr,
				    uint32_t len)
{
	const struct bus_map *map = &b->maps[space];
	uint32_t at = first_above(map, addr);
	const struct bus_range *r = &map->ranges[at];

	if (at == map->nr || addr < r->base || len > r->len - (addr - r->base))
		return NULL;
	return r;
}

void bus_read(struct bus *b, enum bus_space space, uint64_t addr, void *data, uint32_t len)
{
	const struct bus_range *r = find(b, space, addr, len);

	if (r && r->ops->read)
		r->ops->read(r->ctx, addr - r->base, data, len);
	else
		memset(data, 0xff, len);
}

void bus_write(struct bus *b, enum bus_space space, uint64_t addr, const void *data, uint32_t len)
{
	const struct bus_range *r = find(b, space, addr, len);

	if (r && r->ops->write)
		r->ops->write(r->ctx, addr - r->base, data, len);
}
