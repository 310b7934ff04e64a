/*
 * ACPI tables: RSDP, XSDT, FADT, FACS, MADT, DSDT (ACPI 6.4, chapters 5 and 19), written into guest
 * memory at boot. Hardware as in vmm/machine.h: IOAPIC, LAPICs, SCI on GSI 9, PM1a blocks, PM
 * timer, reset register 0xcf9, S5, serial, RTC. Controller thread, before vCPUs run.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/buf.h"
#include "vmm/base/err.h"
#include "vmm/mem.h"

/* A device that the guest finds by its hardware ID and reaches through one window of memory and one
 * level-triggered, active-high interrupt: virtio-mmio is "LNRO0005". */
struct acpi_mmio_device {
	const char *hid;
	uint32_t uid; /* distinguishes devices of one @hid */
	uint32_t base;
	uint32_t bytes;
	uint32_t gsi;
};

struct acpi_config {
	uint32_t nr_cpus; /* APIC IDs 0 to nr_cpus - 1 */
	const struct acpi_mmio_device *devices;
	uint32_t nr_devices;
	bool sleeps; /* there is S3, which the power button and the clock's alarm end */
};

/* Write all tables into the BIOS area (0xe0000-0xfffff) and return where the RSDP is. */
int acpi_install(struct guest_mem *mem, const struct acpi_config *config, uint64_t *rsdp_gpa,
		 struct err *e);

/* Where the guest wants to be woken: the FACS that acpi_install() has put into @mem says it, on
 * this host or on the one the guest came from. ERR_STATE if the guest has left none there. */
int acpi_waking_vector(const struct guest_mem *mem, uint32_t *gpa, struct err *e);

/* One table's bytes, as acpi_install() writes them, appended to @out; for tests and `iasl -d`:
 * "RSD PTR ", "FACS", "DSDT", "FACP", "APIC", "XSDT", "RSDT". */
int acpi_build_table(const struct acpi_config *config, const char *signature, struct buf *out,
		     struct err *e);
