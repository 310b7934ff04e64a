#include "vmm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct required_cap {
	unsigned long cap;
	const char *name;
};

#define CAP(x)          \
	{               \
		(x), #x \
	}

static const struct required_cap required[] = {
	CAP(KVM_CAP_IRQCHIP),      CAP(KVM_CAP_USER_MEMORY),
	CAP(KVM_CAP_SET_TSS_ADDR), CAP(KVM_CAP_SET_IDENTITY_MAP_ADDR),
	CAP(KVM_CAP_PIT2),         CAP(KVM_CAP_PIT_STATE2),
	CAP(KVM_CAP_EXT_CPUID),    CAP(KVM_CAP_MP_STATE),
	CAP(KVM_CAP_ADJUST_CLOCK), CAP(KVM_CAP_VCPU_EVENTS),
	CAP(KVM_CAP_DEBUGREGS),    CAP(KVM_CAP_XSAVE),
	CAP(KVM_CAP_GET_TSC_KHZ),  CAP(KVM_CAP_IMMEDIATE_EXIT),
};

#define NR_REQUIRED (sizeof(required) / sizeof(required[0]))

const char *kvm_required_cap(uint32_t i, unsigned long *cap)
{
	if (i >= NR_REQUIRED)
		return NULL;
	*cap = required[i].cap;
	return required[i].name;
}

int kvm_check(int fd, unsigned long cap)
{
	int value = ioctl(fd, KVM_CHECK_EXTENSION, cap);

	return value < 0 ? 0 : value;
}

static int open_failed(struct err *e)
{
	switch (errno) {
	case ENOENT:
	case ENXIO:
	case ENODEV:
		return err_set(e, ERR_UNSUPPORTED, errno,
			       "no /dev/kvm on this host: load kvm_intel or kvm_amd, or enable "
			       "virtualization in the firmware (in a VM: nested virtualization); "
			       "without KVM use experiments/testbed/host");
	case EACCES:
	case EPERM:
		return err_set(e, ERR_SYS, errno,
			       "no permission to open /dev/kvm: join group kvm (sudo usermod -aG "
			       "kvm $USER, then log in again) or run as root");
	default:
		return err_sys(e, "cannot open /dev/kvm");
	}
}

static int check_host(int fd, struct err *e)
{
	int version = ioctl(fd, KVM_GET_API_VERSION, 0);

	if (version < 0)
		return err_sys(e, "/dev/kvm does not answer KVM_GET_API_VERSION");
	if (version != KVM_API_VERSION)
		return err_set(e, ERR_UNSUPPORTED, EPROTO,
			       "/dev/kvm speaks API version %d, godwit needs %d: use a Linux "
			       "kernel of this century",
			       version, KVM_API_VERSION);
	for (uint32_t i = 0; i < NR_REQUIRED; i++)
		if (!kvm_check(fd, required[i].cap))
			return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
				       "this host's KVM lacks %s, which godwit needs: use a newer "
				       "kernel (4.13 or later)",
				       required[i].name);
	return 0;
}

int kvm_open(int *kvm_fd, struct err *e)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return open_failed(e);
	ret = check_host(fd, e);
	if (ret < 0) {
		close(fd);
		return ret;
	}
	*kvm_fd = fd;
	return 0;
}

int kvm_supported_cpuid(int kvm_fd, struct kvm_cpuid2 **out, struct err *e)
{
	/* KVM says E2BIG without saying how big; its own limit is KVM_MAX_CPUID_ENTRIES, 256. */
	uint32_t nr = 256;
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + nr * sizeof(struct kvm_cpuid_entry2));

	if (!c)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for CPUID");
	c->nent = nr;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, c) < 0) {
		free(c);
		return err_sys(e, "KVM_GET_SUPPORTED_CPUID");
	}
	*out = c;
	return 0;
}

int kvm_msr_index_list(int kvm_fd, uint32_t **indices, uint32_t *nr, struct err *e)
{
	struct kvm_msr_list count = {.nmsrs = 0};
	struct kvm_msr_list *list;

	/* The first call fails with E2BIG and tells the number (KVM API document, 4.3). */
	if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, &count) < 0 && errno != E2BIG)
		return err_sys(e, "KVM_GET_MSR_INDEX_LIST");
	list = calloc(1, sizeof(*list) + count.nmsrs * sizeof(uint32_t));
	if (!list)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for the MSR list");
	list->nmsrs = count.nmsrs;
	if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, list) < 0) {
		free(list);
		return err_sys(e, "KVM_GET_MSR_INDEX_LIST");
	}
	*nr = list->nmsrs;
	/* Hand the bare array out: move it over the count, so that it can be freed. */
	memmove(list, list->indices, *nr * sizeof(uint32_t));
	*indices = (uint32_t *)list;
	return 0;
}
