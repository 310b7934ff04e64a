#include "vmm/base/host_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 1024

/* One generation of control groups: where its files are and what they are called. */
struct hierarchy {
	const char *mount;
	const char *limit;
	const char *usage;
	const char *reclaimable; /* in memory.stat: page cache that nobody has looked at lately */
};

static const struct hierarchy v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
				    "memory.usage_in_bytes", "total_inactive_file "};
static const struct hierarchy v2 = {"/sys/fs/cgroup", "memory.max", "memory.current",
				    "inactive_file "};

/* The number behind the line's first word @key ("" for a file of one number). */
static bool read_number(const char *path, const char *key, uint64_t *out)
{
	FILE *f = fopen(path, "re");
	char line[256];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		const char *number = line + strlen(key);
		char *end;

		if (strncmp(line, key, strlen(key)) != 0)
			continue;
		*out = strtoull(number, &end, 10);
		found = end != number;
	}
	if (f)
		fclose(f);
	return found;
}

static uint64_t in_meminfo(const char *root, const char *key, uint64_t otherwise)
{
	char path[PATH_BYTES];
	uint64_t kib;

	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	return read_number(path, key, &kib) ? kib << 10 : otherwise;
}

static bool read_file(const char *root, const struct hierarchy *h, const char *group,
		      const char *file, const char *key, uint64_t *out)
{
	char path[PATH_BYTES];

	if (snprintf(path, sizeof(path), "%s%s%s/%s", root, h->mount, group, file) >=
	    (int)sizeof(path))
		return false;
	return read_number(path, key, out);
}

/* "max" and files that are not there are no limit. */
static void heed_group(const char *root, const struct hierarchy *h, const char *group,
		       struct host_memory *m)
{
	uint64_t reclaimable = 0;
	uint64_t limit;
	uint64_t usage;
	uint64_t left;

	if (!read_file(root, h, group, h->limit, "", &limit) ||
	    !read_file(root, h, group, h->usage, "", &usage))
		return;
	(void)read_file(root, h, group, "memory.stat", h->reclaimable, &reclaimable);
	usage = usage > reclaimable ? usage - reclaimable : 0;
	left = limit > usage ? limit - usage : 0;
	if (left < m->available_bytes)
		*m = (struct host_memory){.available_bytes = left, .limited = true};
}

/* A group's limit holds for all below it. */
static void heed_groups_above(const char *root, const struct hierarchy *h, char *group,
			      struct host_memory *m)
{
	char *slash;

	do {
		heed_group(root, h, group, m);
		slash = strrchr(group, '/');
		if (slash)
			*slash = '\0';
	} while (slash);
}

/* Lines of /proc/self/cgroup: "4:memory:/path" (v1), "0::/path" (v2). */
static void heed_line(const char *root, char *line, struct host_memory *m)
{
	char *controllers = strchr(line, ':');
	char *group = controllers ? strchr(controllers + 1, ':') : NULL;

	if (!group)
		return;
	*group++ = '\0';
	group[strcspn(group, "\n")] = '\0';
	if (!strcmp(controllers + 1, "memory"))
		heed_groups_above(root, &v1, group, m);
	else if (!controllers[1])
		heed_groups_above(root, &v2, group, m);
}

void host_memory_read(const char *root, struct host_memory *out)
{
	char line[PATH_BYTES];
	uint64_t swap = in_meminfo(root, "SwapFree:", 0);
	FILE *f;

	*out = (struct host_memory){in_meminfo(root, "MemAvailable:", UINT64_MAX), false};
	snprintf(line, sizeof(line), "%s/proc/self/cgroup", root);
	f = fopen(line, "re");
	while (f && fgets(line, sizeof(line), f))
		heed_line(root, line, out);
	if (f)
		fclose(f);
	if (out->available_bytes < UINT64_MAX - swap)
		out->available_bytes += swap;
}
