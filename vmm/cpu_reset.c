#include "vmm/cpu_reset.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#define SELECTOR_CODE 0x10
#define SELECTOR_DATA 0x18

#define CR0_PE   0x1ull
#define CR0_NE   0x20ull
#define CR0_ET   0x10ull
#define CR0_PG   0x80000000ull
#define CR4_PAE  0x20ull
#define EFER_LME 0x100ull
#define EFER_LMA 0x400ull

#define RFLAGS_RESERVED 0x2ull
#define REAL_MODE_END   0x100000u

/*
 * Where the guest's TSC starts. Not 0: KVM takes a write of 0 for a CPU that has just been made
 * and gives it the TSC the others have (kvm_synchronize_tsc), which here is wherever the last run
 * left it.
 */
#define TSC_AT_POWER_ON 1ull

int cpu_keep_power_on(int fd, const struct vcpu_caps *caps, struct vcpu_state *power_on,
		      struct err *e)
{
	int ret = vcpu_state_save(fd, caps, power_on, e);

	power_on->tsc = TSC_AT_POWER_ON;
	power_on->tsc_realtime_ns = 0; /* long ago: no time is added */
	return ret;
}

int cpu_reset(int fd, const struct vcpu_caps *caps, const struct vcpu_state *power_on,
	      struct err *e)
{
	struct kvm_mp_state mp;

	/* An INIT or SIPI that is still on its way would hit the vCPU after the reset; asking for
	 * the MP state makes KVM deliver it now (kvm_apic_accept_events). */
	if (ioctl(fd, KVM_GET_MP_STATE, &mp) < 0)
		return err_sys(e, "KVM_GET_MP_STATE");
	return vcpu_state_load(fd, caps, power_on, false, e);
}

/* A descriptor of a GDT in guest memory as KVM wants segments (Intel SDM vol. 3A, figure 3-8). */
static int read_segment(const struct guest_mem *mem, const struct boot_entry *entry,
			uint16_t selector, struct kvm_segment *s, struct err *e)
{
	uint64_t d;
	uint32_t limit;
	int ret;

	if (selector + 7u > entry->gdt_limit)
		return err_set(e, ERR_STATE, EINVAL, "%s entry: no descriptor 0x%x in its GDT",
			       entry->format, selector);
	ret = guest_mem_read(mem, entry->gdt_gpa + selector, &d, sizeof(d), e);
	if (ret < 0)
		return ret;
	limit = (uint32_t)(d & 0xffff) | (uint32_t)(d >> 32 & 0xf0000);
	*s = (struct kvm_segment){
		.base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000),
		.selector = selector,
		/* The CPU sets the accessed bit when it loads a selector, and the VM entry checks
		 * of VMX insist on it. */
		.type = (d >> 40 & 0xf) | 1,
		.s = d >> 44 & 1,
		.dpl = d >> 45 & 3,
		.present = d >> 47 & 1,
		.avl = d >> 52 & 1,
		.l = d >> 53 & 1,
		.db = d >> 54 & 1,
		.g = d >> 55 & 1,
	};
	s->limit = s->g ? limit << 12 | 0xfff : limit;
	return 0;
}

static int load_segments(const struct guest_mem *mem, const struct boot_entry *entry,
			 struct kvm_sregs2 *s, struct err *e)
{
	int ret = read_segment(mem, entry, SELECTOR_CODE, &s->cs, e);

	if (ret == 0)
		ret = read_segment(mem, entry, SELECTOR_DATA, &s->ds, e);
	if (ret < 0)
		return ret;
	s->es = s->fs = s->gs = s->ss = s->ds;
	/* PVH wants a TSS that is busy, 32-bit, base 0, limit 0x67; the others do not mind. */
	s->tr = (struct kvm_segment){.limit = 0x67, .type = 0xb, .present = 1};
	s->ldt = (struct kvm_segment){.unusable = 1};
	s->gdt = (struct kvm_dtable){.base = entry->gdt_gpa, .limit = entry->gdt_limit};
	/* As at reset. An image that goes back to real mode finds its interrupt vectors there, as
	 * after any firmware (kvm-unit-tests' realmode relies on that). */
	s->idt = (struct kvm_dtable){.base = 0, .limit = 0xffff};
	return 0;
}

static void set_mode(const struct boot_entry *entry, struct kvm_sregs2 *s)
{
	s->cr0 = CR0_PE | CR0_ET | CR0_NE;
	s->cr3 = 0;
	s->cr4 = 0;
	s->efer = 0;
	if (entry->mode != BOOT_LONG)
		return;
	s->cr0 |= CR0_PG;
	s->cr3 = entry->cr3;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
}

static int set_regs(int fd, const struct boot_entry *entry, struct err *e)
{
	struct kvm_regs regs = {.rip = entry->rip,
				.rax = entry->rax,
				.rbx = entry->rbx,
				.rsi = entry->rsi,
				.rflags = RFLAGS_RESERVED};

	if (ioctl(fd, KVM_SET_REGS, &regs) < 0)
		return err_sys(e, "KVM_SET_REGS for the entry at 0x%" PRIx64, entry->rip);
	return 0;
}

int cpu_enter_image(int fd, const struct vcpu_caps *caps, const struct guest_mem *mem,
		    const struct boot_entry *entry, struct err *e)
{
	struct kvm_sregs2 s;
	int ret = vcpu_sregs_get(fd, caps, &s, e);

	if (ret == 0)
		ret = load_segments(mem, entry, &s, e);
	if (ret < 0)
		return ret;
	set_mode(entry, &s);
	s.flags = 0;
	ret = vcpu_sregs_set(fd, caps, &s, e);
	return ret < 0 ? ret : set_regs(fd, entry, e);
}

/* ACPI 6.4, 5.2.10: "CS = Physical address boundary >> 4, IP = Physical address & 0xf". */
int cpu_enter_real_mode(int fd, const struct vcpu_caps *caps, uint32_t gpa, struct err *e)
{
	struct kvm_regs regs = {.rip = gpa & 0xf, .rflags = RFLAGS_RESERVED};
	struct kvm_sregs2 s;
	int ret;

	if (gpa >= REAL_MODE_END)
		return err_set(e, ERR_STATE, EINVAL,
			       "0x%" PRIx32 " is no place for real-mode code: it ends at 1 MiB",
			       gpa);
	ret = vcpu_sregs_get(fd, caps, &s, e);
	if (ret < 0)
		return ret;
	s.cs.selector = (uint16_t)(gpa >> 4);
	s.cs.base = gpa & ~0xfu;
	s.flags = 0;
	ret = vcpu_sregs_set(fd, caps, &s, e);
	if (ret < 0)
		return ret;
	return ioctl(fd, KVM_SET_REGS, &regs) < 0 ? err_sys(e, "KVM_SET_REGS for waking up") : 0;
}
