#include "tests/rig/bare.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "nested/l1/l1.h"
#include "tests/rig/must.h"
#include "tests/rig/page_hold.h"
#include "tests/rig/rig.h"
#include "vmm/acpi/acpi.h"
#include "vmm/base/clock.h"
#include "vmm/boot/boot.h"
#include "vmm/cpu_reset.h"
#include "vmm/irqchip.h"
#include "vmm/kvm.h"
#include "vmm/mem.h"
#include "vmm/smm.h"

#define DEBUG_VECTOR 1
#define MAX_EXITS    1000000u /* of which none is a stop: the guest hangs */

struct bare {
	int kvm_fd, vm_fd, fd;
	struct guest_mem *mem;
	struct kvm_run *run;
	size_t run_bytes;
	struct vcpu_caps caps;
	struct cpuid cpuid;
	uint8_t value;
	uint64_t msr_map_gpa; /* as the guest has named it */
};

static void probe_nested(struct bare *b)
{
	char why[200];

	must(nested_caps_probe(b->kvm_fd, &b->caps.nested, why, sizeof(why), e));
	if (b->caps.nested.vendor != NESTED_NONE)
		return;
	print_message("SKIPPED: %s\n", why);
	close(b->kvm_fd);
	free(b);
	skip();
}

static void set_slots(struct bare *b, uint32_t space)
{
	for (uint32_t i = 0; i < guest_mem_nr_slots(b->mem); i++) {
		const struct mem_slot *s = guest_mem_slot(b->mem, i);
		struct kvm_userspace_memory_region r = {
			.slot = s->index | space << 16,
			.guest_phys_addr = s->gpa,
			.memory_size = s->bytes,
			.userspace_addr =
				(uint64_t)(uintptr_t)guest_mem_at(b->mem, s->gpa, s->bytes)};

		assert_return_code(ioctl(b->vm_fd, KVM_SET_USER_MEMORY_REGION, &r), errno);
	}
}

/* VM and vCPU around b->mem, as switched on. */
static void make(struct bare *b)
{
	struct nested_caps nested = b->caps.nested;

	b->vm_fd = ioctl(b->kvm_fd, KVM_CREATE_VM, 0);
	assert_return_code(b->vm_fd, errno);
	for (uint32_t space = 0; space < smm_nr_address_spaces(b->vm_fd); space++)
		set_slots(b, space);
	must(irqchip_create(b->vm_fd, e));
	vcpu_caps_init(b->vm_fd, &b->caps);
	b->caps.nested = nested;
	must(nested_caps_enable(b->vm_fd, &nested, e));
	b->fd = ioctl(b->vm_fd, KVM_CREATE_VCPU, 0);
	assert_return_code(b->fd, errno);
	b->run = mmap(NULL, b->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
	assert_ptr_not_equal(b->run, MAP_FAILED);
	must(vcpu_tsc_khz(b->fd, &b->caps, e));
	must(cpuid_build(b->kvm_fd, 1, b->caps.tsc_khz, true, &b->cpuid, e));
	must(cpuid_apply(b->fd, &b->cpuid, e));
	must(vcpu_set_up_mce(b->kvm_fd, b->fd, e));
	must(vcpu_caps_probe(b->kvm_fd, b->fd, &b->caps, e));
}

static void unmake(struct bare *b)
{
	munmap(b->run, b->run_bytes);
	close(b->fd);
	close(b->vm_fd);
}

/* Says that it is there, and ends the mode. */
static void put_smm_handler(struct bare *b)
{
	static const uint8_t code[] = {0xb0, BARE_MARK_SMM, /* mov $..., %al */
				       0xe6, L1_MARK_PORT,  /* out %al, $... */
				       0x0f, 0xaa};         /* rsm */

	if (!b->caps.smm)
		return;
	must(smm_set_base(b->fd, 0, e));
	must(guest_mem_write(b->mem, SMM_BASE(0) + SMM_ENTRY, code, sizeof(code), e));
}

struct bare *bare_boot(const char *kernel, const char *append, uint64_t memory_bytes)
{
	struct bare *b;
	struct acpi_config acpi = {.nr_cpus = 1};
	struct boot_image *image;
	struct boot_entry entry;
	uint64_t rsdp_gpa;

	rig_need_kvm();
	b = calloc(1, sizeof(*b));
	assert_non_null(b);
	must(kvm_open(&b->kvm_fd, e));
	probe_nested(b);
	b->run_bytes = (size_t)ioctl(b->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	must(guest_mem_new(memory_bytes, &b->mem, e));
	make(b);
	must(boot_image_open(kernel, NULL, append, &image, e));
	must(acpi_install(b->mem, &acpi, &rsdp_gpa, e));
	must(boot_load(b->mem, image, rsdp_gpa, &entry, e));
	must(cpu_enter_image(b->fd, &b->caps, b->mem, &entry, e));
	put_smm_handler(b);
	boot_image_free(image);
	return b;
}

void bare_free(struct bare *b)
{
	unmake(b);
	guest_mem_free(b->mem);
	close(b->kvm_fd);
	free(b);
}

/* The result of the last exit reaches the registers on the next entry, which this one is and yet is
 * not (vmm/vcpu.h). */
static void complete(struct bare *b)
{
	b->run->immediate_exit = 1;
	assert_int_equal(ioctl(b->fd, KVM_RUN, 0), -1);
	assert_int_equal(errno, EINTR);
	b->run->immediate_exit = 0;
}

static bool is_out(const struct bare *b, uint16_t port)
{
	return b->run->exit_reason == KVM_EXIT_IO && b->run->io.direction == KVM_EXIT_IO_OUT &&
	       b->run->io.port == port;
}

static const void *io_data(const struct bare *b)
{
	return (const uint8_t *)b->run + b->run->io.data_offset;
}

static bool stops(struct bare *b, enum bare_stop *why)
{
	if (!is_out(b, L1_MARK_PORT) && !is_out(b, L1_DONE_PORT))
		return false;
	*why = is_out(b, L1_MARK_PORT) ? BARE_MARK : BARE_DONE;
	b->value = *(const uint8_t *)io_data(b);
	complete(b);
	return true;
}

/* No device is here: ports read as ones, writes go nowhere. */
static void answer(struct bare *b)
{
	if (b->run->exit_reason != KVM_EXIT_IO)
		fail_msg("the guest left KVM for reason %u", b->run->exit_reason);
	if (is_out(b, L1_MSR_MAP_PORT))
		b->msr_map_gpa = *(const uint32_t *)io_data(b) * PAGE_BYTES;
	if (b->run->io.direction == KVM_EXIT_IO_IN)
		memset((uint8_t *)b->run + b->run->io.data_offset, 0xff,
		       (size_t)b->run->io.size * b->run->io.count);
}

enum bare_stop bare_run(struct bare *b)
{
	enum bare_stop why = BARE_DONE;

	for (uint32_t i = 0; i < MAX_EXITS; i++) {
		if (ioctl(b->fd, KVM_RUN, 0) < 0) {
			if (errno != EINTR && errno != EAGAIN)
				fail_msg("KVM_RUN: %s", strerror(errno));
			continue;
		}
		if (stops(b, &why))
			return why;
		answer(b);
	}
	fail_msg("the guest comes to no mark");
	return why;
}

uint8_t bare_value(const struct bare *b)
{
	return b->value;
}

static void free_for_skip(void *arg)
{
	bare_free(arg);
}

void bare_run_to_entry(struct bare *b)
{
	struct page_hold *h = page_hold_begin(b->mem, b->msr_map_gpa, free_for_skip, b);

	assert_int_equal(ioctl(b->fd, KVM_RUN, 0), -1);
	assert_int_equal(errno, EINTR);
	page_hold_end(h);
}

void bare_smi(struct bare *b)
{
	if (smm_nr_address_spaces(b->vm_fd) == 2) {
		assert_return_code(ioctl(b->fd, KVM_SMI), errno);
		return;
	}
	bare_free(b);
	print_message("SKIPPED: this KVM has no system management mode\n");
	skip();
}

struct nested_view bare_view(struct bare *b)
{
	struct nested_state s;
	struct nested_view v;

	must(nested_state_save(b->fd, &s, e));
	nested_view_decode(&s, &v);
	return v;
}

/* ---- Moving ---- */

static void same(const char *what, const void *before, const void *after, size_t len)
{
	const uint8_t *a = before, *b = after;

	for (size_t i = 0; i < len; i++)
		if (a[i] != b[i])
			fail_msg("%s: byte 0x%zx was 0x%02x and is 0x%02x", what, i, a[i], b[i]);
}

static void same_msrs(const struct msr_values *a, const struct msr_values *b)
{
	assert_int_equal(a->nr, b->nr);
	for (uint32_t i = 0; i < a->nr; i++) {
		/* Counts while paused (vmm/vm_canonical.c); AMD keeps 32 bits of SYSENTER. */
		uint64_t mask =
			a->index[i] == 0x175 || a->index[i] == 0x176 ? UINT32_MAX : UINT64_MAX;

		if (a->index[i] != b->index[i] || (a->value[i] ^ b->value[i]) & mask)
			fail_msg("MSR 0x%x (%s) was 0x%llx and is 0x%llx", a->index[i],
				 msr_name(a->index[i]), (unsigned long long)a->value[i],
				 (unsigned long long)b->value[i]);
	}
}

/* When L2's preemption timer is due, by L1's TSC (VMX). */
static uint64_t timer_tsc(const struct vcpu_state *s)
{
	return s->nested.kvm.hdr.vmx.preemption_timer_deadline << NESTED_TIMER_RATE;
}

/* A timer that was due by the time of the load is due a little later (nested/state.h). */
static void forget_overdue_timer(struct vcpu_state *a, const struct vcpu_state *b)
{
	struct kvm_vmx_nested_state_hdr *h = &a->nested.kvm.hdr.vmx;
	uint64_t put_off = (uint64_t)b->tsc_khz * NESTED_TIMER_PUT_OFF_MS;

	if (a->nested.kvm.format == KVM_STATE_NESTED_FORMAT_VMX && timer_tsc(a) < timer_tsc(b) &&
	    timer_tsc(b) <= b->tsc + put_off)
		h->preemption_timer_deadline = b->nested.kvm.hdr.vmx.preemption_timer_deadline;
}

static void compare(struct vcpu_state *a, struct vcpu_state *b)
{
	forget_overdue_timer(a, b);
	same("MP state", &a->mp_state, &b->mp_state, sizeof(a->mp_state));
	same("general registers", &a->regs, &b->regs, sizeof(a->regs));
	same("special registers", &a->sregs, &b->sregs, sizeof(a->sregs));
	same("debug registers", &a->debugregs, &b->debugregs, sizeof(a->debugregs));
	same("extended state", a->xsave, b->xsave, a->xsave_bytes);
	same("XCRs", &a->xcrs, &b->xcrs, sizeof(a->xcrs));
	same("LAPIC", &a->lapic, &b->lapic, sizeof(a->lapic));
	same_msrs(&a->msrs, &b->msrs);
	same("nested state's header", &a->nested.kvm, &b->nested.kvm, sizeof(a->nested.kvm));
	same("nested state's control block", a->nested.bytes + sizeof(a->nested.kvm),
	     b->nested.bytes + sizeof(b->nested.kvm), sizeof(a->nested) - sizeof(a->nested.kvm));
	same("events", &a->events, &b->events, sizeof(a->events));
}

static void save(struct bare *b, struct vcpu_state *s)
{
	must(vcpu_state_init(s, b->caps.xsave_bytes, e));
	must(vcpu_state_save(b->fd, &b->caps, s, e));
	s->cpuid = b->cpuid;
}

bool bare_trap_pending(struct bare *b)
{
	struct vcpu_state s;
	bool pending;

	save(b, &s);
	pending = s.events.exception.pending && s.events.exception.nr == DEBUG_VECTOR;
	vcpu_state_fini(&s);
	return pending;
}

void bare_owe_step(struct bare *b)
{
	struct vcpu_state s;

	save(b, &s);
	s.nested.kvm.flags |= KVM_STATE_NESTED_MTF_PENDING;
	must(vcpu_state_load(b->fd, &b->caps, &s, false, e));
	vcpu_state_fini(&s);
}

/* Another place for the memory as well: nothing may rest on where it was. */
static void move_memory(struct bare *b)
{
	uint64_t bytes = guest_mem_bytes(b->mem);
	struct guest_mem *mem;

	must(guest_mem_new(bytes, &mem, e));
	memcpy(guest_mem_at_rw(mem, 0, bytes), guest_mem_at(b->mem, 0, bytes), bytes);
	guest_mem_free(b->mem);
	b->mem = mem;
}

static void load_and_compare(struct bare *b, struct vcpu_state *before)
{
	struct vcpu_state after;

	must(vcpu_state_check(&b->caps, &b->cpuid, before, e));
	must(vcpu_state_load(b->fd, &b->caps, before, false, e));
	save(b, &after);
	compare(before, &after);
	vcpu_state_fini(&after);
}

static void move(struct bare *b, void (*while_away)(const struct vcpu_state *))
{
	struct vcpu_state before;

	save(b, &before);
	unmake(b);
	move_memory(b);
	while_away(&before);
	make(b);
	load_and_compare(b, &before);
	vcpu_state_fini(&before);
}

static void hurry(const struct vcpu_state *s)
{
	(void)s;
}

void bare_move(struct bare *b)
{
	move(b, hurry);
}

static void outwait_timer(const struct vcpu_state *s)
{
	uint64_t cycles = timer_tsc(s) > s->tsc ? timer_tsc(s) - s->tsc : 0;

	clock_sleep_until_ns(clock_now_ns() + cycles * NS_PER_MS / s->tsc_khz + NS_PER_MS);
}

void bare_move_late(struct bare *b)
{
	assert_true(bare_view(b).timer);
	move(b, outwait_timer);
}

void bare_refuse(struct bare *b, void (*spoil)(struct nested_state *), struct err *refusal)
{
	struct vcpu_state sound, spoilt;

	save(b, &sound);
	save(b, &spoilt);
	spoil(&spoilt.nested);
	if (vcpu_state_check(&b->caps, &b->cpuid, &spoilt, refusal) == 0 &&
	    vcpu_state_load(b->fd, &b->caps, &spoilt, false, refusal) == 0)
		fail_msg("the spoilt state was taken");
	load_and_compare(b, &sound);
	vcpu_state_fini(&sound);
	vcpu_state_fini(&spoilt);
}
