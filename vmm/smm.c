#include "vmm/smm.h"

#include <linux/kvm.h>

#include "vmm/kvm.h"
#include "vmm/vcpu_msrs.h"
#include "vmm/vm.h"

#define MSR_SMBASE 0x9eu
#define SAVE_END   0x10000u /* from SMBASE */
#define VIDEO_END  0xc0000u

_Static_assert(SMM_BASE(VM_MAX_CPUS - 1) + SAVE_END <= VIDEO_END, "each CPU has its save area");

uint32_t smm_nr_address_spaces(int vm_fd)
{
	return kvm_check(vm_fd, KVM_CAP_X86_SMM) &&
			       kvm_check(vm_fd, KVM_CAP_MULTI_ADDRESS_SPACE) >= 2
		       ? 2
		       : 1;
}

int smm_set_base(int vcpu_fd, uint32_t cpu, struct err *e)
{
	return msr_set(vcpu_fd, MSR_SMBASE, SMM_BASE(cpu), e);
}

int smm_put_handlers(struct guest_mem *mem, uint32_t nr_cpus, struct err *e)
{
	static const uint8_t rsm[] = {0x0f, 0xaa};
	int ret = 0;

	for (uint32_t i = 0; i < nr_cpus && ret == 0; i++)
		ret = guest_mem_write(mem, SMM_BASE(i) + SMM_ENTRY, rsm, sizeof(rsm), e);
	return ret;
}
