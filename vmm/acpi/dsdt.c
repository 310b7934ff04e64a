/*
 * The DSDT: what a guest cannot find by the fixed tables alone. \_SB holds the CPUs, the serial
 * port, the clock and the list of memory-mapped devices; \_S5 says how to power off, \_S3 how to
 * sleep where there is sleep. The power button is a fixed feature (FADT) and therefore not here.
 */
#include <stdio.h>

#include "vmm/acpi/aml.h"
#include "vmm/acpi/tables.h"
#include "vmm/machine.h"

#define DSDT_REVISION   2 /* integers have 64 bits */
#define NR_SERIAL_PORTS 8
#define NR_RTC_PORTS    2

/* ACPI 6.4, 5.6.7 lists the IDs. The _UID is what the MADT calls the processor's UID. */
static void add_cpus(struct aml *a, uint32_t nr)
{
	for (uint32_t id = 0; id < nr; id++) {
		char name[8];
		size_t cpu;

		snprintf(name, sizeof(name), "C%03X", id & 0xfff);
		cpu = aml_device(a, name);
		aml_name_string(a, "_HID", "ACPI0007");
		aml_name_integer(a, "_UID", id);
		aml_end(a, cpu);
	}
}

static void add_isa_device(struct aml *a, const char *name, const char *hid, uint16_t port,
			   uint8_t nr_ports, uint8_t irq)
{
	size_t device = aml_device(a, name), resources;

	aml_name_eisa_id(a, "_HID", hid);
	aml_name_integer(a, "_UID", 1);
	aml_name(a, "_CRS");
	resources = aml_resources(a);
	aml_io(a, port, nr_ports);
	aml_isa_irq(a, irq);
	aml_end_resources(a, resources);
	aml_end(a, device);
}

static void add_mmio_device(struct aml *a, uint32_t i, const struct acpi_mmio_device *d)
{
	size_t device, resources;
	char name[8];

	snprintf(name, sizeof(name), "V%03X", i & 0xfff);
	device = aml_device(a, name);
	aml_name_string(a, "_HID", d->hid);
	aml_name_integer(a, "_UID", d->uid);
	aml_name_integer(a, "_CCA", 1); /* DMA is coherent (6.2.17) */
	aml_name(a, "_CRS");
	resources = aml_resources(a);
	aml_memory(a, d->base, d->bytes);
	aml_level_interrupt(a, d->gsi);
	aml_end_resources(a, resources);
	aml_end(a, device);
}

/* 7.4.2: SLP_TYPa, SLP_TYPb, two reserved. */
static void add_sleep_state(struct aml *a, const char *name, uint64_t type)
{
	size_t package;

	aml_name(a, name);
	package = aml_package(a, 4);
	aml_integer(a, type);
	aml_integer(a, type);
	aml_integer(a, 0);
	aml_integer(a, 0);
	aml_end(a, package);
}

int acpi_append_dsdt(const struct acpi_config *config, struct buf *out, struct err *e)
{
	const struct acpi_header h = acpi_header("DSDT", DSDT_REVISION);
	struct aml a = aml_start(out, e);
	size_t start = out->len, sb;
	int rc = buf_append(out, &h, sizeof(h), e);

	if (rc)
		return rc;
	sb = aml_scope(&a, "_SB");
	add_cpus(&a, config->nr_cpus);
	add_isa_device(&a, "COM1", "PNP0501", BOARD_SERIAL_PORT, NR_SERIAL_PORTS, BOARD_SERIAL_GSI);
	add_isa_device(&a, "RTC", "PNP0B00", BOARD_RTC_PORT, NR_RTC_PORTS, BOARD_RTC_GSI);
	for (uint32_t i = 0; i < config->nr_devices; i++)
		add_mmio_device(&a, i, &config->devices[i]);
	aml_end(&a, sb);
	if (config->sleeps)
		add_sleep_state(&a, "_S3", BOARD_ACPI_S3_TYPE);
	add_sleep_state(&a, "_S5", BOARD_ACPI_S5_TYPE);
	if (aml_result(&a) == 0)
		acpi_finish_table(out, start);
	return aml_result(&a);
}
