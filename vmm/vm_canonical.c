/*
 * A machine's state without what goes on counting while it is paused, for comparing two machines.
 *
 * Left out: the upper halves of AMD's SYSENTER registers, the TSC and its moment, kvmclock, the
 * ACPI PM timer, the HPET's counter, the LAPIC's current count. KVM computes those from the host's
 * clock whenever they are asked for. And the LAPIC's processor priority, which follows from its TPR
 * and ISR, and when the preemption timer of a hypervisor's guest is due. Everything else has to be
 * the same bit for bit on both sides.
 */
#include "vmm/vm_private.h"

#include <errno.h>
#include <string.h>

#include "proto/device.pb-c.h"

#define LAPIC_PROCESSOR_PRIORITY 0xa0u
#define LAPIC_CURRENT_COUNT      0x390u

/* Is the guest's CPU one of AMD's, by leaf 0? Seven words an entry, as in MachineConfig. */
static bool is_amd(const Godwit__VcpuState *m)
{
	const uint32_t auth = 0x68747541; /* EBX of "AuthenticAMD" */
	const uint32_t hygo = 0x6f677948; /* of "HygonGenuine" */

	for (size_t i = 0; i + 7 <= m->n_cpuid; i += 7)
		if (m->cpuid[i] == 0)
			return m->cpuid[i + 4] == auth || m->cpuid[i + 4] == hygo;
	return false;
}

/*
 * SYSENTER_ESP and _EIP have 32 bits on AMD (APM 2, 6.1.2), and KVM loads no more (svm_set_msr).
 * A guest that writes 64 there reads what its CPU keeps of them: emulated ones (TCG) keep all.
 */
static void canonical_sysenter(Godwit__VcpuState *m)
{
	if (!is_amd(m))
		return;
	for (size_t i = 0; i < m->n_msr_index && i < m->n_msr_value; i++)
		if (m->msr_index[i] == 0x175 || m->msr_index[i] == 0x176)
			m->msr_value[i] &= UINT32_MAX;
}

/*
 * The processor priority is the higher of TPR and the highest vector in service (SDM 3A, "Task and
 * Processor Priorities"). A KVM that has just been given a LAPIC with a vector in service says 0
 * until it computes it anew (seen with Linux 6.1 and a CPU stopped in an interrupt handler).
 */
static void canonical_lapic(Godwit__VcpuState *m)
{
	if (!m->has_lapic || m->lapic.len < LAPIC_CURRENT_COUNT + 4)
		return;
	memset(m->lapic.data + LAPIC_PROCESSOR_PRIORITY, 0, 4);
	memset(m->lapic.data + LAPIC_CURRENT_COUNT, 0, 4);
}

/* A deadline that has passed by the time of a load is put off (nested/state.h). Not left out: the
 * digests of older sources have a zero there where no timer runs. */
static void canonical_nested(Godwit__VcpuState *m)
{
	if (m->nested)
		m->nested->preemption_timer_deadline = 0;
}

static void canonical_cpu(Godwit__VcpuState *m)
{
	m->has_tsc = m->has_tsc_realtime_ns = 0;
	canonical_sysenter(m);
	canonical_lapic(m);
	canonical_nested(m);
	/* A host with room for more extended state than the guest has reports more zeroes. */
	while (m->has_xsave && m->xsave.len > VCPU_XSAVE_MIN_BYTES &&
	       m->xsave.data[m->xsave.len - 1] == 0)
		m->xsave.len--;
}

static int canonical_acpi_pm(Godwit__DeviceState *d, struct err *e)
{
	Godwit__AcpiPmState *m = godwit__acpi_pm_state__unpack(NULL, d->body.len, d->body.data);
	size_t len;

	if (!m)
		return err_set(e, ERR_STREAM, EBADMSG, "malformed acpi-pm state");
	m->has_timer_ticks = 0;
	/* In place: without a field it can only have become shorter, unless it came in a form
	 * nobody writes. */
	len = godwit__acpi_pm_state__get_packed_size(m);
	if (len <= d->body.len)
		d->body.len = godwit__acpi_pm_state__pack(m, d->body.data);
	godwit__acpi_pm_state__free_unpacked(m, NULL);
	return 0;
}

static int canonical_hpet(Godwit__DeviceState *d, struct err *e)
{
	Godwit__HpetState *m = godwit__hpet_state__unpack(NULL, d->body.len, d->body.data);

	if (!m)
		return err_set(e, ERR_STREAM, EBADMSG, "malformed hpet state");
	m->has_counter = 0;
	if (godwit__hpet_state__get_packed_size(m) <= d->body.len) /* as above */
		d->body.len = godwit__hpet_state__pack(m, d->body.data);
	godwit__hpet_state__free_unpacked(m, NULL);
	return 0;
}

static int canonical_device(Godwit__DeviceState *d, struct err *e)
{
	if (!d->type || !d->has_body)
		return err_set(e, ERR_STREAM, EBADMSG, "device state without a name or body");
	if (strcmp(d->type, "kvm-clock") == 0)
		d->body.len = 0;
	if (strcmp(d->type, "acpi-pm") == 0)
		return canonical_acpi_pm(d, e);
	if (strcmp(d->type, "hpet") == 0)
		return canonical_hpet(d, e);
	return 0;
}

static int canonical(Godwit__MachineState *m, struct buf *out, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < m->n_vcpus; i++)
		canonical_cpu(m->vcpus[i]);
	for (size_t i = 0; i < m->n_devices && ret == 0; i++)
		ret = canonical_device(m->devices[i], e);
	if (ret == 0)
		ret = buf_reserve(out, godwit__machine_state__get_packed_size(m), e);
	if (ret == 0)
		out->len += godwit__machine_state__pack(m, out->data + out->len);
	return ret;
}

int vm_state_canonical(const uint8_t *data, size_t len, struct buf *out, struct err *e)
{
	Godwit__MachineState *m = godwit__machine_state__unpack(NULL, len, data);
	int ret;

	if (!m)
		return err_set(e, ERR_STREAM, EBADMSG, "%zu bytes that are no MachineState", len);
	ret = canonical(m, out, e);
	godwit__machine_state__free_unpacked(m, NULL);
	return ret;
}
