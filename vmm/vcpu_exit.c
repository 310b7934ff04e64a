#include "vmm/vcpu_exit.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/bus.h"

static const char *exit_name(uint32_t reason)
{
	static const char *const names[] = {
		[KVM_EXIT_UNKNOWN] = "KVM_EXIT_UNKNOWN",
		[KVM_EXIT_EXCEPTION] = "KVM_EXIT_EXCEPTION",
		[KVM_EXIT_HYPERCALL] = "KVM_EXIT_HYPERCALL",
		[KVM_EXIT_DEBUG] = "KVM_EXIT_DEBUG",
		[KVM_EXIT_HLT] = "KVM_EXIT_HLT",
		[KVM_EXIT_IRQ_WINDOW_OPEN] = "KVM_EXIT_IRQ_WINDOW_OPEN",
		[KVM_EXIT_SHUTDOWN] = "KVM_EXIT_SHUTDOWN (triple fault)",
		[KVM_EXIT_FAIL_ENTRY] = "KVM_EXIT_FAIL_ENTRY",
		[KVM_EXIT_SET_TPR] = "KVM_EXIT_SET_TPR",
		[KVM_EXIT_TPR_ACCESS] = "KVM_EXIT_TPR_ACCESS",
		[KVM_EXIT_NMI] = "KVM_EXIT_NMI",
		[KVM_EXIT_INTERNAL_ERROR] = "KVM_EXIT_INTERNAL_ERROR",
		[KVM_EXIT_SYSTEM_EVENT] = "KVM_EXIT_SYSTEM_EVENT",
		[KVM_EXIT_IOAPIC_EOI] = "KVM_EXIT_IOAPIC_EOI",
		[KVM_EXIT_X86_RDMSR] = "KVM_EXIT_X86_RDMSR",
		[KVM_EXIT_X86_WRMSR] = "KVM_EXIT_X86_WRMSR",
		[KVM_EXIT_DIRTY_RING_FULL] = "KVM_EXIT_DIRTY_RING_FULL",
		[KVM_EXIT_X86_BUS_LOCK] = "KVM_EXIT_X86_BUS_LOCK",
	};

	if (reason < sizeof(names) / sizeof(names[0]) && names[reason])
		return names[reason];
	return "an exit godwit does not know";
}

/* Text, with where the guest was put behind it. */
__attribute__((format(printf, 3, 4))) static void describe(char text[VCPU_EXIT_TEXT_BYTES],
							   int vcpu_fd, const char *fmt, ...)
{
	struct kvm_regs regs = {0};
	size_t used;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, VCPU_EXIT_TEXT_BYTES, fmt, ap);
	va_end(ap);
	used = strlen(text);
	if (ioctl(vcpu_fd, KVM_GET_REGS, &regs) == 0)
		snprintf(text + used, VCPU_EXIT_TEXT_BYTES - used, " at rip 0x%llx, rflags 0x%llx",
			 regs.rip, regs.rflags);
}

static void handle_pio(struct kvm_run *run, struct bus *bus)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	/* count > 1: a string instruction (rep outsb); the items follow one another. */
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			bus_write(bus, BUS_PIO, run->io.port, data, run->io.size);
		else
			bus_read(bus, BUS_PIO, run->io.port, data, run->io.size);
	}
}

static void handle_mmio(struct kvm_run *run, struct bus *bus)
{
	if (run->mmio.is_write)
		bus_write(bus, BUS_MMIO, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	else
		bus_read(bus, BUS_MMIO, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
}

static const char *suberror_name(uint32_t suberror)
{
	switch (suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		return "emulation failure";
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		return "simultaneous exceptions";
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		return "event delivery failure";
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		return "unexpected exit reason";
	default:
		return "unknown suberror";
	}
}

static void describe_internal_error(const struct kvm_run *run, int vcpu_fd,
				    char text[VCPU_EXIT_TEXT_BYTES])
{
	char bytes[3 * sizeof(run->emulation_failure.insn_bytes) + 1] = "";
	uint32_t nr = 0;

	/* The two words of the flagged layout are counted in ndata (KVM API document,
	 * KVM_EXIT_INTERNAL_ERROR); without them there are no instruction bytes. */
	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && run->internal.ndata >= 3 &&
	    (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
		nr = run->emulation_failure.insn_size;
	if (nr > sizeof(run->emulation_failure.insn_bytes))
		nr = sizeof(run->emulation_failure.insn_bytes);
	for (uint32_t i = 0; i < nr; i++)
		snprintf(bytes + 3 * i, 4, " %02x", run->emulation_failure.insn_bytes[i]);
	describe(text, vcpu_fd, "KVM_EXIT_INTERNAL_ERROR: suberror %u (%s)%s%s",
		 run->internal.suberror, suberror_name(run->internal.suberror),
		 nr ? ", instruction" : "", bytes);
}

enum vcpu_exit vcpu_exit_dispatch(struct kvm_run *run, struct bus *bus, int vcpu_fd,
				  char text[VCPU_EXIT_TEXT_BYTES])
{
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		handle_pio(run, bus);
		return VCPU_EXIT_DONE;
	case KVM_EXIT_MMIO:
		handle_mmio(run, bus);
		return VCPU_EXIT_DONE;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return VCPU_EXIT_DONE;
	case KVM_EXIT_SHUTDOWN:
		describe(text, vcpu_fd, "%s", exit_name(run->exit_reason));
		return VCPU_EXIT_SHUTDOWN;
	case KVM_EXIT_SYSTEM_EVENT:
		describe(text, vcpu_fd, "KVM_EXIT_SYSTEM_EVENT type %u", run->system_event.type);
		return VCPU_EXIT_SHUTDOWN;
	case KVM_EXIT_FAIL_ENTRY:
		describe(text, vcpu_fd,
			 "KVM_EXIT_FAIL_ENTRY: the CPU refused the guest state, reason 0x%" PRIx64,
			 (uint64_t)run->fail_entry.hardware_entry_failure_reason);
		return VCPU_EXIT_UNHANDLED;
	case KVM_EXIT_INTERNAL_ERROR:
		describe_internal_error(run, vcpu_fd, text);
		return VCPU_EXIT_UNHANDLED;
	default:
		describe(text, vcpu_fd, "%s (exit reason %u)", exit_name(run->exit_reason),
			 run->exit_reason);
		return VCPU_EXIT_UNHANDLED;
	}
}

void vcpu_exit_describe_errno(int code, int vcpu_fd, char text[VCPU_EXIT_TEXT_BYTES])
{
	/* EFAULT: KVM could not get at the memory behind an address of the guest; a memfd page
	 * that cannot be allocated looks like this. */
	describe(text, vcpu_fd, "KVM_RUN: %s%s", strerrordesc_np(code),
		 code == EFAULT ? " (guest memory not accessible; is the host out of memory?)"
				: "");
}
