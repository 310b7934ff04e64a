/*
 * The constructors of every device, one line each; vm's bill of materials (vmm/vm_devices.c) calls
 * them. Each claims its bus ranges from m->bus and is freed through its ops.
 */
#pragma once

#include <stdint.h>

#include "vmm/device.h"
#include "vmm/machine.h"

struct serial_backend;

/* 16550A at BOARD_SERIAL_PORT. Takes over @backend. */
int uart16550_new(const struct machine *m, struct serial_backend *backend, struct device **out,
		  struct err *e);
/* MC146818 CMOS/RTC at 0x70/0x71: time of day (UTC) and memory size registers. */
int rtc_new(const struct machine *m, struct device **out, struct err *e);
/* Call @alarm whenever the alarm interrupt's time has come, on any thread and with the RTC locked.
 * While the machine is assembled. */
void rtc_on_alarm(struct device *rtc, void (*alarm)(void *ctx), void *ctx);
/* i8042: enough for the reset pulse (command 0xfe), A20 and keyboard probing; ports 0x60, 0x64. */
int i8042_new(const struct machine *m, struct device **out, struct err *e);
/* PM1a event/control, PM timer, reset register 0xcf9, ports 0x92 and 0x80 (POST codes). */
int acpi_pm_new(const struct machine *m, struct device **out, struct err *e);
void acpi_pm_press_power_button(struct device *acpi_pm);
/* This machine has S3. The power button ends it, and the RTC's alarm if @rtc is enabled to: events
 * that PM1 has as status and enable bits. While the machine is assembled. */
void acpi_pm_add_sleep(struct device *acpi_pm, struct device *rtc);
/* The machine goes on after S3: what the guest finds is WAK_STS. vCPUs are paused. */
void acpi_pm_wake(struct device *acpi_pm);
/* isa-debug-exit: a write of N ends the VM with status N << 1 | 1, as QEMU's does. */
int debug_exit_new(const struct machine *m, struct device **out, struct err *e);
/* How many exits the host has had from the vCPU behind @vcpu_fd (nested/l1/l1_ports.h). */
int exit_counter_new(const struct machine *m, int vcpu_fd, struct device **out, struct err *e);
/* Where the guest publishes what it felt: GUEST_REPORT_PORT, see vmm/guest_report.h. */
int guest_report_dev_new(const struct machine *m, struct device **out, struct err *e);
uint64_t guest_report_dev_gpa(const struct device *d);

/* The rest is there for kvm-unit-tests only (`run --test-devices`). */

/* fw_cfg at 0x510, 0x511: memory size and number of vCPUs. */
int fw_cfg_new(const struct machine *m, uint32_t nr_cpus, struct device **out, struct err *e);
/* Bochs' power-off port 0x8900. */
int shutdown_port_new(const struct machine *m, struct device **out, struct err *e);
/* QEMU's pc-testdev: ports 0xe0, 0xe4, 0x2000 and on, memory at 0xff000000. */
int test_device_new(const struct machine *m, struct device **out, struct err *e);
/* High Precision Event Timers at 0xfed00000. */
int hpet_new(const struct machine *m, struct device **out, struct err *e);
