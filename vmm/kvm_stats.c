#include "vmm/kvm_stats.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MAX_NAME_BYTES 256u

static bool read_at(int fd, void *to, size_t len, int64_t offset)
{
	return pread(fd, to, len, offset) == (ssize_t)len;
}

/* Where in the file the number called @name is; negative: nowhere. */
static int64_t find(int fd, const char *name)
{
	struct kvm_stats_header h;
	union {
		struct kvm_stats_desc desc;
		char room[sizeof(struct kvm_stats_desc) + MAX_NAME_BYTES];
	} u;

	if (!read_at(fd, &h, sizeof(h), 0) || h.name_size > MAX_NAME_BYTES)
		return -1;
	for (uint32_t i = 0; i < h.num_desc; i++) {
		size_t bytes = sizeof(u.desc) + h.name_size;

		if (!read_at(fd, &u, bytes, h.desc_offset + (int64_t)(i * bytes)))
			return -1;
		u.room[bytes - 1] = '\0';
		if (!strcmp(u.room + sizeof(u.desc), name))
			return (int64_t)h.data_offset + u.desc.offset;
	}
	return -1;
}

int kvm_stat_open(int vcpu_fd, const char *name, struct kvm_stat *out, struct err *e)
{
	out->fd = ioctl(vcpu_fd, KVM_GET_STATS_FD, NULL);
	if (out->fd < 0)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "KVM has no binary statistics here: use Linux 5.14 or later");
	out->offset = find(out->fd, name);
	if (out->offset >= 0)
		return 0;
	kvm_stat_close(out);
	return err_set(e, ERR_UNSUPPORTED, ENOTSUP, "KVM counts no '%s'", name);
}

void kvm_stat_close(struct kvm_stat *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

uint64_t kvm_stat_read(const struct kvm_stat *s)
{
	uint64_t value;

	return s->fd >= 0 && read_at(s->fd, &value, sizeof(value), s->offset) ? value : 0;
}
