#include "vmm/blank.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/irqchip.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"

static int create_vm(struct vm_blank *b, struct err *e)
{
	do {
		b->vm_fd = ioctl(b->kvm_fd, KVM_CREATE_VM, 0);
	} while (b->vm_fd < 0 && errno == EINTR); /* a signal while KVM waits for its lock */
	return b->vm_fd < 0 ? err_sys(e, "KVM cannot create a virtual machine") : 0;
}

int vm_blank_new(struct vm_blank **out, struct err *e)
{
	struct vm_blank *b = malloc(sizeof(*b));
	int ret;

	if (!b)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for a machine");
	*b = (struct vm_blank){-1, -1, -1};
	ret = kvm_open(&b->kvm_fd, e);
	if (ret == 0)
		ret = create_vm(b, e);
	if (ret == 0)
		ret = irqchip_create(b->vm_fd, e);
	if (ret == 0) /* after the chips: its local one is part of them */
		ret = vcpu_create(b->vm_fd, 0, &b->vcpu_fd, e);
	if (ret < 0) {
		vm_blank_free(b);
		return ret;
	}
	*out = b;
	return 0;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void vm_blank_free(struct vm_blank *b)
{
	if (!b)
		return;
	close_fd(b->vcpu_fd);
	close_fd(b->vm_fd);
	close_fd(b->kvm_fd);
	free(b);
}
