/* The Multiple APIC Description Table (ACPI 6.4, 5.2.12): CPUs and interrupt lines. */
#include "vmm/acpi/tables.h"
#include "vmm/machine.h"

#define PCAT_COMPAT  1u /* 5.2.12, flags: there are 8259s, which the OS must mask */
#define CPU_ENABLED  1u
#define FIRST_X2APIC 255u /* 5.2.12.12: smaller IDs must use the LAPIC structure */
#define ALL_CPUS     0xff
#define LINT_OF_NMI  1
#define PIT_ISA_IRQ  0
#define PIT_GSI      2 /* as on a PC, where pin 0 is the 8259; KVM's routing must agree */
#define AS_THE_BUS   0x0
#define ACTIVE_HIGH  0x1
#define LEVEL        (0x3 << 2)

struct madt {
	struct acpi_header header;
	uint32_t lapic_address;
	uint32_t flags;
} __attribute__((packed));
_Static_assert(sizeof(struct madt) == 44, "ACPI 6.4, 5.2.12");

struct madt_lapic {
	uint8_t type, bytes;
	uint8_t uid, apic_id;
	uint32_t flags;
} __attribute__((packed));
_Static_assert(sizeof(struct madt_lapic) == 8, "ACPI 6.4, 5.2.12.2");

struct madt_x2apic {
	uint8_t type, bytes;
	uint16_t reserved;
	uint32_t apic_id;
	uint32_t flags;
	uint32_t uid;
} __attribute__((packed));
_Static_assert(sizeof(struct madt_x2apic) == 16, "ACPI 6.4, 5.2.12.12");

struct madt_ioapic {
	uint8_t type, bytes;
	uint8_t id, reserved;
	uint32_t address;
	uint32_t first_gsi;
} __attribute__((packed));
_Static_assert(sizeof(struct madt_ioapic) == 12, "ACPI 6.4, 5.2.12.3");

struct madt_override {
	uint8_t type, bytes;
	uint8_t bus, irq;
	uint32_t gsi;
	uint16_t flags;
} __attribute__((packed));
_Static_assert(sizeof(struct madt_override) == 10, "ACPI 6.4, 5.2.12.5");

struct madt_nmi {
	uint8_t type, bytes;
	uint8_t uid;
	uint16_t flags;
	uint8_t lint;
} __attribute__((packed));
_Static_assert(sizeof(struct madt_nmi) == 6, "ACPI 6.4, 5.2.12.7");

static int append_cpu(struct buf *out, uint32_t id, struct err *e)
{
	const struct madt_x2apic big = {
		.type = 9, .bytes = sizeof(big), .apic_id = id, .flags = CPU_ENABLED, .uid = id};
	const struct madt_lapic small = {.type = 0,
					 .bytes = sizeof(small),
					 .uid = (uint8_t)id,
					 .apic_id = (uint8_t)id,
					 .flags = CPU_ENABLED};

	if (id >= FIRST_X2APIC)
		return buf_append(out, &big, sizeof(big), e);
	return buf_append(out, &small, sizeof(small), e);
}

static int append_override(struct buf *out, uint8_t irq, uint32_t gsi, uint16_t flags,
			   struct err *e)
{
	const struct madt_override o = {
		.type = 2, .bytes = sizeof(o), .irq = irq, .gsi = gsi, .flags = flags};

	return buf_append(out, &o, sizeof(o), e);
}

static int append_interrupts(struct buf *out, struct err *e)
{
	const struct madt_ioapic ioapic = {
		.type = 1, .bytes = sizeof(ioapic), .address = BOARD_IOAPIC_ADDRESS};
	const struct madt_nmi nmi = {
		.type = 4, .bytes = sizeof(nmi), .uid = ALL_CPUS, .lint = LINT_OF_NMI};
	int rc = buf_append(out, &ioapic, sizeof(ioapic), e);

	if (rc == 0)
		rc = append_override(out, PIT_ISA_IRQ, PIT_GSI, AS_THE_BUS, e);
	if (rc == 0)
		rc = append_override(out, BOARD_SCI_GSI, BOARD_SCI_GSI, ACTIVE_HIGH | LEVEL, e);
	return rc ? rc : buf_append(out, &nmi, sizeof(nmi), e);
}

int acpi_append_madt(const struct acpi_config *config, struct buf *out, struct err *e)
{
	const struct madt m = {.header = acpi_header("APIC", 5),
			       .lapic_address = BOARD_LAPIC_ADDRESS,
			       .flags = PCAT_COMPAT};
	size_t start = out->len;
	int rc = buf_append(out, &m, sizeof(m), e);

	for (uint32_t id = 0; rc == 0 && id < config->nr_cpus; id++)
		rc = append_cpu(out, id, e);
	if (rc == 0)
		rc = append_interrupts(out, e);
	if (rc == 0)
		acpi_finish_table(out, start);
	return rc;
}
