/*
 * Asks /dev/kvm what the testbed promises: the API version, a VM, a vCPU, and the
 * capabilities that need a complete KVM. Prints "kvm api=12 nested_state=4224
 * dirty_ring=65536 svm=1" and exits 0, or says what is missing and exits 1.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int fail(const char *what)
{
	printf("kvm-probe: %s: %s\n", what, strerror(errno));
	return 1;
}

int main(void)
{
	unsigned int a, b, c = 0, d;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm, vcpu;

	if (kvm < 0)
		return fail("/dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return fail("KVM_CREATE_VM");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		return fail("KVM_CREATE_VCPU");
	__get_cpuid(0x80000001, &a, &b, &c, &d);
	printf("kvm api=%d nested_state=%d dirty_ring=%d svm=%u\n",
	       ioctl(kvm, KVM_GET_API_VERSION, 0),
	       ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_NESTED_STATE),
	       ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING), c >> 2 & 1);
	return 0;
}
