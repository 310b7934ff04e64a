#include "migration/disk_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int bad_list(const char *copy, struct err *e)
{
	return err_set(e, ERR_USAGE, EINVAL,
		       "disks to copy: '%.60s' is neither 'all' nor a list of disks such as 0,2",
		       copy);
}

int disk_set_parse(const char *copy, uint64_t *mask, struct err *e)
{
	*mask = strcmp(copy, "all") == 0 ? UINT64_MAX : 0;
	if (*mask || !*copy)
		return 0;
	for (const char *at = copy;; at++) {
		char *end;
		unsigned long i = *at < '0' || *at > '9' ? DISK_SET_MAX : strtoul(at, &end, 10);

		if (i >= DISK_SET_MAX || (*end && *end != ','))
			return bad_list(copy, e);
		*mask |= 1ull << i;
		at = end;
		if (!*at)
			return 0;
	}
}

int disk_set_init(struct disk_set *set, struct vm *vm, const char *copy, struct err *e)
{
	uint32_t nr = vm_nr_disks(vm);
	uint64_t mask = 0;

	if (disk_set_parse(copy, &mask, e) < 0)
		return -e->code;
	if (mask != UINT64_MAX && mask >> nr)
		return err_set(e, ERR_USAGE, EINVAL,
			       "disks to copy: '%.60s', but the guest has %u (the first is 0)",
			       copy, nr);
	*set = (struct disk_set){.nr = nr};
	for (uint32_t i = 0; i < set->nr; i++) {
		set->at[i].disk = vm_disk(vm, i);
		set->at[i].copy = mask >> i & 1;
	}
	return 0;
}

bool disk_set_has_copies(const struct disk_set *set)
{
	bool any = false;

	for (uint32_t i = 0; i < set->nr; i++)
		any |= set->at[i].copy;
	return any;
}
