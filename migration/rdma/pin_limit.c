#include "migration/rdma/pin_limit.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <linux/capability.h>

/* Queues and doorbells of real adapters are pinned memory, too; it is not much. */
#define RESERVE_BYTES (1ull << 20)

static bool starts_with(const char *line, const char *name, const char **rest)
{
	size_t len = strlen(name);

	*rest = line + len;
	return strncmp(line, name, len) == 0;
}

/* VmPin and the effective capabilities of this process. */
static int read_status(uint64_t *pinned_kib, uint64_t *capabilities, struct err *e)
{
	FILE *f = fopen("/proc/self/status", "re");
	const char *value;
	char line[256];

	if (!f)
		return err_sys(e, "cannot read /proc/self/status");
	while (fgets(line, sizeof(line), f)) {
		if (starts_with(line, "VmPin:", &value))
			*pinned_kib = strtoull(value, NULL, 10);
		if (starts_with(line, "CapEff:", &value))
			*capabilities = strtoull(value, NULL, 16);
	}
	fclose(f);
	return 0;
}

int pin_limit_probe(struct pin_limit *out, struct err *e)
{
	uint64_t pinned_kib = 0;
	uint64_t capabilities = 0;
	struct rlimit rl;

	if (getrlimit(RLIMIT_MEMLOCK, &rl) < 0)
		return err_sys(e, "getrlimit");
	if (read_status(&pinned_kib, &capabilities, e) < 0)
		return -e->code;
	*out = (struct pin_limit){.unlimited = rl.rlim_cur == RLIM_INFINITY ||
					       capabilities >> CAP_IPC_LOCK & 1,
				  .limit_bytes = rl.rlim_cur,
				  .pinned_bytes = pinned_kib * 1024};
	return 0;
}

int pin_limit_apply(const struct pin_limit *limit, uint64_t want_bytes, uint32_t nr_channels,
		    uint64_t *budget_bytes, bool *shrunk, struct err *e)
{
	uint64_t least = nr_channels * PIN_MIN_CHANNEL_BYTES;
	uint64_t taken = limit->pinned_bytes + RESERVE_BYTES;
	uint64_t allowed = limit->limit_bytes > taken ? limit->limit_bytes - taken : 0;

	if (limit->unlimited)
		allowed = PIN_ALL;
	if (allowed < least)
		return err_set(
			e, ERR_SYS, ENOMEM,
			"RDMA: this process may pin %llu KiB (RLIMIT_MEMLOCK) and has pinned %llu; "
			"%u "
			"channel%s need %llu. Start it after 'ulimit -l %llu', with "
			"LimitMEMLOCK=infinity in its systemd unit, or with CAP_IPC_LOCK",
			(unsigned long long)limit->limit_bytes / 1024,
			(unsigned long long)limit->pinned_bytes / 1024, nr_channels,
			nr_channels == 1 ? "" : "s", (unsigned long long)least / 1024,
			(unsigned long long)(taken + (want_bytes == PIN_ALL ? least : want_bytes)) /
				1024);
	*shrunk = allowed < want_bytes;
	*budget_bytes = *shrunk ? allowed : want_bytes;
	return 0;
}
