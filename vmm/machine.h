/*
 * What a device needs of the machine it is in, without knowing the VM: interrupt lines, the bus,
 * memory, and a way to ask for reset or power-off. Owned by the VM, valid for the VM's life.
 * Callable from any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/mem.h"

/* Their numbers are in the migration stream: append only. */
enum machine_request {
	MACHINE_RESET,    /* the guest asked for a reset (i8042, 0xcf9, FADT reset register) */
	MACHINE_POWEROFF, /* the guest entered S5 */
	MACHINE_EXIT,     /* isa-debug-exit: `code` is the program's exit status */
	MACHINE_SUSPEND,  /* the guest entered S3: no vCPU runs until MACHINE_WAKE */
	MACHINE_WAKE,     /* something woke the guest; nothing happens unless it is suspended */
};

struct machine {
	void *ctx;
	struct bus *bus;
	struct guest_mem *mem;
	/* Drive GSI @gsi of the in-kernel PIC/IOAPIC (KVM_IRQ_LINE). */
	void (*set_irq)(void *ctx, uint32_t gsi, bool level);
	/* The request is carried out by the VM's controller after this returns; the calling vCPU
	 * does not execute another guest instruction before it has been. */
	void (*request)(void *ctx, enum machine_request what, int code);
	/* A 4-byte store of @value to @gpa writes the eventfd @fd, inside KVM (KVM_IOEVENTFD), for
	 * the rest of the machine's life; it does not reach the bus any more. While the machine is
	 * assembled. NULL: this machine cannot, the store reaches the bus. */
	int (*add_ioeventfd)(void *ctx, uint64_t gpa, uint32_t value, int fd, struct err *e);
};

/* Fixed addresses of the board. The ACPI tables (vmm/acpi) and the devices both read them here. */
#define BOARD_SERIAL_PORT     0x3f8
#define BOARD_SERIAL_GSI      4
#define BOARD_KBD_GSI         1
#define BOARD_RTC_PORT        0x70
#define BOARD_RTC_GSI         8
#define BOARD_RESET_PORT      0xcf9
#define BOARD_DEBUG_EXIT_PORT 0xf4
#define BOARD_PM_EVENT_PORT   0x600 /* PM1a event block, 4 bytes */
#define BOARD_PM_CONTROL_PORT 0x604 /* PM1a control block, 2 bytes */
#define BOARD_PM_TIMER_PORT   0x608 /* 4 bytes */
#define BOARD_SCI_GSI         9
#define BOARD_ACPI_S3_TYPE    1 /* the same of suspend-to-RAM, on machines that have it */
#define BOARD_ACPI_S5_TYPE    5 /* SLP_TYPa of power-off: the _S5 package and PM1_CNT agree on it */
/* With test devices only. */
#define BOARD_FW_CFG_PORT     0x510
#define BOARD_SHUTDOWN_PORT   0x8900
#define BOARD_TEST_ECHO_PORT  0xe0
#define BOARD_TEST_FLUSH_PORT 0xe4
#define BOARD_TEST_LINES_PORT 0x2000
#define BOARD_TEST_MEMORY     0xff000000u
#define BOARD_HPET            0xfed00000u

#define BOARD_IOAPIC_ADDRESS 0xfec00000u
#define BOARD_LAPIC_ADDRESS  0xfee00000u
