#include "vmm/vcpu_msrs.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/kvm.h"

/* KVM takes fewer than MAX_IO_MSRS (256) in one call and answers E2BIG above. */
#define MSR_BATCH 255

#define MSR_IA32_MC0_CTL 0x400u

struct msr_batch {
	struct kvm_msrs head;
	struct kvm_msr_entry entries[MSR_BATCH];
};

/* Kept by KVM for each vCPU and not in its index list, which holds only what KVM itself thinks of
 * as needing special care: memory type ranges and machine-check banks (kvm_set_msr_common). */
static const uint32_t unlisted[] = {
	0x2ff, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d,
	0x26e, 0x26f, 0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207,
	0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f, 0x277, 0x1a0,
};

static const struct {
	uint32_t index;
	const char *name;
} names[] = {
	{0x10, "IA32_TSC"},
	{0x11, "KVM_WALL_CLOCK"},
	{0x12, "KVM_SYSTEM_TIME"},
	{0x34, "SMI_COUNT"},
	{0x3a, "IA32_FEATURE_CONTROL"},
	{0x3b, "IA32_TSC_ADJUST"},
	{0x48, "IA32_SPEC_CTRL"},
	{0x8b, "IA32_BIOS_SIGN_ID"},
	{0x9e, "IA32_SMBASE"},
	{0xce, "PLATFORM_INFO"},
	{0xe1, "IA32_UMWAIT_CONTROL"},
	{0x10a, "IA32_ARCH_CAPABILITIES"},
	{0x122, "IA32_TSX_CTRL"},
	{0x140, "MISC_FEATURES_ENABLES"},
	{0x174, "IA32_SYSENTER_CS"},
	{0x175, "IA32_SYSENTER_ESP"},
	{0x176, "IA32_SYSENTER_EIP"},
	{0x17a, "IA32_MCG_STATUS"},
	{0x17b, "IA32_MCG_CTL"},
	{0x1a0, "IA32_MISC_ENABLE"},
	{0x1c4, "IA32_XFD"},
	{0x1c5, "IA32_XFD_ERR"},
	{0x1d9, "IA32_DEBUGCTL"},
	{0x1db, "LASTBRANCHFROMIP"},
	{0x1dc, "LASTBRANCHTOIP"},
	{0x1dd, "LASTINTFROMIP"},
	{0x1de, "LASTINTTOIP"},
	{0x1fc, "POWER_CTL"},
	{0x277, "IA32_PAT"},
	{0x2ff, "IA32_MTRR_DEF_TYPE"},
	{0x345, "IA32_PERF_CAPABILITIES"},
	{0x4d0, "IA32_MCG_EXT_CTL"},
	{0x6e0, "IA32_TSC_DEADLINE"},
	{0xd90, "IA32_BNDCFGS"},
	{0xda0, "IA32_XSS"},
	{0x4b564d00, "KVM_WALL_CLOCK_NEW"},
	{0x4b564d01, "KVM_SYSTEM_TIME_NEW"},
	{0x4b564d02, "KVM_ASYNC_PF_EN"},
	{0x4b564d03, "KVM_STEAL_TIME"},
	{0x4b564d04, "KVM_PV_EOI_EN"},
	{0x4b564d05, "KVM_POLL_CONTROL"},
	{0x4b564d06, "KVM_ASYNC_PF_INT"},
	{0x4b564d07, "KVM_ASYNC_PF_ACK"},
	{0x4b564d08, "KVM_MIGRATION_CONTROL"},
	{0xc0000080, "EFER"},
	{0xc0000081, "STAR"},
	{0xc0000082, "LSTAR"},
	{0xc0000083, "CSTAR"},
	{0xc0000084, "SYSCALL_MASK"},
	{0xc0000102, "KERNEL_GS_BASE"},
	{0xc0000103, "TSC_AUX"},
	{0xc0010015, "AMD HWCR"},
	{0xc0010117, "AMD VM_HSAVE_PA"},
	{0xc001011f, "AMD VIRT_SPEC_CTRL"},
	{0xc0010140, "AMD OSVW_ID_LENGTH"},
	{0xc0010141, "AMD OSVW_STATUS"},
};

const char *msr_name(uint32_t index)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].index == index)
			return names[i].name;
	if (index >= MSR_IA32_MC0_CTL && index < MSR_IA32_MC0_CTL + 4 * 32)
		return "a machine-check bank register";
	if (index >= 0x200 && index <= 0x26f)
		return "a memory type range register";
	if ((index >= 0xc1 && index <= 0xc8) || (index >= 0x186 && index <= 0x18d) ||
	    (index >= 0x309 && index <= 0x390) || (index >= 0xc0010000 && index <= 0xc0010007))
		return "a performance counter register";
	if (index >= 0x480 && index <= 0x491)
		return "a VMX capability register";
	return "an MSR without a name here";
}

static int get_one(int vcpu_fd, uint32_t index, uint64_t *value)
{
	struct msr_batch one = {.head.nmsrs = 1, .entries[0].index = index};
	int nr = ioctl(vcpu_fd, KVM_GET_MSRS, &one);

	*value = one.entries[0].data;
	return nr;
}

static int set_one(int vcpu_fd, uint32_t index, uint64_t value)
{
	struct msr_batch one = {.head.nmsrs = 1, .entries[0] = {.index = index, .data = value}};

	return ioctl(vcpu_fd, KVM_SET_MSRS, &one);
}

static int refused(const char *what, uint32_t index, uint64_t value, struct err *e)
{
	return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
		       "this host's KVM refuses to %s MSR 0x%x (%s), value 0x%" PRIx64, what, index,
		       msr_name(index), value);
}

int msr_get(int vcpu_fd, uint32_t index, uint64_t *value, struct err *e)
{
	int nr = get_one(vcpu_fd, index, value);

	if (nr < 0)
		return err_sys(e, "KVM_GET_MSRS");
	return nr == 1 ? 0 : refused("read", index, 0, e);
}

int msr_set(int vcpu_fd, uint32_t index, uint64_t value, struct err *e)
{
	int nr = set_one(vcpu_fd, index, value);

	if (nr < 0)
		return err_sys(e, "KVM_SET_MSRS");
	return nr == 1 ? 0 : refused("set", index, value, e);
}

/*
 * Left out though KVM lists them:
 *  - the TSC and its deadline, which have their own places in the order;
 *  - KVM_WALL_CLOCK: a write makes KVM store the time of day into guest memory
 * (kvm_write_wall_clock), which would change a page of the destination after it was received.
 * Guests write it whenever they want the time and never read it;
 *  - performance counters: vmm/cpuid.c hides them from the guest;
 *  - Hyper-V's: the guest's CPUID does not offer that interface, and two of them are clocks.
 */
static bool excluded(uint32_t index)
{
	static const struct {
		uint32_t first, last;
	} ranges[] = {
		{MSR_TSC, MSR_TSC},
		{MSR_TSC_DEADLINE, MSR_TSC_DEADLINE},
		{0x11, 0x11},
		{0x4b564d00, 0x4b564d00},
		{0xc1, 0xc8},
		{0x186, 0x18d},
		{0x1a6, 0x1a7},
		{0x309, 0x30c},
		{0x345, 0x345},
		{0x38d, 0x390},
		{0x3f1, 0x3f2},
		{0x600, 0x600},
		{0x40000000, 0x400001ff},
		{0xc0000300, 0xc0000302},
		{0xc0010200, 0xc001020b},
	};

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		if (index >= ranges[i].first && index <= ranges[i].last)
			return true;
	return false;
}

static bool listed(const struct msr_values *v, uint32_t index)
{
	for (uint32_t i = 0; i < v->nr; i++)
		if (v->index[i] == index)
			return true;
	return false;
}

static void consider(struct msr_values *v, uint32_t index)
{
	if (!excluded(index) && v->nr < VCPU_MAX_MSRS && !listed(v, index))
		v->index[v->nr++] = index;
}

static int list_candidates(int kvm_fd, struct msr_values *v, struct err *e)
{
	uint32_t *indices;
	uint32_t nr;
	int ret = kvm_msr_index_list(kvm_fd, &indices, &nr, e);

	if (ret < 0)
		return ret;
	for (uint32_t i = 0; i < nr; i++)
		consider(v, indices[i]);
	free(indices);
	for (size_t i = 0; i < sizeof(unlisted) / sizeof(unlisted[0]); i++)
		consider(v, unlisted[i]);
	for (uint32_t i = 0; i < 4 * VCPU_NR_MCE_BANKS; i++)
		consider(v, MSR_IA32_MC0_CTL + i);
	return 0;
}

/* KVM_GET_MSRS or KVM_SET_MSRS for as many of @v from @at on as one call takes. How many KVM took:
 * it stops at the first that it does not. */
static int transfer(int vcpu_fd, unsigned long request, const struct msr_values *v, uint32_t at,
		    struct msr_batch *b)
{
	b->head.nmsrs = v->nr - at < MSR_BATCH ? v->nr - at : MSR_BATCH;
	for (uint32_t i = 0; i < b->head.nmsrs; i++)
		b->entries[i] =
			(struct kvm_msr_entry){.index = v->index[at + i], .data = v->value[at + i]};
	return ioctl(vcpu_fd, request, b);
}

/* Keep of @v what KVM takes. */
static int sift(int vcpu_fd, unsigned long request, struct msr_values *v, struct err *e)
{
	uint32_t nr_kept = 0;
	struct msr_batch b;

	for (uint32_t at = 0; at < v->nr;) {
		int nr = transfer(vcpu_fd, request, v, at, &b);

		if (nr < 0)
			return err_sys(e, "trying out which MSRs KVM takes");
		for (uint32_t i = 0; i < (uint32_t)nr; i++, nr_kept++) {
			v->index[nr_kept] = b.entries[i].index;
			v->value[nr_kept] = b.entries[i].data;
		}
		at += (uint32_t)nr + ((uint32_t)nr < b.head.nmsrs);
	}
	v->nr = nr_kept;
	return 0;
}

/* A register that cannot be read has no state; one that does not take back what it reads as is a
 * fact about the host, not state of the guest. */
int msr_list_probe(int kvm_fd, int vcpu_fd, struct msr_list *out, struct err *e)
{
	struct msr_values v = {.nr = 0};
	uint64_t deadline;
	int ret = list_candidates(kvm_fd, &v, e);

	if (ret == 0)
		ret = sift(vcpu_fd, KVM_GET_MSRS, &v, e);
	if (ret == 0)
		ret = sift(vcpu_fd, KVM_SET_MSRS, &v, e);
	if (ret < 0)
		return ret;
	out->nr = v.nr;
	memcpy(out->index, v.index, v.nr * sizeof(v.index[0]));
	/* Last, because loading goes in this order: the deadline arms a timer by the TSC and by
	 * the LAPIC's mode, both of which must be there before. */
	if (out->nr < VCPU_MAX_MSRS && get_one(vcpu_fd, MSR_TSC_DEADLINE, &deadline) == 1)
		out->index[out->nr++] = MSR_TSC_DEADLINE;
	return 0;
}

int msrs_save(int vcpu_fd, const struct msr_list *list, struct msr_values *out, struct err *e)
{
	struct msr_batch b;

	*out = (struct msr_values){.nr = list->nr};
	memcpy(out->index, list->index, list->nr * sizeof(list->index[0]));
	for (uint32_t at = 0; at < list->nr; at += b.head.nmsrs) {
		int nr = transfer(vcpu_fd, KVM_GET_MSRS, out, at, &b);

		if (nr < 0)
			return err_sys(e, "KVM_GET_MSRS");
		if ((uint32_t)nr < b.head.nmsrs)
			return refused("read", list->index[at + (uint32_t)nr], 0, e);
		for (uint32_t i = 0; i < b.head.nmsrs; i++)
			out->value[at + i] = b.entries[i].data;
	}
	return 0;
}

int msrs_load(int vcpu_fd, const struct msr_values *v, struct err *e)
{
	struct msr_batch b;

	for (uint32_t at = 0; at < v->nr; at += b.head.nmsrs) {
		int nr = transfer(vcpu_fd, KVM_SET_MSRS, v, at, &b);

		if (nr < 0)
			return err_sys(e, "KVM_SET_MSRS");
		if ((uint32_t)nr < b.head.nmsrs)
			return refused("set", v->index[at + (uint32_t)nr],
				       v->value[at + (uint32_t)nr], e);
	}
	return 0;
}
