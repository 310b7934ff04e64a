/* doctor's look at KVM: judged by its answers, never by CPU flags. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/doctor.h"
#include "vmm/cpu_model.h"
#include "vmm/kvm.h"

#define MSR_IA32_TSC 0x10

void host_open(struct host *host)
{
	*host = (struct host){.kvm_fd = -1, .vm_fd = -1, .vcpu_fd = -1};
	host->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (host->kvm_fd < 0) {
		host->kvm_errno = errno;
		return;
	}
	host->vm_fd = ioctl(host->kvm_fd, KVM_CREATE_VM, 0);
	if (host->vm_fd < 0) {
		host->kvm_errno = errno;
		return;
	}
	/* Without an in-kernel irqchip: this vCPU never runs. */
	host->vcpu_fd = ioctl(host->vm_fd, KVM_CREATE_VCPU, 0);
}

void host_close(struct host *host)
{
	if (host->vcpu_fd >= 0)
		close(host->vcpu_fd);
	if (host->vm_fd >= 0)
		close(host->vm_fd);
	if (host->kvm_fd >= 0)
		close(host->kvm_fd);
}

static void no_device(const struct host *host, struct finding *f)
{
	bool exists = !access("/dev/kvm", F_OK);

	finding_set(f, VERDICT_MISSING, "/dev/kvm: %s", strerrordesc_np(host->kvm_errno));
	if (host->kvm_errno == EACCES || host->kvm_errno == EPERM)
		finding_remedy(f, "join group kvm (sudo usermod -aG kvm $USER, then log in again) "
				  "or run as root");
	else if (exists)
		finding_remedy(f, "enable virtualization (VT-x, AMD-V) in the firmware, then load "
				  "kvm_intel or kvm_amd");
	else
		finding_remedy(f,
			       "load kvm_intel or kvm_amd; in a VM enable nested virtualization; "
			       "or use experiments/testbed/host run, a KVM in software");
}

static void probe_device(const struct host *host, struct finding *f)
{
	if (host->kvm_fd < 0) {
		no_device(host, f);
		return;
	}
	if (host->vm_fd < 0) {
		finding_set(f, VERDICT_MISSING, "/dev/kvm opens but makes no VM: %s",
			    strerrordesc_np(host->kvm_errno));
		finding_remedy(f, "see dmesg; another hypervisor (VirtualBox, VMware) may hold the "
				  "CPU's virtualization");
		return;
	}
	finding_set(f, VERDICT_OK, "/dev/kvm, API version %d, up to %d vCPUs",
		    ioctl(host->kvm_fd, KVM_GET_API_VERSION, 0),
		    kvm_check(host->kvm_fd, KVM_CAP_MAX_VCPUS));
}

static void probe_required(const struct host *host, struct finding *f)
{
	char lacking[160] = "";
	unsigned long cap;
	const char *name;
	uint32_t nr = 0;

	while ((name = kvm_required_cap(nr, &cap))) {
		size_t used = strlen(lacking);

		nr++;
		if (!kvm_check(host->kvm_fd, cap))
			snprintf(lacking + used, sizeof(lacking) - used, " %s", name);
	}
	if (!lacking[0]) {
		finding_set(f, VERDICT_OK, "all %u that godwit needs", nr);
		return;
	}
	finding_set(f, VERDICT_MISSING, "lacks%s", lacking);
	finding_remedy(f, "use a newer kernel (4.13 or later)");
}

static void probe_manual_protect(const struct host *host, struct finding *f)
{
	int flags = kvm_check(host->vm_fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);

	if (flags) {
		finding_set(f, VERDICT_OK, "--dirty clear-log works%s",
			    flags & 2 ? ", starting it is free" : "");
		return;
	}
	finding_set(f, VERDICT_ABSENT,
		    "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 is missing: use --dirty "
		    "bitmap");
	finding_remedy(f, "kernel 5.0 or later has it");
}

static void probe_dirty_ring(const struct host *host, struct finding *f)
{
	int bytes = kvm_check(host->vm_fd, KVM_CAP_DIRTY_LOG_RING);

	if (!bytes)
		bytes = kvm_check(host->vm_fd, KVM_CAP_DIRTY_LOG_RING_ACQ_REL);
	if (bytes)
		finding_set(f, VERDICT_OK, "up to %zu entries per vCPU",
			    (size_t)bytes / sizeof(struct kvm_dirty_gfn));
	else
		finding_set(f, VERDICT_ABSENT, "not offered (no tracker here needs it)");
}

static void probe_xsave(const struct host *host, struct finding *f)
{
	int size = kvm_check(host->vm_fd, KVM_CAP_XSAVE2);

	if (size)
		finding_set(f, VERDICT_OK, "KVM_CAP_XSAVE2, %d bytes of extended state", size);
	else
		finding_set(f, VERDICT_OK, "KVM_CAP_XSAVE, 4096 bytes (no AMX here)");
}

static bool tsc_is_settable(const struct host *host)
{
	union {
		struct kvm_msrs msrs;
		char room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} u = {.msrs = {.nmsrs = 1}};
	struct kvm_msr_entry *tsc = u.msrs.entries;

	*tsc = (struct kvm_msr_entry){.index = MSR_IA32_TSC, .data = 1ull << 60};
	if (ioctl(host->vcpu_fd, KVM_SET_MSRS, &u) != 1)
		return false;
	tsc->data = 0;
	return ioctl(host->vcpu_fd, KVM_GET_MSRS, &u) == 1 && tsc->data >= 1ull << 60;
}

/* The models this host has, and why it lacks the first it lacks. */
static void probe_cpu_models(const struct host *host, struct finding *f)
{
	struct cpuid all;
	struct cpuid guest;
	struct err lacking = ERR_INIT;
	char have[160] = "host";
	const char *name;

	if (cpuid_build(host->kvm_fd, 1, 0, false, &all, &lacking) < 0) {
		finding_set(f, VERDICT_MISSING, "%.150s", lacking.msg);
		return;
	}
	for (uint32_t i = 0; (name = cpu_model_name(i)) != NULL; i++) {
		struct err why = ERR_INIT;
		size_t used = strlen(have);

		if (cpu_model_apply(name, &all, &guest, &why) == 0)
			snprintf(have + used, sizeof(have) - used, " %s", name);
		else if (lacking.kind == ERR_NONE)
			lacking = why;
	}
	finding_set(f, VERDICT_OK, "--cpu %s", have);
	if (lacking.kind != ERR_NONE)
		finding_remedy(f, "%.230s", lacking.msg);
}

static void probe_tsc(const struct host *host, struct finding *f)
{
	int khz = host->vcpu_fd < 0 ? 0 : ioctl(host->vcpu_fd, KVM_GET_TSC_KHZ, 0);
	bool scales = kvm_check(host->kvm_fd, KVM_CAP_TSC_CONTROL) > 0;

	if (host->vcpu_fd < 0) {
		finding_set(f, VERDICT_MISSING, "KVM makes no vCPU");
		return;
	}
	if (!tsc_is_settable(host)) {
		finding_set(f, VERDICT_NOTE,
			    "writes to the guest's TSC have no effect: it follows "
			    "this host's");
		finding_remedy(f, "migrate between VMMs on this host, or use a KVM with TSC "
				  "offsetting");
		return;
	}
	finding_set(f, VERDICT_OK, "settable, %d kHz, frequency %s", khz,
		    scales ? "scalable" : "fixed");
}

static void probe_nested(const struct host *host, struct finding *f)
{
	int size = kvm_check(host->vm_fd, KVM_CAP_NESTED_STATE);

	if (size) {
		finding_set(f, VERDICT_OK, "KVM_CAP_NESTED_STATE, %d bytes", size);
		return;
	}
	finding_set(f, VERDICT_ABSENT, "guests cannot run guests of their own here");
	finding_remedy(f, "modprobe kvm_intel nested=1 or kvm_amd nested=1, on a CPU that has it");
}

const struct check doctor_kvm_checks[] = {
	{"KVM", probe_device, false},
	{"KVM features", probe_required, true},
	{"manual dirty protection", probe_manual_protect, true},
	{"dirty ring", probe_dirty_ring, true},
	{"extended CPU state", probe_xsave, true},
	{"CPU models", probe_cpu_models, true},
	{"guest TSC", probe_tsc, true},
	{"nested virtualization", probe_nested, true},
	{NULL, NULL, false},
};
