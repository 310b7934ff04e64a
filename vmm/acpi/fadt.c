/* The Fixed ACPI Description Table (ACPI 6.4, 5.2.9): where the fixed hardware is. */
#include "vmm/acpi/tables.h"
#include "vmm/machine.h"

/* 5.2.9, flags */
enum fadt_flag {
	WBINVD_WORKS = 1u << 0,
	C1_SUPPORTED = 1u << 2,
	/* Bit 4, PWR_BUTTON, clear: the power button is a fixed feature of PM1. */
	NO_FIXED_SLEEP_BUTTON = 1u << 5,
	NO_FIXED_RTC_WAKE = 1u << 6,
	TIMER_IS_32_BIT = 1u << 8,
	RESET_REGISTER_SUPPORTED = 1u << 10,
};

/* 5.2.9.3, IA-PC boot architecture flags. "MSI not supported" (bit 3) stays clear: the LAPICs take
 * MSIs, there is just no PCI to send any. "CMOS RTC not present" (bit 5) is clear too. */
enum boot_flag {
	LEGACY_DEVICES = 1u << 0, /* the serial port */
	HAS_8042 = 1u << 1,
	NO_VGA = 1u << 2,
};

#define RESET_VALUE  6     /* 0xcf9: full reset, as on every PC chipset */
#define NO_C2        0xfff /* P_LVL2_LAT: above 100 means none */
#define NO_C3        0xfff /* P_LVL3_LAT: above 1000 means none */
#define CMOS_CENTURY 0x32

struct fadt {
	struct acpi_header header;
	uint32_t facs;
	uint32_t dsdt;
	uint8_t reserved0;
	uint8_t pm_profile;
	uint16_t sci_gsi;
	uint32_t smi_command;
	uint8_t acpi_enable, acpi_disable, s4bios_request, pstate_control;
	uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control;
	uint32_t pm2_control, pm_timer, gpe0, gpe1;
	uint8_t pm1_event_bytes, pm1_control_bytes, pm2_control_bytes, pm_timer_bytes;
	uint8_t gpe0_bytes, gpe1_bytes, gpe1_base;
	uint8_t cstate_control;
	uint16_t c2_latency, c3_latency;
	uint16_t flush_size, flush_stride;
	uint8_t duty_offset, duty_width;
	uint8_t day_alarm, month_alarm, century;
	uint16_t boot_flags;
	uint8_t reserved1;
	uint32_t flags;
	struct acpi_gas reset_register;
	uint8_t reset_value;
	uint16_t arm_boot_flags;
	uint8_t minor_version;
	uint64_t x_facs, x_dsdt;
	struct acpi_gas x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control;
	struct acpi_gas x_pm2_control, x_pm_timer, x_gpe0, x_gpe1;
	struct acpi_gas sleep_control, sleep_status;
	uint64_t hypervisor_vendor;
} __attribute__((packed));
_Static_assert(sizeof(struct fadt) == 276, "ACPI 6.4, 5.2.9, revision 6");
_Static_assert(offsetof(struct fadt, flags) == 112, "ACPI 6.4, 5.2.9");
_Static_assert(offsetof(struct fadt, x_pm1a_event) == 148, "ACPI 6.4, 5.2.9");

static struct acpi_gas port(uint64_t address, uint8_t bytes, uint8_t access)
{
	return (struct acpi_gas){
		.space = 1, .bits = (uint8_t)(bytes * 8), .access = access, .address = address};
}

/* SMI_CMD is zero: there is no legacy mode to leave, SCI_EN is always set (5.2.9, 4.8.2.5). */
static void fill_pm(struct fadt *f)
{
	f->sci_gsi = BOARD_SCI_GSI;
	f->pm1a_event = BOARD_PM_EVENT_PORT;
	f->pm1_event_bytes = 4;
	f->pm1a_control = BOARD_PM_CONTROL_PORT;
	f->pm1_control_bytes = 2;
	f->pm_timer = BOARD_PM_TIMER_PORT;
	f->pm_timer_bytes = 4;
	f->x_pm1a_event = port(BOARD_PM_EVENT_PORT, 4, 2);
	f->x_pm1a_control = port(BOARD_PM_CONTROL_PORT, 2, 2);
	f->x_pm_timer = port(BOARD_PM_TIMER_PORT, 4, 3);
}

int acpi_append_fadt(const struct acpi_config *config, uint64_t facs_gpa, uint64_t dsdt_gpa,
		     struct buf *out, struct err *e)
{
	size_t start = out->len;
	struct fadt f = {
		.header = acpi_header("FACP", 6),
		.minor_version = 4,
		.facs = (uint32_t)facs_gpa, /* X_FIRMWARE_CTRL is for one above 4 GiB */
		.dsdt = (uint32_t)dsdt_gpa,
		.x_dsdt = dsdt_gpa,
		.c2_latency = NO_C2,
		.c3_latency = NO_C3,
		.century = CMOS_CENTURY,
		.boot_flags = LEGACY_DEVICES | HAS_8042 | NO_VGA,
		.flags = WBINVD_WORKS | C1_SUPPORTED | NO_FIXED_SLEEP_BUTTON |
			 (config->sleeps ? 0 : NO_FIXED_RTC_WAKE) | TIMER_IS_32_BIT |
			 RESET_REGISTER_SUPPORTED,
		.reset_register = port(BOARD_RESET_PORT, 1, 1),
		.reset_value = RESET_VALUE,
	};
	int rc;

	fill_pm(&f);
	rc = buf_append(out, &f, sizeof(f), e);
	if (rc == 0)
		acpi_finish_table(out, start);
	return rc;
}
